/** A stem's channel strip: name, mute, solo, volume, pan, meter, and the link to the stem's file. */

import { fileUrl } from "./api.js";
import { element, icon } from "./dom.js";
import { createPanFader, createVolumeFader } from "./fader.js";
import { bindLabel, bindText, stemName } from "./i18n/index.js";
import { stemSettings } from "./mixer.js";

const UNITY = 80; // the volume slider's position, from 0 to 100, at which the gain is 1
const METER_RANGE = 60; // dB
const DRAGS_FILES = "chrome" in window; // out of the page; other browsers drag the address instead
const METER_FALL = 0.02; // of the meter's height for each animation frame

export class ChannelStrip {
  #stem;
  #file = null; // {name, url} of the stem
  #level = 0; // of the meter, from 0 to 1

  /**
   * `onChange(stem, changes)` is called with changed settings. On a phone, the sliders are hidden
   * until they are asked for, which calls `onExpand(stem)`.
   */
  constructor(stem, { onChange, onExpand }) {
    this.#stem = stem;
    const toggle = (name) => {
      const click = () => onChange(stem, { [name]: this[name].getAttribute("aria-pressed") !== "true" });
      return element("button", { type: "button", class: `toggle ${name}`, on: { click } });
    };
    this.name = element("h2");
    this.mute = toggle("mute");
    this.solo = toggle("solo");
    this.volume = createVolumeFader({ unity: UNITY, max: 100 }, (gain) => onChange(stem, { gain }));
    this.pan = createPanFader((pan) => onChange(stem, { pan }));
    const expand = { class: "ghost icon strip-more", type: "button", on: { click: () => onExpand(stem) } };
    this.more = element("button", expand, icon("sliders"));
    this.file = element("a", { class: "ghost icon file", download: true, hidden: true }, icon("down"));
    this.file.addEventListener("dragstart", ({ dataTransfer }) => {
      dataTransfer.setData("DownloadURL", `application/octet-stream:${this.#file.name}:${this.file.href}`);
      dataTransfer.effectAllowed = "copy";
    });
    this.meter = element("div", { class: "meter", "aria-hidden": "true" }, element("i"));
    const toggles = element("div", { class: "toggles" }, this.mute, this.solo);
    const sliders = element("div", { class: "sliders" }, this.volume.box, this.pan.box);
    const parts = [this.name, this.file, toggles, this.more, sliders, this.meter];
    this.box = element("div", { class: "channel-strip", role: "group" }, ...parts);
  }

  /**
   * Show the stem's settings in a mix, and its file.
   *
   * `audible` is false if the stem cannot be heard, `expanded` is whether a phone shows its sliders.
   */
  render(mix, { audible, expanded, file }) {
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
    this.volume.show(gain);
    bindLabel(this.volume.input, "stemVolume", { stem });
    this.pan.show(pan);
    bindLabel(this.pan.input, "stemPan", { stem });
    bindLabel(this.more, "stemSliders", { stem });
    this.more.setAttribute("aria-expanded", expanded);
    bindLabel(this.file, DRAGS_FILES ? "downloadOrDragStem" : "downloadStem", { stem });
    this.file.hidden = !file;
    this.#file = file;
    if (file) this.file.href = fileUrl(file);
  }

  /** Show a peak on the meter, which rises immediately and falls slowly. */
  updateMeter(peak) {
    const level = Math.max(0, 1 + (20 * Math.log10(Math.max(peak, 1e-6))) / METER_RANGE);
    this.#level = Math.max(level, this.#level - METER_FALL);
    this.meter.firstChild.style.transform = `scaleY(${this.#level.toFixed(3)})`;
  }
}
