// The page for looking through masks. It shows what the server says is on disk, and nothing else.

import { Candidates, stacked } from "./candidates.js";
import { $, element, offerNames, setOptions, showProgress, shown } from "./dom.js";
import { Grid } from "./grid.js";
import { Items } from "./items.js";
import { MaskView } from "./mask_view.js";
import { Painting } from "./painting.js";
import { base64, encodeGrey } from "./png.js";
import { Acts, Pictures, ask, keepLooking, map, numbers, waitingLine } from "./server.js";

const OPACITIES = [0.25, 0.5, 0.75, 0.95];
const KEPT = 12; // masks that are ready
const [LOW, HIGH] = [172, 218]; // pixels of a card, beside the photo and alone
const MOST_SENT = 5 << 20; // bytes of a mask
const STATES = {
  todo: "not looked at",
  right: "right",
  pick: "picked",
  corrected: "corrected",
  wrong: "wrong",
  unsure: "not sure",
};

const news = { n: -1, classes: [], counts: {}, undo: null, anHour: null, scored: 0, problem: "" };
const items = new Items({ list: () => list, refresh });
const ready = new Map(); // address -> mask, or a promise of it
let start = null; // what the server said at first
let list = new Uint32Array(0); // the photos of the list, in its order
let at = 0; // place in the list
let looked = null; // candidate that is looked at; null for what counts
let opacity = 1; // of OPACITIES
let displayed = ""; // address of the mask that is on the stage

const pictures = new Pictures();
const grid = new Grid($("scroller"), $("grid"), { draw, dropped });
const view = new MaskView($("stage"), $("large"), $("mask"));
let painting = null;
let candidates = null;
const acts = new Acts({
  since: () => news.n,
  done: (answer, act) => {
    take(answer);
    if (act.act === "undo") goTo(answer);
    if (answer.did) say(act.act === "undo" ? "undone" : `saved: ${answer.did}`);
  },
  failed: (line) => say(`not done: ${line}`),
  waiting: (count, why) => {
    $("banner").hidden = why === "";
    $("banner").textContent = waitingLine(count, why) ?? "";
  },
});

const say = (line) => ($("said").textContent = line);
const current = () => list[at];
const colour = ([r, g, b]) => `rgb(${r} ${g} ${b})`;

// --- what the server says ----------------------------------------------------------------------

function take(answer) {
  const others = answer.scored !== news.scored;
  const old = news.classes;
  Object.assign(news, answer);
  if (answer.many || others) items.clear();
  for (const item of answer.photos) items.set(item.id, item);
  if (JSON.stringify(old) !== JSON.stringify(news.classes)) showClasses();
  showCounts();
  refresh(answer.many || others ? null : new Set(answer.photos.map((item) => item.id)));
}

function refresh(changed) {
  // Draw again what has changed (null: all) of what is in sight.
  for (const [place, card] of grid.cards) {
    if (changed === null || changed.has(list[place])) fill(card, place);
  }
  if (list.length && (changed === null || changed.has(current()))) showPhoto();
}

function showClasses() {
  view.setColours(news.classes);
  offerNames(news.classes);
}

function showCounts() {
  const { counts } = news;
  const done = showProgress(news);
  setOptions($("show"), [
    ["todo", `To do (${shown(counts.todo)})`],
    ["all", `All (${shown(counts.all)})`],
    ["done", `Looked at (${shown(done)})`],
    ["right", `Right (${shown(counts.right)})`],
    ["pick", `Picked (${shown(counts.pick)})`],
    ["corrected", `Corrected (${shown(counts.corrected)})`],
    ["wrong", `Wrong (${shown(counts.wrong)})`],
    ["unsure", `Not sure (${shown(counts.unsure)})`],
    ...(start?.byClass === false ? [] : [["tags", `Tags changed (${shown(counts.tags)})`]]),
    ...news.classes.map((each) => [`class-${each.id}`, `${each.name} (${shown(each.photos)})`]),
  ]);
  showStale();
}

function showStale() {
  // Photos stay in the list when they no longer belong there; a word says so.
  const key = $("show").value;
  const now = key === "done" ? news.counts.all - news.counts.todo : news.counts[key];
  const there = now === undefined || $("search").value ? list.length : now;
  $("again").hidden = there === list.length;
  $("again-text").textContent = `List of ${shown(list.length)}, now ${shown(there)}: make it again`;
  $("listed").textContent = `${shown(list.length)} shown`;
}

// --- the list ----------------------------------------------------------------------------------

async function makeList(keep = true) {
  if (painting.on) leave();
  const before = keep ? current() : undefined;
  const asked = new URLSearchParams({
    show: $("show").value,
    search: $("search").value,
    order: $("order").value,
  });
  const mine = items.begin();
  let found;
  try {
    found = await numbers(`api/view?${asked}`);
  } catch (problem) {
    say(`not done: ${problem.message}`);
    return;
  }
  if (mine !== items.turn) return;
  list = found;
  at = Math.max(0, before === undefined ? 0 : list.indexOf(before));
  $("empty").hidden = list.length > 0;
  $("empty").textContent = $("search").value ? "No photo is called so." : "No photos here.";
  grid.show(list.length);
  displayed = "";
  move(at);
  showCounts();
}

function draw(place) {
  const id = list[place];
  const card = element("div", "cell");
  card.id = `photo-${id}`;
  card.setAttribute("role", "option");
  card.setAttribute("aria-posinset", place + 1);
  card.setAttribute("aria-setsize", list.length);
  card.dataset.place = place;
  card.append(stacked(), element("div", "label"), element("div", "tags"));
  pictures.load(card.querySelector("img"), `picture/small/${id}`, () => {});
  fill(card, place);
  return card;
}

function dropped(card) {
  for (const img of card.querySelectorAll("img")) pictures.drop(img);
}

function layOver(img, id, which, version) {
  const kind = view.outlines ? "outline" : "fill";
  const address = `over/${kind}/${id}/${which}?v=${version}`;
  if (img.dataset.address === address) return;
  img.dataset.address = address;
  pictures.drop(img);
  pictures.load(img, address, () => img.removeAttribute("src"));
}

function fill(card, place) {
  const item = items.get(list[place]);
  card.classList.toggle("current", place === at);
  card.setAttribute("aria-selected", place === at);
  if (!item) {
    items.know(place);
    return;
  }
  layOver(card.querySelector(".over"), item.id, "now", item.v);
  const label = card.querySelector(".label");
  label.textContent = label.title = item.name;
  const state = element("span", `tag ${item.state}`, STATES[item.state]);
  const far = element("span", "far", item.trust === null ? "" : item.trust.toFixed(2));
  far.title = "trust";
  card.querySelector(".tags").replaceChildren(state, far);
}

// --- the photo ---------------------------------------------------------------------------------

function showPhoto() {
  const item = items.get(current());
  $("place").textContent = `${shown(at + 1)} of ${shown(list.length)}`;
  if (!item) {
    items.know(at);
    return;
  }
  $("name").textContent = item.name;
  $("state").className = `tag ${item.state}`;
  $("state").textContent = STATES[item.state];
  $("trust").textContent = item.trust === null ? "" : `trust ${item.trust.toFixed(2)}`;
  showTags(item);
  const kept = ["right", "pick", "corrected"].includes(item.state);
  $("right").lastElementChild.textContent =
    looked !== null && looked > 0 ? "Pick this one, next" : kept ? "As it is, next" : "Right, next";
  candidates.update(item);
  if (!painting.on) showMask(item);
}

const address = (item, which) => `labels/${item.id}/${which}?v=${item.v}`;

function mask(path) {
  // A mask; the last few are ready. As a promise.
  if (!ready.has(path)) {
    ready.set(path, map(path, Uint8Array));
    ready.get(path).catch(() => ready.delete(path));
    if (ready.size > KEPT) ready.delete(ready.keys().next().value);
  }
  return ready.get(path);
}

async function showMask(item) {
  const which = looked === null ? "now" : String(looked);
  const path = address(item, which);
  $("seen-as").textContent =
    looked === null ? "" : `candidate ${looked + 1}: ${candidates.titles[looked]}`;
  if (displayed === path) return;
  const another = !displayed.startsWith(`labels/${item.id}/`);
  displayed = path;
  $("problem").hidden = true;
  if (another) showAnother(item);
  try {
    const labels = await mask(path);
    if (displayed !== path || painting.on) return;
    view.show(labels);
    ahead();
  } catch (problem) {
    if (displayed !== path) return;
    view.show(null);
    tellProblem(`the mask cannot be shown: ${problem.message}`);
  }
}

function tellProblem(line) {
  $("problem").hidden = false;
  $("problem").textContent = line;
}

function showAnother(item) {
  const large = $("large");
  large.alt = `photo ${item.name}`;
  large.onerror = () => current() === item.id && tellProblem("the photo cannot be shown");
  large.src = `picture/large/${item.id}`;
  candidates.show(item, looked);
}

function ahead() {
  // The next photo is fetched while this one is looked at.
  const item = items.get(list[at + 1]);
  if (!item) return;
  mask(address(item, "now")).catch(() => {});
  new Image().src = `picture/large/${item.id}`;
}

function showTags(item) {
  const rows = [...new Set([...item.tags, ...item.removed])].sort((a, b) => a - b).map((id) => {
    const each = news.classes[id];
    const gone = item.removed.includes(id);
    const row = element("li", gone ? "gone" : "");
    const swatch = element("span", "swatch");
    swatch.style.background = colour(each.colour);
    const word = element("span", "word", each.name);
    const button = element("button", "", gone ? "back" : "take off");
    button.type = "button";
    button.dataset.class = id;
    button.setAttribute("aria-label", `${gone ? "Bring back" : "Take off"} ${each.name}`);
    row.append(swatch, word);
    if (item.added.includes(id)) row.append(element("span", "tag", "added"));
    row.append(button);
    return row;
  });
  if (!rows.length) rows.push(element("li", "", "none"));
  $("tags").replaceChildren(...rows);
}

// --- moving ------------------------------------------------------------------------------------

function move(place) {
  if (!list.length) {
    $("stage").hidden = true;
    return;
  }
  $("stage").hidden = false;
  if (painting.on) leave();
  const before = at;
  at = Math.min(list.length - 1, Math.max(0, place));
  if (at !== before) looked = null;
  grid.reveal(at);
  $("grid").setAttribute("aria-activedescendant", `photo-${current()}`);
  for (const [other, card] of grid.cards) {
    card.classList.toggle("current", other === at);
    card.setAttribute("aria-selected", other === at);
  }
  candidates.mark(looked);
  showPhoto();
}

function goTo(answer) {
  // The photo that was changed last comes to be seen, if it is in the list.
  const changed = answer.photos.find((item) => item.v === answer.n);
  const place = changed ? list.indexOf(changed.id) : -1;
  if (place >= 0 && place !== at) move(place);
}

const next = () => move(at + 1);
const many = () => document.body.classList.contains("many");
const focusPhoto = () => $(many() ? "grid" : "stage").focus({ preventScroll: true });

function setMany(on) {
  if (painting.on) leave();
  document.body.classList.toggle("many", on);
  $("view").setAttribute("aria-pressed", on);
  grid.height = on ? HIGH : LOW;
  grid.measure();
  move(at);
  focusPhoto();
}

function look(by) {
  // At the candidates, one after the other.
  const { count } = candidates;
  if (!candidates.some) return;
  looked = looked === null ? (by > 0 ? 0 : count - 1) : looked + by;
  if (looked < 0 || looked >= count) looked = null;
  candidates.mark(looked);
  showPhoto();
}

// --- acts --------------------------------------------------------------------------------------

function onPhoto(act, forward) {
  if (!list.length) return;
  const photo = current();
  acts.push(() => ({ ...act, photo }));
  if (forward) next();
}

function right() {
  const item = items.get(current());
  if (looked !== null && looked > 0) {
    pick(looked);
    return;
  }
  const kept = item && ["right", "pick", "corrected"].includes(item.state);
  if (kept && looked === null) next(); // it counts already
  else onPhoto({ act: "right" }, true);
}

function pick(candidate) {
  if (candidate >= candidates.count) say(`there is no candidate ${candidate + 1}`);
  else if (candidates.same[candidate] === null) say("this photo has no such candidate");
  else onPhoto({ act: "pick", candidate }, true);
}

function undo() {
  acts.push(() => {
    if (news.undo) return { act: "undo", of: news.undo.n };
    say("there is nothing to undo");
    return null;
  });
}

function toggleTag(id) {
  onPhoto({ act: "tag", class: id }, false);
}

function tagByName(name) {
  const wanted = name.trim().normalize("NFC").toLowerCase();
  if (!wanted) return;
  const found = news.classes.find((each) => each.name.toLowerCase() === wanted);
  if (found) toggleTag(found.id);
  else say(`not done: the run knows no class '${name.trim()}'`);
}

const ACTS = {
  right,
  wrong: () => onPhoto({ act: "wrong" }, true),
  unsure: () => onPhoto({ act: "unsure" }, true),
  clear: () => onPhoto({ act: "clear" }, false),
  skip: next,
  correct: startCorrecting,
  undo,
};

// --- correction --------------------------------------------------------------------------------

async function startCorrecting() {
  const item = items.get(current());
  if (!item || painting.on) return;
  if (many()) setMany(false);
  const which = looked === null ? "now" : String(looked);
  try {
    const labels = await mask(address(item, which));
    if (current() !== item.id || painting.on) return;
    const classes = item.tags.slice(0, 9).map((id, place) => {
      const each = news.classes[id];
      return [id + 1, each.name, String(place + 1), colour(each.colour)];
    });
    const rest = [[0, "background", "0", null], [255, "not sure", "N", null]];
    setHidden(false);
    painting.start(item.id, labels, [...classes, ...rest]);
    $("candidates").hidden = true;
    say("click regions in or out, or paint; Enter saves");
    focusPhoto();
  } catch (problem) {
    say(`not done: ${problem.message}`);
  }
}

function leave() {
  painting.stop();
  $("candidates").hidden = !candidates.some;
  displayed = "";
  focusPhoto();
}

function discard() {
  leave();
  showPhoto();
  say("left as it was");
}

async function save() {
  const photo = painting.photo;
  await painting.settled;
  if (painting.photo !== photo) return;
  if (!painting.correction.changed) {
    discard();
    return;
  }
  const bytes = await encodeGrey(painting.correction.labels);
  if (bytes.length > MOST_SENT) {
    say("not done: this mask is too large to be sent");
    return;
  }
  if (painting.photo !== photo) return;
  const png = base64(bytes);
  leave();
  looked = null;
  acts.push(() => ({ act: "corrected", photo, png }));
  if (at + 1 < list.length) next();
  else showPhoto();
}

// --- how it looks ------------------------------------------------------------------------------

function setOpacity(place) {
  opacity = place;
  document.body.style.setProperty("--opacity", OPACITIES[place]);
  $("opacity-text").textContent = `${Math.round(100 * OPACITIES[place])} %`;
  view.look({ opacity: OPACITIES[place] });
}

function setOutlines(on) {
  $("outline").setAttribute("aria-pressed", on);
  document.body.classList.toggle("outlines", on);
  view.look({ outlines: on });
  refresh(null);
  candidates.outline();
}

function setHidden(on) {
  $("hide").setAttribute("aria-pressed", on);
  view.look({ hidden: on });
}

const LOOKS = {
  opacity: () => setOpacity((opacity + 1) % OPACITIES.length),
  outline: () => setOutlines(!view.outlines),
  hide: () => setHidden(!view.hidden),
  view: () => setMany(!many()),
};

// --- keys --------------------------------------------------------------------------------------

function moves(event) {
  const row = many() ? grid.columns : 1;
  return {
    ArrowLeft: -1,
    ArrowRight: 1,
    ArrowUp: -row,
    ArrowDown: row,
    PageUp: many() ? -grid.page() : -10,
    PageDown: many() ? grid.page() : 10,
    Home: -list.length,
    End: list.length,
  }[event.key];
}

const LETTERS = {
  Enter: right,
  x: ACTS.wrong,
  u: ACTS.unsure,
  e: ACTS.correct,
  z: undo,
  Delete: ACTS.clear,
  Backspace: ACTS.clear,
  "[": () => look(-1),
  "]": () => look(1),
  t: () => start.byClass && $("tag-name").focus(),
  f: () => $("show").focus(),
  "/": () => $("search").focus(),
  r: () => makeList(),
  o: LOOKS.opacity,
  l: LOOKS.outline,
  h: LOOKS.hide,
  v: LOOKS.view,
  "?": () => $("help").showModal(),
};

const CORRECTING = {
  Enter: save,
  Escape: discard,
  o: LOOKS.opacity,
  l: LOOKS.outline,
  h: LOOKS.hide,
  "?": LETTERS["?"],
};

const keyOf = (event) => (event.key.length === 1 ? event.key.toLowerCase() : event.key);

function onKey(event) {
  const target = event.target;
  if ($("help").open || event.altKey) return;
  if (target.matches("input, select")) {
    if (event.key === "Escape") focusPhoto();
    return;
  }
  if (target.matches("button") && [" ", "Enter"].includes(event.key)) return;
  if (event.ctrlKey || event.metaKey) {
    if (event.key.toLowerCase() !== "z") return;
    if (painting.on) painting.undo();
    else undo();
    event.preventDefault();
    return;
  }
  if (painting.on ? !keyWhilePainting(event) : !keyWhileLooking(event)) return;
  event.preventDefault();
}

function keyWhilePainting(event) {
  const own = CORRECTING[keyOf(event)];
  if (own) own();
  return Boolean(own) || painting.key(event);
}

function keyWhileLooking(event) {
  const by = moves(event);
  const letter = LETTERS[keyOf(event)];
  if (by !== undefined) move(at + by);
  else if (/^[1-9]$/.test(event.key)) pick(Number(event.key) - 1);
  else if (letter) letter();
  else return false;
  return true;
}

// --- the start ---------------------------------------------------------------------------------

function wire() {
  document.addEventListener("keydown", onKey);
  $("grid").addEventListener("click", (event) => {
    const card = event.target.closest(".cell");
    if (card) move(Number(card.dataset.place));
  });
  $("grid").addEventListener("dblclick", () => setMany(false));
  document.querySelector(".others").addEventListener("click", (event) => {
    const act = event.target.closest("button")?.dataset.act;
    if (!act) return;
    ACTS[act]();
    focusPhoto();
  });
  $("candidates").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    pick(Number(button.dataset.candidate));
    focusPhoto();
  });
  $("tags").addEventListener("click", (event) => {
    const id = event.target.closest("button")?.dataset.class;
    if (id === undefined) return;
    toggleTag(Number(id));
    focusPhoto();
  });
  $("tag-form").addEventListener("submit", (event) => event.preventDefault());
  $("tag-name").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    event.preventDefault();
    tagByName($("tag-name").value);
    $("tag-name").value = "";
    focusPhoto();
  });
  for (const [id, act] of Object.entries(LOOKS)) $(id).addEventListener("click", act);
  $("save").addEventListener("click", () => save());
  $("discard").addEventListener("click", discard);
  let typing = 0;
  $("search").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => makeList(), 150);
  });
  $("search").addEventListener("keydown", (event) => {
    if (event.key === "Enter") focusPhoto();
  });
  for (const id of ["show", "order"]) $(id).addEventListener("change", () => makeList(false));
  $("again").addEventListener("click", () => (makeList(), focusPhoto()));
  $("help-button").addEventListener("click", () => $("help").showModal());
  $("help").addEventListener("close", focusPhoto);
}

function heard(answer) {
  const changed = answer.n !== news.n || answer.scored !== news.scored;
  if (changed) take(answer);
  else Object.assign(news, answer);
  showCounts();
}

async function begin() {
  start = await ask("api/start");
  document.title = `Review ${start.run}`;
  $("run").textContent = start.run;
  $("tagging").hidden = !start.byClass;
  $("order-note").textContent = `Trust: ${start.order}.`;
  const levels = ["fine", "medium", "coarse"].map((name, key) => ({ name, key: String(key) }));
  if (start.crisp) levels.push({ name: "crisp, of the run", key: "crisp" });
  painting = new Painting(view, levels, say);
  candidates = new Candidates(start.candidates, layOver);
  const { run, order, candidates: titles, crisp, notes, byClass, ...first } = start;
  take(first);
  setOpacity(opacity);
  grid.height = LOW;
  $("show").value = start.counts.todo ? "todo" : "all";
  wire();
  await makeList(false);
  focusPhoto();
  keepLooking(acts, heard);
}

begin().catch((problem) => {
  $("banner").hidden = false;
  $("banner").textContent = `This page cannot begin: ${problem.message}`;
});
