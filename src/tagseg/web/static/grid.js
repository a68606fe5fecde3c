// Photos in rows of which only those in sight are in the page, so that 100,000 are as quick as 30.

const WIDTH = 190; // of a photo's card, at least
const HEIGHT = 218; // of a card, if nothing else is said
const GAP = 12;
const MORE = 2; // rows beyond the window's edge that are ready

export class Grid {
  // `draw(position)` makes the card of a position; `dropped(card)` hears that it is gone.
  constructor(scroller, grid, { draw, dropped }) {
    this.scroller = scroller;
    this.grid = grid;
    this.draw = draw;
    this.dropped = dropped;
    this.count = 0;
    this.columns = 1;
    this.height = HEIGHT; // may be set before `measure` or `show`
    this.cards = new Map();
    this.asked = false;
    scroller.addEventListener("scroll", () => this.soon(), { passive: true });
    new ResizeObserver(() => this.measure()).observe(scroller);
  }

  show(count) {
    this.clear();
    this.count = count;
    this.scroller.scrollTop = 0;
    this.measure();
  }

  clear() {
    for (const card of this.cards.values()) this.remove(card);
    this.cards.clear();
  }

  remove(card) {
    this.dropped(card);
    card.remove();
  }

  measure() {
    const width = this.grid.clientWidth;
    if (!width) return; // not in sight
    this.columns = Math.max(1, Math.floor((width + GAP) / (WIDTH + GAP)));
    this.width = (width - GAP * (this.columns - 1)) / this.columns;
    const rows = Math.ceil(this.count / this.columns);
    this.grid.style.height = `${Math.max(1, rows * (this.height + GAP))}px`;
    for (const [position, card] of this.cards) this.place(card, position);
    this.fill();
  }

  place(card, position) {
    const row = Math.floor(position / this.columns);
    card.style.width = `${this.width}px`;
    card.style.height = `${this.height}px`;
    const left = (position % this.columns) * (this.width + GAP);
    card.style.transform = `translate(${left}px, ${row * (this.height + GAP)}px)`;
  }

  soon() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      this.fill();
    });
  }

  range() {
    const row = this.height + GAP;
    const first = Math.floor(this.scroller.scrollTop / row) - MORE;
    const last = Math.ceil((this.scroller.scrollTop + this.scroller.clientHeight) / row) + MORE;
    const from = Math.max(0, first * this.columns);
    return [from, Math.min(this.count, last * this.columns)];
  }

  fill() {
    if (!this.grid.clientWidth) return;
    const [from, to] = this.range();
    for (const [position, card] of this.cards) {
      if (position < from || position >= to) {
        this.remove(card);
        this.cards.delete(position);
      }
    }
    const fresh = [];
    for (let position = from; position < to; position++) {
      if (this.cards.has(position)) continue;
      const card = this.draw(position);
      this.place(card, position);
      this.cards.set(position, card);
      fresh.push(card);
    }
    this.grid.append(...fresh);
  }

  reveal(position) {
    const row = this.height + GAP;
    const top = Math.floor(position / this.columns) * row;
    const height = this.scroller.clientHeight;
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    else if (top + row > this.scroller.scrollTop + height - GAP) {
      this.scroller.scrollTop = top + row + GAP - height;
    }
    this.fill();
  }

  page() {
    return this.columns * Math.max(1, Math.floor(this.scroller.clientHeight / (this.height + GAP)));
  }
}
