// What the page asks the server for. All addresses are relative: they begin with the secret.

export class Told extends Error {
  // An answer of the server that says in one line what is wrong.
  constructor(line, status) {
    super(line);
    this.status = status;
  }
}

async function answer(path, options) {
  const response = await fetch(path, { cache: "no-store", ...options });
  if (response.ok) return response;
  let line = `the server answers ${response.status}`;
  try {
    line = (await response.json()).error ?? line;
  } catch {
    // no JSON: the number has to do
  }
  throw new Told(line, response.status);
}

export async function ask(path) {
  return (await answer(path)).json();
}

export async function numbers(path) {
  // Little-endian, as all browsers' machines are.
  return new Uint32Array(await (await answer(path)).arrayBuffer());
}

export async function map(path, kind) {
  // A map of `kind` (an array type): width, height, 4 bytes each, then its values.
  const content = await (await answer(path, { cache: "default" })).arrayBuffer();
  const [width, height] = new Uint32Array(content, 0, 2);
  return { width, height, data: new kind(content, 8) };
}

const TAB = crypto.randomUUID();
const PAUSE = 1000; // milliseconds before an act is sent again

export class Acts {
  // Sends acts one after the other. What is not answered yet is not done: the page shows nothing
  // of it, and asks again until the server says that it is on disk.
  constructor({ since, done, failed, waiting }) {
    this.since = since;
    this.done = done;
    this.failed = failed;
    this.waiting = waiting;
    this.queue = [];
    this.count = 0;
    this.busy = false;
  }

  push(make) {
    // `make` is called when it is the act's turn, so that it knows what came before.
    this.queue.push({ make, wish: `${TAB}-${++this.count}` });
    if (!this.busy) this.run();
  }

  async run() {
    this.busy = true;
    while (this.queue.length) {
      const { make, wish } = this.queue[0];
      const act = make();
      if (act === null) {
        this.queue.shift();
        continue;
      }
      try {
        const body = JSON.stringify({ ...act, wish, since: this.since() });
        const response = await answer("api/act", { method: "POST", body });
        const news = await response.json();
        this.queue.shift();
        this.waiting(0, "");
        this.done(news, act);
      } catch (problem) {
        if (problem instanceof Told && problem.status !== 403 && problem.status !== 503) {
          this.queue.shift();
          this.failed(problem.message);
        } else {
          const anew = problem instanceof Told && problem.status === 403;
          this.waiting(this.queue.length, anew ? "anew" : "away");
          await new Promise((go) => setTimeout(go, PAUSE));
        }
      }
    }
    this.busy = false;
  }
}

const POLL = 1500; // milliseconds between looks at what other pages did

export function keepLooking(acts, heard) {
  // Ask again and again what other pages did; not while acts are under way, which tell more.
  const look = async () => {
    if (!document.hidden && !acts.busy) {
      try {
        const answer = await ask(`api/news?since=${acts.since()}`);
        if (!acts.busy && answer.n >= acts.since()) heard(answer);
        acts.waiting(0, "");
      } catch (problem) {
        acts.waiting(acts.queue.length, problem.status === 403 ? "anew" : "away");
      }
    }
    setTimeout(look, POLL);
  };
  setTimeout(look, POLL);
}

export function waitingLine(count, why) {
  // What to say of acts that are not on disk; undefined for nothing.
  return {
    away: `The server does not answer. ${count} not saved yet; this page tries again.`,
    anew: `tagseg was started anew: open the address that it printed. ${count} not saved here.`,
  }[why];
}

export class Pictures {
  // Loads pictures, a few at once so that acts are never behind them; the last asked for is first,
  // and what has left the window is not loaded at all.
  constructor(most = 4) {
    this.most = most;
    this.loading = new Set();
    this.stack = [];
  }

  load(img, address, failed) {
    this.stack.push({ img, address, failed });
    this.next();
  }

  drop(img) {
    this.stack = this.stack.filter((each) => each.img !== img);
    if (this.loading.delete(img)) {
      img.onload = img.onerror = null;
      img.removeAttribute("src"); // ends the request
      this.next();
    }
  }

  next() {
    while (this.stack.length && this.loading.size < this.most) {
      const { img, address, failed } = this.stack.pop();
      const end = (whenDone) => () => {
        this.loading.delete(img);
        whenDone?.();
        this.next();
      };
      this.loading.add(img);
      img.onload = end(null);
      img.onerror = end(failed);
      img.src = address;
    }
  }
}
