/** Helpers to build elements. Text is always set as text, never as markup. */

const SVG_NAMESPACE = "http://www.w3.org/2000/svg";

/** Create an element: `on` holds listeners, `data` data attributes, anything else is an attribute. */
export function element(name, { on = {}, data = {}, ...attributes } = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, value);
  }
  Object.assign(node.dataset, data);
  for (const [type, listener] of Object.entries(on)) node.addEventListener(type, listener);
  node.append(...children);
  return node;
}

/** Return an icon of the sprite in index.html. */
export function icon(name) {
  const svg = document.createElementNS(SVG_NAMESPACE, "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG_NAMESPACE, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/**
 * Create a box that opens below its button, `summary`. Escape and a click elsewhere close it, but not
 * a click on the transport bar: a song may have to play while the box is open.
 */
export function createPopover(className, summary, content) {
  const box = element("details", { class: `popover ${className}` }, summary, content);
  const onPointer = ({ target }) => {
    const isElsewhere = target.isConnected && !box.contains(target) && !target.closest(".transport");
    if (isElsewhere || !box.isConnected) box.open = false;
  };
  const onKey = (event) => {
    if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
    if (box.contains(document.activeElement)) summary.focus();
    box.open = false;
  };
  box.addEventListener("toggle", () => {
    const change = box.open ? "addEventListener" : "removeEventListener";
    document[change]("click", onPointer);
    document[change]("keydown", onKey);
    if (box.open) content.scrollIntoView({ block: "nearest" });
  });
  return box;
}

/** Set an element's text only if it differs, to avoid needless layout and screen reader updates. */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** Make `children` the children of `parent`. The one with the focus is not moved, or would lose it. */
export function reorderChildren(parent, children) {
  let current = parent.firstChild;
  const removeUntil = (end) => {
    while (current !== end) {
      const next = current.nextSibling;
      current.remove();
      current = next;
    }
  };
  for (const child of children) {
    if (parent.contains(child) && child.contains(document.activeElement)) removeUntil(child);
    if (child === current) current = current.nextSibling;
    else parent.insertBefore(child, current);
  }
  removeUntil(null);
}

/** Have screen readers read a text when they are idle. */
export function announce(text) {
  document.getElementById("announcement").textContent = text;
}

/** Show a message until it is closed. */
export function showToast(text) {
  document.getElementById("toast-text").textContent = text;
  document.getElementById("toast").hidden = false;
}
