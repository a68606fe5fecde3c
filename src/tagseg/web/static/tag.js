// The page for tagging. It shows what the server says is on disk, and nothing else.

import { $, element, offerNames, setOptions, showProgress, shown } from "./dom.js";
import { Grid } from "./grid.js";
import { Items } from "./items.js";
import { Acts, Pictures, ask, keepLooking, numbers, waitingLine } from "./server.js";

const KEYS = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "0"];

const news = { n: -1, classes: [], counts: {}, undo: null, anHour: null, scored: 0, problem: "" };
const items = new Items({ list: () => list, refresh }); // photo -> what is known of it
const broken = new Set(); // photos without a picture
const chosen = new Set();
let list = new Uint32Array(0); // the photos of the list, in its order
let at = 0; // place in the list
let anchor = 0; // where choosing with Shift began
let alone = false; // one photo, or the grid

const pictures = new Pictures();
const grid = new Grid($("scroller"), $("grid"), { draw, dropped });
const acts = new Acts({
  since: () => news.n,
  done: (answer, act) => {
    take(answer);
    if (answer.did) say(act.act === "undo" ? "undone" : `saved: ${answer.did}`);
  },
  failed: (line) => say(`not done: ${line}`),
  waiting: showWaiting,
});

const say = (line) => ($("said").textContent = line);
const current = () => list[at];
const classOf = (id) => news.classes.find((each) => each.id === id);

// --- what the server says ---------------------------------------------------------------------

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

function showWaiting(count, why) {
  $("banner").hidden = why === "" && !news.problem;
  $("banner").textContent = waitingLine(count, why) ?? news.problem;
}

function heard(answer) {
  const changed = answer.n !== news.n || answer.scored !== news.scored;
  if (changed) take(answer);
  else Object.assign(news, answer);
  showCounts();
}

// --- the list ----------------------------------------------------------------------------------

async function makeList(keep = true) {
  const before = keep ? current() : undefined;
  const asked = new URLSearchParams({
    show: $("show").value,
    search: $("search").value,
    order: $("order-label").hidden ? "name" : $("order").value,
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
  chosen.clear();
  at = anchor = Math.max(0, before === undefined ? 0 : list.indexOf(before));
  $("empty").hidden = list.length > 0;
  $("empty").textContent = $("search").value ? "No photo is called so." : "No photos here.";
  grid.show(list.length);
  move(at, false);
  showCounts();
}

function refresh(changed) {
  // Draw again what has changed (null: all) of what is in sight.
  for (const [place, card] of grid.cards) {
    if (changed === null || changed.has(list[place])) fill(card, place);
  }
  if (alone && list.length && (changed === null || changed.has(current()))) showAlone();
  showChosen();
}

// --- cards -------------------------------------------------------------------------------------

function draw(place) {
  const id = list[place];
  const card = element("div", "cell");
  card.id = `photo-${id}`;
  card.setAttribute("role", "option");
  card.setAttribute("aria-posinset", place + 1);
  card.setAttribute("aria-setsize", list.length);
  card.dataset.place = place;
  card.append(element("img"), element("div", "label"), element("div", "tags"));
  const img = card.firstChild;
  img.alt = "";
  if (broken.has(id)) markBroken(card);
  else pictures.load(img, `picture/small/${id}`, () => (broken.add(id), markBroken(card)));
  fill(card, place);
  return card;
}

function dropped(card) {
  const img = card.querySelector("img");
  if (img) pictures.drop(img);
}

function markBroken(card) {
  card.querySelector("img")?.replaceWith(element("div", "gone", "cannot be shown"));
}

function fill(card, place) {
  const id = list[place];
  const item = items.get(id);
  card.classList.toggle("chosen", chosen.has(id));
  card.classList.toggle("current", place === at);
  card.setAttribute("aria-selected", chosen.has(id));
  if (!item) {
    items.know(place);
    return;
  }
  const label = card.querySelector(".label");
  label.textContent = label.title = item.name;
  card.querySelector(".tags").replaceChildren(...chips(item));
  if (!card.querySelector(".tags").childElementCount) {
    card.querySelector(".tags").append(element("span", "heard", "nobody looked"));
  }
}

function chips(item) {
  const made = item.tags.map((id) => element("span", "tag", classOf(id)?.name ?? "?"));
  if (item.state === "unsure") made.unshift(element("span", "tag unsure", "not sure"));
  if (item.state === "decided" && !item.tags.length) made.push(element("span", "tag none", "none"));
  if (item.state === "unseen" && item.suggested) {
    for (const [id, score] of item.suggested) {
      made.push(element("span", "tag maybe", `${classOf(id)?.name ?? "?"}? ${score.toFixed(2)}`));
    }
    if (!item.suggested.length) made.push(element("span", "tag maybe", "none?"));
  }
  return made;
}

function showAlone() {
  const id = current();
  const item = items.get(id);
  const large = $("large");
  if (large.dataset.photo !== String(id)) {
    large.dataset.photo = id;
    large.hidden = false;
    $("large-problem").hidden = true;
    pictures.drop(large);
    pictures.load(large, `picture/large/${id}`, () => whyNot(id));
  }
  $("large-place").textContent = `${shown(at + 1)} of ${shown(list.length)}`;
  if (!item) {
    items.know(at);
    return;
  }
  large.alt = item.name;
  $("large-name").textContent = item.name;
  $("large-tags").replaceChildren(...chips(item));
}

async function whyNot(id) {
  let line = "cannot be shown";
  try {
    await ask(`picture/large/${id}`);
  } catch (problem) {
    line = `cannot be shown: ${problem.message}`;
  }
  if ($("large").dataset.photo !== String(id)) return;
  $("large").hidden = true;
  $("large-problem").hidden = false;
  $("large-problem").textContent = line;
}

// --- what stands around them -------------------------------------------------------------------

function showClasses() {
  const rows = news.classes.map((each, place) => {
    const row = element("li");
    const button = element("button", "class");
    button.type = "button";
    button.dataset.class = each.id;
    if (place < KEYS.length) button.append(element("kbd", "", KEYS[place]));
    button.append(element("span", "name", each.name), element("span", "count", shown(each.photos)));
    button.title = each.name;
    row.append(button);
    if (!each.photos) {
      const remove = element("button", "remove", "×");
      remove.type = "button";
      remove.dataset.remove = each.id;
      remove.setAttribute("aria-label", `Remove the class ${each.name}`);
      row.append(remove);
    }
    return row;
  });
  $("classes").replaceChildren(...rows);
  offerNames(news.classes);
}

function showCounts() {
  showProgress(news);
  showFilters();
  showStale();
}

function showFilters() {
  const { counts, classes } = news;
  const rows = [
    ["todo", `To do (${shown(counts.todo)})`],
    ["all", `All (${shown(counts.all)})`],
    ["tagged", `Tagged (${shown(counts.tagged)})`],
    ["none", `None of these (${shown(counts.none)})`],
    ["unsure", `Not sure (${shown(counts.unsure)})`],
    ...classes.map((each) => [`class-${each.id}`, `${each.name} (${shown(each.photos)})`]),
    ...classes
      .filter((each) => each.before)
      .map((each) => [`before-${each.id}`, `Not asked for ${each.name} (${shown(each.before)})`]),
  ];
  setOptions($("show"), rows);
}

function showStale() {
  // Photos stay in the list when they no longer belong there; a word says so.
  const key = { todo: "todo", tagged: "tagged", none: "none", unsure: "unsure" }[$("show").value];
  const there = key === undefined || $("search").value ? list.length : news.counts[key];
  $("again").hidden = there === list.length;
  $("again-text").textContent = `List of ${shown(list.length)}, now ${shown(there)}: make it again`;
}

function showChosen() {
  const parts = [`${shown(list.length)} shown`];
  if (chosen.size) parts.unshift(`${shown(chosen.size)} chosen`);
  $("chosen").textContent = parts.join(", ");
  const item = items.get(current());
  const maybe = item?.state === "unseen" && item.suggested;
  $("accept").lastChild.textContent = maybe ? " As suggested, next" : " Right, next";
}

// --- moving and choosing -----------------------------------------------------------------------

function move(place, extend) {
  if (!list.length) {
    showChosen();
    return;
  }
  at = Math.min(list.length - 1, Math.max(0, place));
  if (extend) {
    chosen.clear();
    const [from, to] = [Math.min(anchor, at), Math.max(anchor, at)];
    for (let i = from; i <= to; i++) chosen.add(list[i]);
  } else {
    anchor = at;
  }
  if (alone) showAlone();
  else grid.reveal(at);
  $("grid").setAttribute("aria-activedescendant", `photo-${current()}`);
  mark();
}

function mark() {
  for (const [place, card] of grid.cards) {
    const id = list[place];
    card.classList.toggle("chosen", chosen.has(id));
    card.classList.toggle("current", place === at);
    card.setAttribute("aria-selected", chosen.has(id));
  }
  showChosen();
}

function step(by, extend) {
  if (chosen.size && !extend) chosen.clear();
  move(at + by, extend);
}

function toggle(place) {
  if (!list.length) return;
  const id = list[place];
  if (!chosen.delete(id)) chosen.add(id);
  at = anchor = place;
  mark();
}

function setAlone(on) {
  alone = on;
  $("single").hidden = !on;
  $("scroller").hidden = on;
  $("view").setAttribute("aria-pressed", on);
  if (on) {
    chosen.clear();
    showAlone();
  } else {
    $("large").dataset.photo = "";
    grid.measure();
  }
  move(at, false);
  focusPhotos();
}

const focusPhotos = () => (alone ? $("single") : $("grid")).focus({ preventScroll: true });

// --- acts --------------------------------------------------------------------------------------

function targets() {
  if (chosen.size) return [...chosen];
  return list.length ? [current()] : [];
}

function onPhotos(act, forward = false) {
  const photos = targets();
  if (!photos.length) return;
  acts.push(() => ({ ...act, photos }));
  if (forward) goOn();
}

function goOn() {
  chosen.clear();
  move(at + 1, false);
}

const afterTag = () => $("advance").checked;

function tagWith(id) {
  onPhotos({ act: "tag", class: id }, afterTag());
}

function tagWithKey(place) {
  // Which class it is is seen when it is the act's turn: a class may be on its way.
  const photos = targets();
  if (!photos.length) return;
  acts.push(() => {
    const found = news.classes[place];
    if (!found) say(`no class is on key ${KEYS[place]}`);
    return found ? { act: "tag", class: found.id, photos } : null;
  });
  if (afterTag()) goOn();
}

function byName(name, onlyClass) {
  const wanted = name.trim().normalize("NFC");
  if (!wanted) return;
  const photos = targets();
  const known = () =>
    news.classes.find((each) => each.name.toLowerCase() === wanted.toLowerCase());
  acts.push(() => (known() && !onlyClass ? null : { act: "class", name: wanted }));
  if (onlyClass || !photos.length) return;
  acts.push(() => (known() ? { act: "tag", class: known().id, photos } : null));
  if (afterTag()) goOn();
}

function accept() {
  const asked = $("show").value.startsWith("before-");
  const photos = targets().filter((id) => {
    const item = items.get(id);
    return item && (item.state === "unseen" ? item.suggested : asked || item.state === "unsure");
  });
  if (photos.length) acts.push(() => ({ act: "accept", photos }));
  goOn();
}

function undo() {
  acts.push(() => {
    if (news.undo) return { act: "undo", of: news.undo.n };
    say("there is nothing to undo");
    return null;
  });
}

const ACTS = {
  none: () => onPhotos({ act: "none" }, afterTag()),
  unsure: () => onPhotos({ act: "unsure" }, afterTag()),
  clear: () => onPhotos({ act: "clear" }),
  accept,
  undo,
};

// --- keys --------------------------------------------------------------------------------------

function moves(event) {
  const row = alone ? 1 : grid.columns;
  return {
    ArrowLeft: -1,
    ArrowRight: 1,
    ArrowUp: -row,
    ArrowDown: row,
    PageUp: alone ? -10 : -grid.page(),
    PageDown: alone ? 10 : grid.page(),
    Home: -list.length,
    End: list.length,
  }[event.key];
}

const LETTERS = {
  n: ACTS.none,
  u: ACTS.unsure,
  z: undo,
  t: () => $("class-name").focus(),
  f: () => $("show").focus(),
  "/": () => $("search").focus(),
  v: () => setAlone(!alone),
  r: () => makeList(),
  a: () => {
    $("advance").checked = !$("advance").checked;
    say($("advance").checked ? "goes on after each tag" : "stays after each tag");
  },
  "?": () => $("help").showModal(),
  Delete: ACTS.clear,
  Backspace: ACTS.clear,
  Enter: accept,
  " ": () => toggle(at),
};

function onKey(event) {
  const target = event.target;
  if ($("help").open || event.altKey) return;
  if (event.key === "Escape") {
    if (target.matches("input, select")) focusPhotos();
    else if (chosen.size) (chosen.clear(), mark());
    return;
  }
  if (target.matches("input:not([type=checkbox]), select")) return;
  if (target.matches("button, [type=checkbox]") && [" ", "Enter"].includes(event.key)) return;
  if (event.ctrlKey || event.metaKey) {
    const key = event.key.toLowerCase();
    if (key === "z") undo();
    else if (key === "a" && !alone) chooseAll();
    else return;
    event.preventDefault();
    return;
  }
  const by = moves(event);
  const number = KEYS.indexOf(event.key);
  const letter = LETTERS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (by !== undefined) step(by, event.shiftKey && !alone);
  else if (number >= 0) tagWithKey(number);
  else if (letter) letter();
  else return;
  event.preventDefault();
}

function chooseAll() {
  for (const id of list) chosen.add(id);
  mark();
}

function onPress(event) {
  const card = event.target.closest(".cell");
  if (!card) return;
  const place = Number(card.dataset.place);
  if (event.shiftKey) move(place, true);
  else if (event.ctrlKey || event.metaKey) toggle(place);
  else {
    chosen.clear();
    move(place, false);
  }
}

// --- the start ---------------------------------------------------------------------------------

function wire() {
  document.addEventListener("keydown", onKey);
  $("grid").addEventListener("click", onPress);
  $("grid").addEventListener("dblclick", () => setAlone(true));
  $("classes").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.dataset.class) tagWith(Number(button.dataset.class));
    if (button?.dataset.remove) {
      const id = Number(button.dataset.remove);
      acts.push(() => ({ act: "unclass", class: id }));
      focusPhotos();
    }
  });
  document.querySelector(".others").addEventListener("click", (event) => {
    const act = event.target.closest("button")?.dataset.act;
    if (act) ACTS[act]();
  });
  $("class-form").addEventListener("submit", (event) => event.preventDefault());
  $("class-name").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    event.preventDefault();
    byName($("class-name").value, event.shiftKey);
    $("class-name").value = "";
    if (!event.shiftKey) focusPhotos();
  });
  let typing = 0;
  $("search").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => makeList(), 150);
  });
  $("search").addEventListener("keydown", (event) => {
    if (event.key === "Enter") focusPhotos();
  });
  $("show").addEventListener("change", () => makeList(false));
  $("order").addEventListener("change", () => makeList(false));
  $("again").addEventListener("click", () => (makeList(), focusPhotos()));
  $("view").addEventListener("click", () => setAlone(!alone));
  $("help-button").addEventListener("click", () => $("help").showModal());
  $("help").addEventListener("close", focusPhotos);
}

async function begin() {
  const start = await ask("api/start");
  document.title = `Tag ${start.folder}`;
  $("folder").textContent = start.folder;
  $("order-label").hidden = !start.suggestedBy;
  take(start);
  $("show").value = start.counts.todo ? "todo" : "all";
  wire();
  await makeList(false);
  focusPhotos();
  keepLooking(acts, heard);
}

begin().catch((problem) => {
  $("banner").hidden = false;
  $("banner").textContent = `This page cannot begin: ${problem.message}`;
});
