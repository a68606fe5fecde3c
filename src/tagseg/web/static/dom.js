// The few words in which pages talk of their elements; text is only ever text.

export const $ = (id) => document.getElementById(id);

export function element(name, className, text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

export const shown = (number) => number.toLocaleString("en");

export function setOptions(select, rows) {
  // Make [value, text] the options of a list, and keep what is chosen.
  const value = select.value;
  while (select.options.length > rows.length) select.remove(select.options.length - 1);
  rows.forEach(([key, text], place) => {
    const option = select.options[place] ?? select.appendChild(element("option"));
    if (option.value !== key) option.value = key;
    if (option.textContent !== text) option.textContent = text;
  });
  if (rows.some(([key]) => key === value)) select.value = value;
}

export function showProgress({ counts, anHour, undo }) {
  // How many photos were looked at and how fast, and what can be undone; the number looked at.
  const looked = counts.all - counts.todo;
  $("progress").max = counts.all;
  $("progress").value = looked;
  $("progress-text").textContent = `${shown(looked)} of ${shown(counts.all)} looked at`;
  $("pace").textContent = anHour === null ? "" : `${shown(anHour)} photos an hour`;
  $("undo").disabled = !undo;
  $("undo").title = undo ? `undo: ${undo.what}` : "";
  return looked;
}

export function offerNames(classes) {
  // The names that are completed while one is typed.
  const names = classes.map((each) => Object.assign(element("option"), { value: each.name }));
  $("class-names").replaceChildren(...names);
}
