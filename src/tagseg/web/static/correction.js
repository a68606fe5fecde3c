// Labels that a person changes: by regions, by a brush, and back.

const STEPS = 40; // strokes that can be undone
const BACKGROUND = 0;

export class Correction {
  constructor({ width, height, data }) {
    this.labels = { width, height, data: data.slice() };
    this.done = []; // { box, before }
    this.stroke = null; // { whole, box } while one is under way
  }

  get changed() {
    return this.done.length > 0;
  }

  begin() {
    this.stroke = { whole: this.labels.data.slice(), box: null };
  }

  end() {
    const { whole, box } = this.stroke ?? {};
    this.stroke = null;
    if (!box) return;
    this.done.push({ box, before: cut(whole, this.labels.width, box) });
    if (this.done.length > STEPS) this.done.shift();
  }

  undo() {
    // What was changed, [left, top, right, bottom]; null if there is nothing to undo.
    const last = this.done.pop();
    if (!last) return null;
    const [left, top, right, bottom] = last.box;
    const { width, data } = this.labels;
    for (let y = top; y < bottom; y++) {
      const row = (y - top) * (right - left);
      data.set(last.before.subarray(row, row + right - left), y * width + left);
    }
    return last.box;
  }

  brush(from, to, radius, label) {
    // Discs from one point to another; the box of what they cover.
    const { width, height, data } = this.labels;
    const box = [
      Math.max(0, Math.floor(Math.min(from.x, to.x) - radius)),
      Math.max(0, Math.floor(Math.min(from.y, to.y) - radius)),
      Math.min(width, Math.ceil(Math.max(from.x, to.x) + radius)),
      Math.min(height, Math.ceil(Math.max(from.y, to.y) + radius)),
    ];
    const [dx, dy] = [to.x - from.x, to.y - from.y];
    const length = dx * dx + dy * dy;
    for (let y = box[1]; y < box[3]; y++) {
      for (let x = box[0]; x < box[2]; x++) {
        const [px, py] = [x + 0.5 - from.x, y + 0.5 - from.y];
        const share = length ? Math.min(1, Math.max(0, (px * dx + py * dy) / length)) : 0;
        const [ox, oy] = [px - share * dx, py - share * dy];
        if (ox * ox + oy * oy <= radius * radius) data[y * width + x] = label;
      }
    }
    return this.cover(box);
  }

  inOrOut(map, point, label) {
    // What a region becomes that is clicked: `label`, or background if most of it has that.
    const id = idAt(map, this.labels, point);
    if (id === null || label === BACKGROUND) return label;
    const places = this.placesOf(map, id);
    let inside = 0;
    for (const at of places) inside += this.labels.data[at] === label;
    return inside * 2 > places.length ? BACKGROUND : label;
  }

  fill(map, point, label) {
    // Give a region a label; the box of what it covers, null outside the photo.
    const id = idAt(map, this.labels, point);
    const places = id === null ? [] : this.placesOf(map, id);
    const { width, data } = this.labels;
    let [left, top, right, bottom] = [Infinity, Infinity, 0, 0];
    for (const at of places) {
      data[at] = label;
      const [x, y] = [at % width, Math.floor(at / width)];
      left = Math.min(left, x);
      top = Math.min(top, y);
      right = Math.max(right, x + 1);
      bottom = Math.max(bottom, y + 1);
    }
    return places.length ? this.cover([left, top, right, bottom]) : null;
  }

  placesOf(map, id) {
    const { width, height } = this.labels;
    const column = Int32Array.from({ length: width }, (_, x) =>
      Math.min(map.width - 1, Math.floor(((x + 0.5) * map.width) / width)),
    );
    const found = [];
    for (let y = 0; y < height; y++) {
      const row = Math.min(map.height - 1, Math.floor(((y + 0.5) * map.height) / height)) * map.width;
      for (let x = 0; x < width; x++) if (map.data[row + column[x]] === id) found.push(y * width + x);
    }
    return found;
  }

  cover(box) {
    const old = this.stroke?.box;
    if (this.stroke) {
      this.stroke.box = old
        ? [Math.min(old[0], box[0]), Math.min(old[1], box[1]), Math.max(old[2], box[2]), Math.max(old[3], box[3])]
        : box;
    }
    return box;
  }
}

export function idAt(map, { width, height }, { x, y }) {
  // The region at a point of the photo; null outside.
  if (x < 0 || y < 0 || x >= width || y >= height) return null;
  const [column, row] = [Math.floor((x * map.width) / width), Math.floor((y * map.height) / height)];
  return map.data[row * map.width + column];
}

function cut(data, width, [left, top, right, bottom]) {
  const made = new Uint8Array((right - left) * (bottom - top));
  for (let y = top; y < bottom; y++) {
    made.set(data.subarray(y * width + left, y * width + right), (y - top) * (right - left));
  }
  return made;
}
