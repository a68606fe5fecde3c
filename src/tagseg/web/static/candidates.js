// The label maps that a person can pick from, in a strip under the photo.

import { $, element } from "./dom.js";
import { ask } from "./server.js";

export function stacked() {
  // A photo, and the place of a mask over it.
  const box = element("div", "pictures");
  const [photo, over] = [element("img"), element("img", "over")];
  photo.alt = over.alt = "";
  box.append(photo, over);
  return box;
}

export class Candidates {
  // `titles` of all; `layOver(img, photo, which, version)` gives a picture its mask.
  constructor(titles, layOver) {
    Object.assign(this, { titles, layOver });
    this.photo = null;
    this.same = []; // for each the first that is the same; null where the photo has none
    $("candidates").hidden = !this.some;
  }

  get count() {
    return this.titles.length;
  }

  get some() {
    return this.count > 1;
  }

  async show(item, looked) {
    this.photo = item;
    this.same = [];
    if (!this.some) return;
    const made = this.titles.map((title, number) => this.button(item, title, number));
    $("candidates").replaceChildren(...made);
    this.outline();
    this.mark(looked);
    try {
      const { same } = await ask(`api/candidates/${item.id}`);
      if (this.photo.id !== item.id) return;
      this.same = same;
      same.forEach((first, number) => this.markSame(made[number], first, number));
    } catch {
      // they can be picked all the same
    }
  }

  button(item, title, number) {
    const button = element("button", "candidate");
    button.type = "button";
    button.dataset.candidate = number;
    const box = stacked();
    box.firstChild.src = `picture/small/${item.id}`;
    const what = element("span", "what");
    what.append(element("kbd", "", String(number + 1)), ` ${title}`);
    what.title = title;
    button.append(box, what);
    return button;
  }

  update(item) {
    // What is known of the photo has changed, such as which classes are in it.
    if (this.photo?.id !== item.id || this.photo.v === item.v) return;
    this.photo = item;
    this.outline();
  }

  outline() {
    // Give all pictures their mask, as masks are drawn now.
    if (!this.photo) return;
    for (const button of $("candidates").children) {
      const over = button.querySelector(".over");
      this.layOver(over, this.photo.id, button.dataset.candidate, this.photo.v);
    }
  }

  markSame(button, first, number) {
    if (first === number) return;
    button.disabled = first === null;
    const line = first === null ? "none" : `as ${first + 1}`;
    button.querySelector(".what").lastChild.textContent = ` ${line}: ${this.titles[number]}`;
  }

  mark(looked) {
    for (const button of $("candidates").children) {
      button.classList.toggle("previewed", Number(button.dataset.candidate) === (looked ?? -1));
    }
  }
}
