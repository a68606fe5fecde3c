// Correcting the mask of one photo: which tool and label, and what pointer and keys do to it.

import { Correction, idAt } from "./correction.js";
import { $, element } from "./dom.js";
import { map as fetched } from "./server.js";

const BRUSHES = [0.004, 0.008, 0.015, 0.03, 0.06, 0.12]; // radius, of the photo's longer side
const LEAST = 0.75; // pixels of a radius, by which one pixel is met wherever the brush is
const STEP = 1 / 40; // of the longer side, by which the cross moves
const BACKGROUND = 0;
const UNSURE = 255;

export class Painting {
  // `view` is a MaskView; `levels` are names of regions, fine to coarse.
  constructor(view, levels, say) {
    Object.assign(this, { view, levels, say });
    this.photo = null; // what is corrected, or null
    this.tool = "regions";
    this.size = 2; // of BRUSHES
    this.level = Math.min(1, levels.length - 1);
    this.choices = []; // [label, name, key, colour]
    this.label = BACKGROUND;
    this.cross = null; // where the keys paint
    this.last = null; // where the brush was
    this.settled = Promise.resolve(); // when all that was clicked is done
    this.wire();
  }

  get on() {
    return this.photo !== null;
  }

  start(photo, labels, choices) {
    this.photo = photo;
    this.correction = new Correction(labels);
    this.regions = new Map();
    this.choices = choices;
    this.label = choices.find(([label]) => label !== BACKGROUND && label !== UNSURE)?.[0] ?? 0;
    this.cross = { x: labels.width / 2, y: labels.height / 2 };
    this.view.show(this.correction.labels);
    this.view.stage.classList.add("correct");
    $("correcting").hidden = false;
    this.showChoices();
    this.showTool();
  }

  stop() {
    this.photo = null;
    this.view.marked = null;
    this.view.stage.classList.remove("correct");
    $("correcting").hidden = true;
    $("cursor").hidden = true;
  }

  // --- tools and labels ------------------------------------------------------------------------

  showChoices() {
    const made = this.choices.map(([label, name, key, colour]) => {
      const button = element("button");
      button.type = "button";
      button.setAttribute("aria-pressed", label === this.label);
      button.append(element("kbd", "", key), " ");
      if (colour) {
        const swatch = element("span", "swatch");
        swatch.style.background = colour;
        button.append(swatch, " ");
      }
      button.append(name);
      button.addEventListener("click", () => this.choose(label));
      return button;
    });
    $("labels").replaceChildren(...made);
  }

  choose(label) {
    this.label = label;
    this.showChoices();
    this.say(`paints ${this.choices.find(([each]) => each === label)[1]}`);
  }

  showTool() {
    const regions = this.tool === "regions";
    $("regions").setAttribute("aria-pressed", regions);
    $("brush").setAttribute("aria-pressed", !regions);
    $("less-text").textContent = regions ? "finer" : "smaller";
    $("more-text").textContent = regions ? "coarser" : "larger";
    const level = this.levels[this.level];
    $("size-text").textContent = regions
      ? `regions: ${level.name}`
      : `brush: ${Math.max(1, Math.round(2 * this.radius()))} pixels`;
    this.view.marked = null;
    if (regions) this.regionMap();
    this.showCross(!$("cursor").hidden);
    this.view.draw();
  }

  use(tool) {
    this.tool = tool;
    this.showTool();
  }

  resize(by) {
    const clamp = (value, count) => Math.min(count - 1, Math.max(0, value));
    if (this.tool === "brush") this.size = clamp(this.size + by, BRUSHES.length);
    else this.level = clamp(this.level + by, this.levels.length);
    this.showTool();
    this.say($("size-text").textContent);
  }

  radius() {
    const { width, height } = this.correction.labels;
    return Math.max(LEAST, BRUSHES[this.size] * Math.max(width, height));
  }

  regionMap() {
    // The regions of the level in use, which are asked for once.
    const { key } = this.levels[this.level];
    if (!this.regions.has(key)) {
      const asked = fetched(`regions/${this.photo}/${key}`, Int32Array);
      const mine = this.regions;
      mine.set(key, asked);
      asked.then(
        (found) => (mine.loaded = { ...mine.loaded, [key]: found }),
        (problem) => this.say(`no regions: ${problem.message}`),
      );
    }
    return this.regions.get(key);
  }

  // --- painting --------------------------------------------------------------------------------

  queue(act) {
    // Strokes come in the order in which they were asked for: regions may be on their way.
    const mine = this.photo;
    this.settled = this.settled.then(() => (this.photo === mine ? act() : null));
  }

  clicked(point, label) {
    const mine = this.photo;
    this.queue(() => this.toggle(mine, point, label));
  }

  async toggle(mine, point, label) {
    const map = await this.regionMap().catch(() => null);
    if (!map || this.photo !== mine || this.painting !== undefined) return;
    this.correction.begin();
    const box = this.correction.fill(map, point, this.correction.inOrOut(map, point, label));
    this.correction.end();
    if (box) this.view.draw(box);
  }

  paint(point, label) {
    const box = this.correction.brush(this.last ?? point, point, this.radius(), label);
    this.last = point;
    this.view.draw(box);
  }

  at(point, label) {
    // Paint once at a point, with the tool in use.
    if (this.tool === "regions") {
      this.clicked(point, label);
      return;
    }
    const radius = this.radius();
    this.queue(() => {
      this.correction.begin();
      this.view.draw(this.correction.brush(point, point, radius, label));
      this.correction.end();
    });
  }

  undo() {
    this.queue(() => {
      const box = this.correction.undo();
      if (box) this.view.draw(box);
      this.say(box ? "stroke undone" : "there is no stroke to undo");
    });
  }

  // --- the pointer -----------------------------------------------------------------------------

  wire() {
    const { stage } = this.view;
    stage.addEventListener("pointerdown", (event) => this.pressed(event));
    stage.addEventListener("pointermove", (event) => this.moved(event));
    stage.addEventListener("pointerup", () => this.released());
    stage.addEventListener("pointercancel", () => this.released());
    stage.addEventListener("contextmenu", (event) => this.on && event.preventDefault());
    stage.addEventListener("pointerleave", () => this.point(null));
    $("regions").addEventListener("click", () => this.use("regions"));
    $("brush").addEventListener("click", () => this.use("brush"));
    $("less").addEventListener("click", () => this.resize(-1));
    $("more").addEventListener("click", () => this.resize(1));
    $("undo-stroke").addEventListener("click", () => this.undo());
  }

  pressed(event) {
    if (!this.on) return;
    event.preventDefault();
    this.view.stage.focus({ preventScroll: true });
    this.showCross(false);
    const out = event.shiftKey || event.button === 2;
    const label = out ? BACKGROUND : this.label;
    const point = this.view.toPhoto(event);
    const map = this.regions.loaded?.[this.levels[this.level].key];
    if (this.tool === "regions" && !map) {
      this.clicked(point, label);
      return;
    }
    this.view.stage.setPointerCapture(event.pointerId);
    this.last = null;
    this.correction.begin();
    this.dragged = this.tool === "regions" ? { map, id: null } : null;
    this.painting = this.dragged ? this.correction.inOrOut(map, point, label) : label;
    this.drag(point);
  }

  drag(point) {
    // Brush, or give all regions that are met what the first one became.
    if (!this.dragged) {
      this.paint(point, this.painting);
      return;
    }
    const id = idAt(this.dragged.map, this.correction.labels, point);
    if (id === this.dragged.id) return;
    this.dragged.id = id;
    const box = this.correction.fill(this.dragged.map, point, this.painting);
    if (box) this.view.draw(box);
  }

  moved(event) {
    if (!this.on) return;
    const point = this.view.toPhoto(event);
    if (this.painting !== undefined) this.drag(point);
    else this.point(point);
  }

  released() {
    if (this.painting === undefined) return;
    this.painting = undefined;
    this.last = null;
    this.correction.end();
  }

  async point(point) {
    // Mark the region that is pointed at.
    if (!this.on || this.tool !== "regions") return;
    const map = await this.regionMap().catch(() => null);
    if (!this.on || !map) return;
    const id = point && idAt(map, this.correction.labels, point);
    if ((this.view.marked?.id ?? null) === id) return;
    this.view.marked = id === null ? null : { map, id };
    this.view.draw();
  }

  // --- keys ------------------------------------------------------------------------------------

  key(event) {
    // Whether a key meant something here.
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = moves[event.key];
    const choice = this.choices.find(([, , key]) => key.toLowerCase() === event.key.toLowerCase());
    const letter = { g: () => this.use("regions"), b: () => this.use("brush"), z: () => this.undo() };
    const own = letter[event.key.toLowerCase()];
    if (move) this.move(move, event.shiftKey ? 0.25 : 1);
    else if (event.key === " ") this.space(event.shiftKey);
    else if (event.key === "[") this.resize(-1);
    else if (event.key === "]") this.resize(1);
    else if (choice) this.choose(choice[0]);
    else if (own) own();
    else return false;
    return true;
  }

  move([dx, dy], share) {
    const { width, height } = this.correction.labels;
    const step = Math.max(1, Math.max(width, height) * STEP * share);
    const keep = (value, most) => Math.min(most - 0.5, Math.max(0.5, value));
    this.cross = { x: keep(this.cross.x + dx * step, width), y: keep(this.cross.y + dy * step, height) };
    this.showCross(true);
    this.point(this.cross);
  }

  space(out) {
    this.showCross(true);
    this.at(this.cross, out ? BACKGROUND : this.label);
  }

  showCross(on) {
    $("cursor").hidden = !on;
    if (!on) return;
    const { x, y } = this.view.onStage(this.cross);
    const size = this.tool === "brush" ? Math.max(6, 2 * this.radius() * this.view.scale) : 16;
    const style = $("cursor").style;
    style.width = style.height = `${size}px`;
    style.margin = `${-size / 2}px`;
    style.transform = `translate(${x}px, ${y}px)`;
  }
}
