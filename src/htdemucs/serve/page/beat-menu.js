/** The menu of a song's beat: tap or type it, loop whole bars, and switch the count-in on. */

import { barAt, barStart, fitBeat, MAX_PAUSE } from "./beat.js";
import { createPopover, element } from "./dom.js";
import { bindLabel, bindText, button, formatNumber } from "./i18n/index.js";
import { createTimeField } from "./time-field.js";

const BPM = { min: 20, max: 400, step: "any" };
const BEATS = { min: 1, max: 16, step: 1 }; // of a bar
const BARS = { min: 1, max: 9999, step: 1 }; // of a loop
const DEFAULT = { bpm: 120, first: 0, perBar: 4, countIn: false, click: false };
const TOLERANCE = 0.02; // of a bar, within which the loop's ends are shown as bars

const isWithin = (value, { min, max }) => value >= min && value <= max;

/** Return a stored beat if its values are possible, otherwise null. */
function validBeat(stored) {
  const { bpm, first, perBar, countIn, click } = stored ?? {};
  const valid = isWithin(bpm, BPM) && Number.isFinite(first) && Number.isInteger(perBar) && isWithin(perBar, BEATS);
  return valid ? { bpm, first, perBar, countIn: Boolean(countIn), click: Boolean(click) } : null;
}

/** Create a labelled field of a number; `show(null)` empties it. What is being typed stays. */
function createNumberField(key, range, onChange) {
  const input = element("input", { type: "number", ...range });
  let shown = null;
  input.addEventListener("change", () => {
    if (isWithin(input.valueAsNumber, range) && input.validity.valid) onChange(input.valueAsNumber);
    else input.value = shown ?? "";
  });
  const show = (value) => {
    if (value === shown) return;
    shown = value;
    input.value = value ?? "";
  };
  const box = element("label", { class: "field" }, bindText(element("span"), key), input);
  return { box, input, show };
}

export class BeatMenu {
  beat; // {bpm, first, perBar, countIn, click}; null if it is not known

  #taps = []; // seconds: of the song or, while it is paused, of the clock
  #lastTap = -Infinity; // milliseconds of the clock
  #tappedWhilePlaying = false;
  #player; // {playing, seconds}
  #onChange;

  /**
   * `player` has `playing` and its position in `seconds`. `onChange()` is called for a new beat,
   * `onLoop(from, to)` with the seconds of a loop.
   */
  constructor(stored, player, { onChange, onLoop }) {
    this.beat = validBeat(stored);
    this.#player = player;
    this.#onChange = onChange;
    this.summary = element("summary", { class: "button secondary" });
    this.tapButton = button("primary", "tap", null, () => this.tap());
    this.bpm = createNumberField("bpm", BPM, (bpm) => this.#set({ bpm }));
    this.perBar = createNumberField("beatsPerBar", BEATS, (perBar) => this.#set({ perBar }));
    this.here = button("secondary icon", "firstBarHere", "from-here", () => this.#set({ first: player.seconds }));
    this.first = createTimeField("firstBar", (first) => {
      this.#set({ first });
      return true;
    });
    const loop = () => {
      const [from, to] = [this.from, this.to].map(({ input }) => input.valueAsNumber);
      if (to >= from) onLoop(Math.max(0, barStart(this.beat, from)), barStart(this.beat, to + 1));
    };
    this.from = createNumberField("loopFirstBar", BARS, loop);
    this.to = createNumberField("loopLastBar", BARS, loop);
    const checks = ["countIn", "click"].map((key) => {
      this[key] = element("input", { type: "checkbox" });
      this[key].addEventListener("change", () => this.#set({ [key]: this[key].checked }));
      return element("label", { class: "check" }, this[key], bindText(element("span"), key));
    });
    const row = (...children) => element("div", { class: "beat-row" }, ...children);
    const panel = element(
      "div",
      { class: "beat-panel" },
      row(this.tapButton, bindText(element("p"), "tapHint")),
      row(this.bpm.box, this.perBar.box),
      row(this.from.box, this.to.box),
      element("div", { class: "beat-start" }, bindText(element("span"), "firstBar"), this.first.input, this.here),
      ...checks,
    );
    this.box = createPopover("beat", this.summary, panel);
  }

  #set(changes) {
    this.beat = { ...(this.beat ?? DEFAULT), ...changes };
    this.#onChange();
  }

  /** Take a tap on a beat. Taps while the song plays also set where its bars start. */
  tap() {
    const { playing, seconds } = this.#player;
    const now = performance.now();
    const time = playing ? seconds : now / 1000;
    const paused = now - this.#lastTap > 1000 * MAX_PAUSE;
    if (paused || playing !== this.#tappedWhilePlaying || time <= this.#taps.at(-1)) this.#taps = [];
    this.#lastTap = now;
    this.#tappedWhilePlaying = playing;
    this.#taps.push(time);
    const beat = fitBeat(this.#taps, (this.beat ?? DEFAULT).perBar);
    if (beat && isWithin(beat.bpm, BPM)) this.#set(playing ? beat : { bpm: beat.bpm });
  }

  /** Show the beat, and as bars a loop {from, to} in seconds, or null. */
  render(loop) {
    const { beat } = this;
    if (beat) bindText(this.summary, "bpmIs", { bpm: formatNumber(beat.bpm, beat.bpm % 1 ? 1 : 0) });
    else bindText(this.summary, "bars");
    bindLabel(this.tapButton, "tapKey");
    const { bpm = null, perBar = DEFAULT.perBar, countIn = false, click = false } = beat ?? {};
    this.bpm.show(bpm);
    this.perBar.show(perBar);
    this.first.show(beat ? Math.max(0, beat.first) : null);
    const ends = beat && loop ? [barAt(beat, loop.from), barAt(beat, loop.to) - 1] : [];
    const whole = ends.length > 0 && ends.every((bar) => Math.abs(bar - Math.round(bar)) < TOLERANCE);
    [this.from, this.to].forEach((field, i) => {
      field.show(whole ? Math.round(ends[i]) : null);
      field.input.disabled = !beat;
    });
    this.countIn.checked = countIn;
    this.click.checked = click;
    const controls = [this.countIn, this.click, this.here, this.first.input];
    for (const control of controls) control.disabled = !beat;
  }
}
