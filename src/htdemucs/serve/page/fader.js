/** Sliders for volume and pan: they mark their default, snap to it, and show their value while moved. */

import { element } from "./dom.js";
import { formatNumber, formatPercent, text } from "./i18n/index.js";

const SNAP = 0.025; // of the slider's length; a drag that ends closer to the default is the default

function gainText(gain) {
  if (gain === 0) return text("silent");
  const value = formatNumber(20 * Math.log10(gain) + 0, 1);
  return text("decibels", { value: gain > 1.005 ? `+${value}` : value });
}

function panText(pan) {
  if (pan === 0) return text("centre");
  return text(pan < 0 ? "panLeft" : "panRight", { value: formatPercent(Math.abs(pan)) });
}

/** Create a slider; a double click sets it to `rest`. Call `show(position, valueText)` for changes. */
function createFader(className, { min, max, step, rest }, onChange) {
  const input = element("input", { type: "range", class: className, min, max, step });
  const value = element("span", { class: "fader-value", "aria-hidden": "true" });
  const box = element("span", { class: "fader" }, input, value);
  const fraction = (position) => (position - min) / (max - min);
  let dragged = false; // an arrow key must be able to leave the default
  input.addEventListener("pointerdown", () => (dragged = true));
  input.addEventListener("change", () => (dragged = false));
  input.addEventListener("input", () => {
    const position = Number(input.value);
    const near = Math.abs(fraction(position) - fraction(rest)) < SNAP;
    onChange(dragged && near ? rest : position);
  });
  input.addEventListener("dblclick", () => onChange(rest));
  box.style.setProperty("--rest", fraction(rest));
  const show = (position, valueText) => {
    input.value = position;
    box.style.setProperty("--filled", fraction(position));
    input.setAttribute("aria-valuetext", valueText);
    value.textContent = valueText;
  };
  return { box, input, show };
}

/** Create a slider of a gain, which is 1 at the position `unity` of `max`. */
export function createVolumeFader({ unity, max }, onChange) {
  const range = { min: 0, max, step: 1, rest: unity };
  const fader = createFader("volume", range, (position) => onChange((position / unity) ** 2));
  return { ...fader, show: (gain) => fader.show(Math.round(unity * Math.sqrt(gain)), gainText(gain)) };
}

/** Create a slider of a stem's balance, from -1 (left) to 1. */
export function createPanFader(onChange) {
  const range = { min: -100, max: 100, step: 2, rest: 0 };
  const fader = createFader("pan", range, (position) => onChange(position / 100));
  return { ...fader, show: (pan) => fader.show(Math.round(100 * pan), panText(pan)) };
}
