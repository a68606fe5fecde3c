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
