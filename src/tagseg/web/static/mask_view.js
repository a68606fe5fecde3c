// A mask over a photo, drawn at the screen's own pixels so that edges stay sharp.

const UNSURE = 255;
const MOST = 2400; // pixels of a side that are drawn
const EDGE = 2; // pixels of the screen
const MARK = [0xffffffff, 0xff000000]; // white and black, around the region that is pointed at
const STRIPES = 9; // pixels from one stripe of what is not sure to the next

export class MaskView {
  constructor(stage, photo, canvas) {
    Object.assign(this, { stage, photo, canvas });
    this.pen = canvas.getContext("2d");
    this.labels = null; // { width, height, data }
    this.colours = new Uint32Array(256);
    this.opacity = 0.5;
    this.outlines = this.hidden = false;
    this.marked = null; // { map, id }: a region that is pointed at
    new ResizeObserver(() => this.fit()).observe(stage);
  }

  setColours(classes) {
    this.rgb = classes.map((each) => each.colour);
    this.lookUp();
  }

  lookUp() {
    // Little-endian: alpha, blue, green, red.
    const pack = ([r, g, b], alpha) => ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;
    const alpha = this.outlines ? 0 : Math.round(this.opacity * 255);
    this.rgb.forEach((rgb, place) => (this.colours[place + 1] = pack(rgb, alpha)));
    this.edges = new Uint32Array(256).fill(pack([255, 255, 255], 255));
    this.rgb.forEach((rgb, place) => (this.edges[place + 1] = pack(rgb, 255)));
  }

  look({ opacity = this.opacity, outlines = this.outlines, hidden = this.hidden }) {
    Object.assign(this, { opacity, outlines, hidden });
    this.lookUp();
    this.draw();
  }

  show(labels) {
    this.labels = labels;
    this.marked = null;
    this.fit();
  }

  fit() {
    // Photo and mask take the largest place in the stage that has their shape.
    if (!this.labels) {
      this.canvas.width = this.canvas.height = 0;
      return;
    }
    const { width, height } = this.labels;
    const room = [this.stage.clientWidth, this.stage.clientHeight];
    const scale = Math.min(room[0] / width, room[1] / height);
    const size = [width * scale, height * scale];
    const sharp = Math.min(devicePixelRatio, MOST / Math.max(...size));
    for (const each of [this.photo, this.canvas]) {
      each.style.width = `${size[0]}px`;
      each.style.height = `${size[1]}px`;
      each.style.transform = `translate(${(room[0] - size[0]) / 2}px, ${(room[1] - size[1]) / 2}px)`;
    }
    this.canvas.width = Math.max(1, Math.round(size[0] * sharp));
    this.canvas.height = Math.max(1, Math.round(size[1] * sharp));
    this.scale = scale;
    this.draw();
  }

  draw(part = null) {
    // `part`: [left, top, right, bottom] in the photo's pixels; all of it if null.
    if (!this.labels || !this.canvas.width) return;
    const [across, down] = [this.canvas.width, this.canvas.height];
    const [fx, fy] = [across / this.labels.width, down / this.labels.height];
    const left = part ? Math.max(0, Math.floor(part[0] * fx) - EDGE) : 0;
    const top = part ? Math.max(0, Math.floor(part[1] * fy) - EDGE) : 0;
    const right = part ? Math.min(across, Math.ceil(part[2] * fx) + EDGE) : across;
    const bottom = part ? Math.min(down, Math.ceil(part[3] * fy) + EDGE) : down;
    if (right <= left || bottom <= top) return;
    if (this.hidden) this.pen.clearRect(left, top, right - left, bottom - top);
    else this.pen.putImageData(this.painted(left, top, right, bottom), left, top);
  }

  painted(left, top, right, bottom) {
    const [width, height] = [right - left, bottom - top];
    const picture = new ImageData(width, height);
    const pixels = new Uint32Array(picture.data.buffer);
    // Labels at the screen's pixels, with the edge's width around them.
    const [wide, high] = [width + 2 * EDGE, height + 2 * EDGE];
    const seen = this.sampled(left - EDGE, top - EDGE, wide, high);
    const marks = this.marked && this.sampledMarks(left - EDGE, top - EDGE, wide, high);
    for (let y = 0, to = 0; y < height; y++) {
      let at = (y + EDGE) * wide + EDGE;
      for (let x = 0; x < width; x++, at++, to++) {
        const label = seen[at];
        if (label && isEdge(seen, at, wide)) pixels[to] = this.edges[label];
        else if (label === UNSURE) {
          if ((left + x + top + y) % STRIPES < 2) pixels[to] = this.edges[UNSURE];
        } else pixels[to] = this.colours[label];
        if (marks && marks[at] && isEdge(marks, at, wide)) pixels[to] = MARK[((x + y) >> 2) & 1];
      }
    }
    return picture;
  }

  sampled(left, top, width, height) {
    const { labels, canvas } = this;
    const made = new Uint8Array(width * height);
    const column = this.places(left, width, canvas.width, labels.width);
    const row = this.places(top, height, canvas.height, labels.height);
    for (let y = 0, to = 0; y < height; y++) {
      const from = row[y] * labels.width;
      for (let x = 0; x < width; x++) made[to++] = labels.data[from + column[x]];
    }
    return made;
  }

  sampledMarks(left, top, width, height) {
    const { map, id } = this.marked;
    const made = new Uint8Array(width * height);
    const column = this.places(left, width, this.canvas.width, map.width);
    const row = this.places(top, height, this.canvas.height, map.height);
    for (let y = 0, to = 0; y < height; y++) {
      const from = row[y] * map.width;
      for (let x = 0; x < width; x++) made[to++] = map.data[from + column[x]] === id;
    }
    return made;
  }

  places(first, count, drawn, size) {
    // Which of `size` pixels each of `count` drawn ones from `first` on shows.
    return Int32Array.from({ length: count }, (_, i) => {
      const place = Math.floor(((first + i + 0.5) * size) / drawn);
      return Math.min(size - 1, Math.max(0, place));
    });
  }

  toPhoto(event) {
    // Where in the photo somebody points; it may be outside.
    const box = this.canvas.getBoundingClientRect();
    return {
      x: ((event.clientX - box.left) / box.width) * this.labels.width,
      y: ((event.clientY - box.top) / box.height) * this.labels.height,
    };
  }

  onStage({ x, y }) {
    const box = this.canvas.getBoundingClientRect();
    const home = this.stage.getBoundingClientRect();
    return {
      x: box.left - home.left + (x / this.labels.width) * box.width,
      y: box.top - home.top + (y / this.labels.height) * box.height,
    };
  }
}

function isEdge(values, at, wide) {
  // Whether a value changes within the edge's width.
  const value = values[at];
  return (
    value !== values[at - EDGE] ||
    value !== values[at + EDGE] ||
    value !== values[at - EDGE * wide] ||
    value !== values[at + EDGE * wide]
  );
}
