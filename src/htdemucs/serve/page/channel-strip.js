/** A stem's channel strip: name, mute, solo, volume, pan, meter, and the link to the stem's file. */

import { element, icon } from "./dom.js";
import { bindLabel, bindText, formatNumber, formatPercent, stemName, text } from "./i18n/index.js";
import { stemSettings } from "./mixer.js";

const UNITY = 80; // the volume slider's position, from 0 to 100, at which the gain is 1
const METER_RANGE = 60; // dB
const METER_FALL = 0.02; // of the meter's height for each animation frame
const PAN_SNAP = 4; // percent from the centre, within which the slider snaps to it

const gainOf = (sliderValue) => (sliderValue / UNITY) ** 2;
const sliderValueOf = (gain) => Math.round(UNITY * Math.sqrt(gain));

const gainText = (gain) =>
  gain === 0 ? text("silent") : text("decibels", { value: formatNumber(20 * Math.log10(gain) + 0, 1) });

function panText(pan) {
  if (pan === 0) return text("centre");
  return text(pan < 0 ? "panLeft" : "panRight", { value: formatPercent(Math.abs(pan)) });
}

export class ChannelStrip {
  #stem;
  #level = 0; // of the meter, from 0 to 1

  /** `onChange(stem, changes)` is called with changed settings. */
  constructor(stem, onChange) {
    this.#stem = stem;
    const toggle = (name) => {
      const click = () => onChange(stem, { [name]: this[name].getAttribute("aria-pressed") !== "true" });
      return element("button", { type: "button", class: `toggle ${name}`, on: { click } });
    };
    const slider = (name, attributes, read, defaults) => {
      const input = element("input", { type: "range", class: name, ...attributes });
      input.addEventListener("input", () => onChange(stem, read(Number(input.value))));
      input.addEventListener("dblclick", () => onChange(stem, defaults));
      return input;
    };
    this.name = element("h2");
    this.mute = toggle("mute");
    this.solo = toggle("solo");
    this.volume = slider("volume", { min: 0, max: 100 }, (v) => ({ gain: gainOf(v) }), { gain: 1 });
    const readPan = (value) => ({ pan: Math.abs(value) < PAN_SNAP ? 0 : value / 100 });
    this.pan = slider("pan", { min: -100, max: 100, step: 2 }, readPan, { pan: 0 });
    this.file = element("a", { class: "ghost icon file", download: true, hidden: true }, icon("down"));
    this.meter = element("div", { class: "meter", "aria-hidden": "true" }, element("i"));
    const toggles = element("div", { class: "toggles" }, this.mute, this.solo);
    const sliders = element("div", { class: "sliders" }, this.volume, this.pan);
    const parts = [this.name, this.file, toggles, sliders, this.meter];
    this.box = element("div", { class: "channel-strip", role: "group" }, ...parts);
  }

  /** Show the stem's settings in a mix, and its file; `audible` is false if it cannot be heard. */
  render(mix, audible, file) {
    const { gain, pan, mute, solo } = stemSettings(mix, this.#stem);
    const stem = stemName(this.#stem);
    this.name.textContent = stem;
    this.box.setAttribute("aria-label", stem);
    this.box.classList.toggle("inaudible", !audible);
    for (const [button, key, on] of [[this.mute, "mute", mute], [this.solo, "solo", solo]]) {
      bindText(button, key);
      bindLabel(button, `${key}Stem`, { stem });
      button.setAttribute("aria-pressed", on);
    }
    this.volume.value = sliderValueOf(gain);
    this.volume.style.setProperty("--filled", `${sliderValueOf(gain)}%`);
    this.volume.setAttribute("aria-valuetext", gainText(gain));
    bindLabel(this.volume, "stemVolume", { stem });
    this.volume.title = gainText(gain);
    this.pan.value = Math.round(100 * pan);
    this.pan.setAttribute("aria-valuetext", panText(pan));
    bindLabel(this.pan, "stemPan", { stem });
    this.pan.title = panText(pan);
    bindLabel(this.file, "downloadStem", { stem });
    this.file.hidden = !file;
    if (file) this.file.href = file.url.replace(/^\//, "");
  }

  /** Show a peak on the meter, which rises immediately and falls slowly. */
  updateMeter(peak) {
    const level = Math.max(0, 1 + (20 * Math.log10(Math.max(peak, 1e-6))) / METER_RANGE);
    this.#level = Math.max(level, this.#level - METER_FALL);
    this.meter.firstChild.style.transform = `scaleY(${this.#level.toFixed(3)})`;
  }
}
