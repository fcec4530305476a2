/** Small helpers to build elements. Text is always text, never markup. */

const SVG = "http://www.w3.org/2000/svg";

/** Make an element: `on` holds listeners, `data` data attributes, anything else is an attribute. */
export function element(name, { on = {}, data = {}, ...attributes } = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  Object.assign(made.dataset, data);
  for (const [type, listener] of Object.entries(on)) made.addEventListener(type, listener);
  made.append(...children);
  return made;
}

/** Return an icon of the sprite in index.html. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Set text only where it differs, so that screen readers and the layout see no needless change. */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** Order the children of `parent` as in `wanted`, moving only those out of place (focus stays). */
export function arrange(parent, wanted) {
  let place = parent.firstChild;
  for (const child of wanted) {
    if (child === place) place = place.nextSibling;
    else parent.insertBefore(child, place);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

/** Tell screen readers something, politely. */
export function announce(text) {
  document.getElementById("live").textContent = text;
}

/** Show a sentence for a while, or until it is closed. */
export function toast(text) {
  const box = document.getElementById("toast");
  document.getElementById("toast-text").textContent = text;
  box.hidden = false;
}
