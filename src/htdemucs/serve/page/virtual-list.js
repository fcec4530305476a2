/**
 * A list of sections with headings and rows, of which only those near the visible part are in the
 * document. Rows have fixed heights, and are placed absolutely.
 */

import { element, reorderChildren } from "./dom.js";

const MARGIN = 600; // pixels above and below the visible part that are in the document, too
const CONTROLS = "a[href], button, input";

export class VirtualList {
  #root; // as high as all rows
  #scroller; // scrolls on wide screens; on narrow ones the window does
  #createRow;
  #sections = []; // {key, name, start, end}: end is the item after its last
  #items = []; // {key, height, section, isHeading, ...}
  #tops = new Float64Array(1); // of the items, and of what would follow them
  #rows = new Map(); // key -> row of the items that are in the document
  #boxes = new Map(); // key -> {box, list} of the sections that are in the document
  #current = null; // key of the row that the Tab key reaches

  /**
   * `createRow(item)` returns {box, show(item)}. Sections are {key, name, heading, items}; the
   * heading and the items are {key, height, ...} with heights in CSS pixels.
   */
  constructor(scroller, createRow) {
    this.#scroller = scroller;
    this.#createRow = createRow;
    this.#root = element("div", { class: "virtual-list" });
    scroller.append(this.#root);
    addEventListener("scroll", () => this.#update(false), { capture: true, passive: true });
    new ResizeObserver(() => this.#update(false)).observe(scroller);
    addEventListener("resize", () => this.#update(false));
    this.#root.addEventListener("focusin", ({ target }) => this.#setCurrent(this.#keyOf(target)));
    this.#root.addEventListener("keydown", (event) => this.#onKey(event));
  }

  /** Show these sections. */
  show(sections) {
    this.#sections = [];
    this.#items = [];
    sections.forEach(({ key, name, heading, items }, section) => {
      heading.isHeading = true;
      this.#items.push(heading);
      for (const item of items) this.#items.push(item); // thousands are too many arguments
      const end = this.#items.length;
      const start = end - items.length;
      for (let i = start - 1; i < end; i++) this.#items[i].section = section;
      this.#sections.push({ key, name, start, end });
    });
    this.#tops = new Float64Array(this.#items.length + 1);
    this.#items.forEach(({ height }, i) => (this.#tops[i + 1] = this.#tops[i] + height));
    this.#root.style.height = `${this.#tops.at(-1)}px`;
    this.#update(true);
  }

  /** Put the rows of the visible part into the document; update their contents if `changed`. */
  #update(changed) {
    const { top } = this.#root.getBoundingClientRect();
    const scroller = this.#scroller.getBoundingClientRect();
    const first = this.#itemAt(Math.max(scroller.top, 0) - top);
    const from = this.#itemAt(Math.max(scroller.top, 0) - top - MARGIN);
    const to = this.#itemAt(Math.min(scroller.bottom, innerHeight) - top + MARGIN) + 1;
    const focused = this.#keyOf(document.activeElement);
    const shown = new Set();
    for (let i = from; i < Math.min(to, this.#items.length); i++) shown.add(i);
    if (focused !== null) {
      const i = this.#items.findIndex(({ key }) => key === focused);
      if (i >= 0) shown.add(i);
    }
    const indices = [...shown].sort((a, b) => a - b);
    const current =
      indices.find((i) => this.#items[i].key === this.#current) ??
      indices.find((i) => i >= first && !this.#items[i].isHeading) ??
      indices[0];
    this.#place(indices, current, changed);
  }

  #place(indices, current, changed) {
    const rows = new Map();
    const children = new Map(); // section -> {heading, rows}
    for (const i of indices) {
      const item = this.#items[i];
      const row = this.#rows.get(item.key) ?? this.#createRow(item);
      if (changed || !this.#rows.has(item.key)) row.show(item);
      rows.set(item.key, row);
      const { start, end } = this.#sections[item.section];
      row.box.style.top = `${this.#tops[i]}px`;
      row.box.style.height = `${item.height}px`;
      if (!children.has(item.section)) children.set(item.section, { heading: [], rows: [] });
      if (item.isHeading) {
        children.get(item.section).heading.push(row.box);
      } else {
        row.box.setAttribute("aria-setsize", end - start);
        row.box.setAttribute("aria-posinset", i - start + 1);
        children.get(item.section).rows.push(row.box);
      }
      this.#setTabStop(row.box, i === current);
    }
    const boxes = new Map();
    for (const [section, { heading, rows: listed }] of children) {
      const { key, name } = this.#sections[section];
      const list = this.#boxes.get(key)?.list ?? element("ul", { class: "rows" });
      const box = this.#boxes.get(key)?.box ?? element("section", {});
      list.setAttribute("aria-label", name);
      reorderChildren(list, listed);
      reorderChildren(box, listed.length > 0 ? [...heading, list] : heading);
      boxes.set(key, { box, list });
    }
    reorderChildren(this.#root, [...boxes.values()].map(({ box }) => box));
    this.#rows = rows;
    this.#boxes = boxes;
  }

  /** Return the index of the item at a height, or of the one nearest to it. */
  #itemAt(y) {
    let [low, high] = [0, this.#items.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#tops[middle] <= y) low = middle;
      else high = middle - 1;
    }
    return Math.max(0, low);
  }

  #keyOf(target) {
    const box = target?.closest?.("[data-key]");
    return box && this.#root.contains(box) ? box.dataset.key : null;
  }

  /** Let the Tab key reach the controls of one row only: arrow keys go to the others. */
  #setTabStop(box, isStop) {
    for (const control of box.querySelectorAll(CONTROLS)) control.tabIndex = isStop ? 0 : -1;
  }

  #setCurrent(key) {
    if (key === null || key === this.#current) return;
    this.#current = key;
    for (const [each, { box }] of this.#rows) this.#setTabStop(box, each === key);
  }

  #onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const keys = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
    const step = keys[event.key];
    const index = this.#items.findIndex(({ key }) => key === this.#keyOf(event.target));
    if (step === undefined || index < 0) return;
    event.preventDefault();
    const last = this.#items.length - 1;
    let next = Math.max(0, Math.min(last, index + step));
    const direction = step === -Infinity || (step > 0 && step !== Infinity) ? 1 : -1;
    const canFocus = (i) => this.#items[i] && !(this.#items[i].isHeading && !this.#items[i].focusable);
    while (this.#items[next] && !canFocus(next)) next += direction;
    if (!this.#items[next]) next = [...this.#items.keys()].at(direction < 0 ? 0 : -1);
    while (this.#items[next] && !canFocus(next)) next -= direction; // back from the list's end
    if (this.#items[next]) this.focus(this.#items[next].key);
  }

  /** Focus the first control of a row, and so scroll to it. */
  focus(key) {
    const index = this.#items.findIndex((item) => item.key === key);
    if (index < 0) return;
    this.#current = key;
    if (!this.#rows.has(key)) {
      const shown = [...this.#items.keys()].filter((i) => i === index || this.#rows.has(this.#items[i].key));
      this.#place(shown, index, false);
    }
    const controls = [...this.#rows.get(key).box.querySelectorAll(CONTROLS)];
    controls.find((control) => !control.closest("[hidden]"))?.focus();
    this.#update(false);
  }
}
