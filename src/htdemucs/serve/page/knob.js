/** A slider with a number field: for tempo and pitch. */

import { element } from "./dom.js";
import { bindLabel, bindText } from "./i18n/index.js";

const ARROWS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 };

/**
 * Create a knob called `key`; a double click on the slider sets `rest`.
 *
 * The slider and its arrow keys move in steps of `step`, with Shift of `shiftStep`. The field takes
 * any number with two decimals. `format(value)` is what screen readers say.
 */
export function createKnob(key, { min, max, rest, step, shiftStep, fieldStep }, format, onChange) {
  const id = `knob-${key}`;
  const slider = element("input", { type: "range", id, min, max, step: Math.min(step, shiftStep) });
  const field = element("input", { type: "number", min, max, step: fieldStep });
  let shown = null;
  const display = (value) => {
    slider.value = field.value = value;
    slider.setAttribute("aria-valuetext", format(value));
  };
  const show = (value) => {
    if (value === shown) return; // it may be edited
    shown = value;
    display(value);
  };
  const set = (value) => {
    const allowed = Math.round(100 * Math.max(min, Math.min(max, value))) / 100;
    display(allowed);
    onChange(allowed);
  };
  const rounded = () => step * Math.round(Number(slider.value) / step);
  slider.addEventListener("input", () => display(rounded()));
  slider.addEventListener("change", () => set(rounded()));
  slider.addEventListener("dblclick", () => set(rest));
  slider.addEventListener("keydown", (event) => {
    const sign = ARROWS[event.key];
    if (!sign) return;
    event.preventDefault();
    set(Number(slider.value) + sign * (event.shiftKey ? shiftStep : step));
  });
  field.addEventListener("change", () => set(field.value === "" ? rest : field.valueAsNumber));
  const name = bindText(element("label", { for: id }), key);
  const box = element("div", { class: `knob ${key}` }, element("div", {}, name, field), slider);
  bindLabel(field, `${key}Field`);
  return { box, show };
}
