/** The transport bar: play, position, loop, mix or original, tempo and pitch. */

import { element, icon, setText } from "./dom.js";
import { createVolumeFader } from "./fader.js";
import { bindLabel, bindText, formatNumber, formatPercent, formatTime } from "./i18n/index.js";
import { createKnob } from "./knob.js";
import { lengthOf } from "./tracks.js";

const MASTER_VOLUME = { unity: 70, max: 99 }; // at most a gain of 2, or 6 dB

/** Return a number with a sign and as many decimals as it needs, at most two. */
function formatPitch(semitones) {
  const digits = [0, 1].find((each) => Number(semitones.toFixed(each)) === semitones) ?? 2;
  return (semitones > 0 ? "+" : "") + formatNumber(semitones, digits);
}

export class Transport {
  #player;

  /** `onStretch(tempo, pitch)`, `onToggleLoop()` and `onVolume(gain)` are called for changes. */
  constructor(player, { onStretch, onToggleLoop, onVolume }) {
    this.#player = player;
    const button = (className, iconName, click) => {
      const children = iconName ? [icon(iconName)] : [];
      return element("button", { type: "button", class: className, on: { click } }, ...children);
    };
    const setOriginal = (original) => {
      if (player.original !== original) player.setMix(player.mix, { original });
    };
    this.start = button("ghost icon", "start", () => player.toStart());
    this.play = button("play", "play", () => player.toggle());
    this.position = element("span", { class: "position" });
    this.length = element("span", { class: "length" });
    this.loop = button("toggle loop", "loop", onToggleLoop);
    this.loop.append(bindText(element("span"), "loop"));
    this.mix = bindText(button("", null, () => setOriginal(false)), "mix");
    this.original = bindText(button("", null, () => setOriginal(true)), "original");
    const compare = (this.compare = element("div", { class: "segments", role: "group" }, this.mix, this.original));
    bindLabel(compare, "compare");
    const percent = (value) => formatPercent(value / 100);
    const tempo = { min: 50, max: 200, rest: 100, step: 1, shiftStep: 5, fieldStep: 1 };
    this.tempo = createKnob("tempo", tempo, percent, (value) => onStretch(value / 100, player.pitch));
    const pitch = { min: -12, max: 12, rest: 0, step: 1, shiftStep: 0.1, fieldStep: 0.1 };
    this.pitch = createKnob("pitch", pitch, formatPitch, (value) => onStretch(player.tempo, value));
    this.volume = createVolumeFader(MASTER_VOLUME, onVolume);
    const volumeName = bindText(element("span"), "volume");
    const volume = element("label", { class: "knob master" }, element("span", {}, volumeName), this.volume.box);
    const time = element("p", { class: "time" }, this.position, this.length);
    const main = element("div", { class: "transport-main" }, this.start, this.play, time);
    const click = () => {
      const expanded = this.box.classList.toggle("expanded");
      this.knobsToggle.setAttribute("aria-expanded", expanded);
    };
    this.knobsToggle = button("ghost icon knobs-toggle", "sliders", click); // on a phone
    bindLabel(this.knobsToggle, "moreControls");
    this.knobsToggle.setAttribute("aria-expanded", false);
    const more = [this.loop, compare, this.knobsToggle, this.tempo.box, this.pitch.box, volume];
    this.box = element("div", { class: "transport", role: "group" }, main, ...more);
    bindLabel(this.box, "transport");
    bindLabel(this.start, "toStart");
  }

  /** Show the player's state; without `canStretch`, tempo and pitch are hidden. */
  render({ canStretch }) {
    const { track, state, loop, original, tempo, pitch, volume } = this.#player;
    const action = state === "paused" ? "play" : "pause";
    this.play.querySelector("use").setAttribute("href", `#i-${action}`);
    this.play.dataset.state = state;
    bindLabel(this.play, action);
    this.loop.setAttribute("aria-pressed", Boolean(loop?.on));
    bindLabel(this.loop, "loopKey");
    this.compare.hidden = track.stems.length === 0;
    this.mix.setAttribute("aria-pressed", !original);
    this.original.setAttribute("aria-pressed", original);
    this.tempo.show(Math.round(10_000 * tempo) / 100);
    this.pitch.show(pitch);
    this.volume.show(volume);
    this.tempo.box.hidden = this.pitch.box.hidden = !canStretch;
  }

  updatePosition(position) {
    const { track } = this.#player;
    const sampleRate = track.sample_rate ?? 44_100;
    setText(this.position, formatTime(position / sampleRate));
    setText(this.length, lengthOf(track) ? formatTime(lengthOf(track) / sampleRate) : "–:––");
  }
}
