/** The head of each lane: name, mute, solo, volume, balance, meter, and the stem's file. */

import { element, icon } from "./dom.js";
import { settingsOf } from "./mixer.js";
import { label, number, say, stemName, text } from "./text.js";

const UNITY = 80; // where the slider, from 0 to 100, leaves the level as it is
const FLOOR = 60; // decibels that a meter shows

const gainAt = (place) => (place / UNITY) ** 2;
const placeOf = (gain) => Math.round(UNITY * Math.sqrt(gain));

/** Return a gain in words. */
const decibels = (gain) =>
  gain === 0 ? text("silent") : text("decibels", { value: number(20 * Math.log10(gain) + 0, 1) });

function balance(pan) {
  if (pan === 0) return text("centre");
  return text(pan < 0 ? "toLeft" : "toRight", { value: Math.round(100 * Math.abs(pan)) });
}

export class Strip {
  #stem;
  #level = 0;

  /** `change(stem, changes)` is told what hands do. */
  constructor(stem, change) {
    this.#stem = stem;
    const toggle = (name) => {
      const press = () => change(stem, { [name]: this[name].getAttribute("aria-pressed") !== "true" });
      return element("button", { type: "button", class: `toggle ${name}`, on: { click: press } });
    };
    const slider = (name, attributes, read, reset) => {
      const input = element("input", { type: "range", class: name, ...attributes });
      input.addEventListener("input", () => change(stem, read(Number(input.value))));
      input.addEventListener("dblclick", () => change(stem, reset));
      return input;
    };
    this.name = element("h2");
    this.mute = toggle("mute");
    this.solo = toggle("solo");
    this.volume = slider("volume", { min: 0, max: 100 }, (v) => ({ gain: gainAt(v) }), { gain: 1 });
    const pan = (value) => ({ pan: Math.abs(value) < 4 ? 0 : value / 100 });
    this.balance = slider("balance", { min: -100, max: 100, step: 2 }, pan, { pan: 0 });
    this.file = element("a", { class: "quiet icon file", download: true, hidden: true }, icon("down"));
    this.meter = element("div", { class: "meter", "aria-hidden": "true" }, element("i"));
    const group = { class: "strip", role: "group" };
    const buttons = element("div", { class: "toggles" }, this.mute, this.solo);
    const sliders = element("div", { class: "sliders" }, this.volume, this.balance);
    this.box = element("div", group, this.name, this.file, buttons, sliders, this.meter);
  }

  /** Show settings, in the page's language. */
  show(mix, heard) {
    const { gain, pan, mute, solo } = settingsOf(mix, this.#stem);
    const stem = stemName(this.#stem);
    this.name.textContent = stem;
    this.box.setAttribute("aria-label", stem);
    this.box.classList.toggle("unheard", !heard);
    for (const [button, key, on] of [[this.mute, "mute", mute], [this.solo, "solo", solo]]) {
      say(button, key);
      label(button, `${key}Stem`, { stem });
      button.setAttribute("aria-pressed", on);
    }
    this.volume.value = placeOf(gain);
    this.volume.style.setProperty("--filled", `${placeOf(gain)}%`);
    this.volume.setAttribute("aria-valuetext", decibels(gain));
    label(this.volume, "volumeOf", { stem });
    this.volume.title = decibels(gain);
    this.balance.value = Math.round(100 * pan);
    this.balance.setAttribute("aria-valuetext", balance(pan));
    label(this.balance, "balanceOf", { stem });
    this.balance.title = balance(pan);
    label(this.file, "downloadStem", { stem });
  }

  /** Offer the stem's file. */
  offer(file) {
    this.file.hidden = !file;
    if (file) this.file.href = file.url.replace(/^\//, "");
  }

  /** Show a peak: up at once, down slowly. */
  measure(peak) {
    const shown = Math.max(0, 1 + (20 * Math.log10(Math.max(peak, 1e-6))) / FLOOR);
    this.#level = Math.max(shown, this.#level - 0.02);
    this.meter.firstChild.style.transform = `scaleY(${this.#level.toFixed(3)})`;
  }
}
