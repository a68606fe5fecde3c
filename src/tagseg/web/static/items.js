// What is known of photos: asked for in blocks of the list that is shown, and forgotten when it is much.

import { ask } from "./server.js";

const BLOCK = 120; // photos that are asked for at once
const MOST = 6000; // photos that are remembered

export class Items extends Map {
  // `list()` gives the photos of the list in order; `refresh(photos)` hears of which more is known.
  constructor({ list, refresh }) {
    super();
    this.list = list;
    this.refresh = refresh;
    this.turn = 0; // of the list; answers for an older one are not used
    this.asking = new Set(); // blocks that are under way
  }

  begin() {
    // Another list is coming; its number.
    this.asking = new Set();
    return ++this.turn;
  }

  async know(place) {
    const block = Math.floor(place / BLOCK);
    if (this.asking.has(block)) return;
    this.asking.add(block);
    const mine = this.turn;
    const ids = this.list().subarray(block * BLOCK, (block + 1) * BLOCK);
    try {
      const { photos } = await ask(`api/photos?ids=${[...ids].join(",")}`);
      if (this.size > MOST) this.clear();
      for (const item of photos) this.set(item.id, item);
      if (mine === this.turn) this.refresh(new Set(ids));
    } catch {
      // what is in sight is asked for again when it is drawn again
    }
    if (mine === this.turn) this.asking.delete(block);
  }
}
