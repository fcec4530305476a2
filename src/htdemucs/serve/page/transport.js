/** The bar that plays: play, position, loop, the original beside the mix, tempo and pitch. */

import { element, icon, setText } from "./dom.js";
import { lengthOf } from "./tracks.js";
import { clock, label, number, say } from "./text.js";

/** Return a labelled slider with its value in words; a double click resets it. */
function knob(key, attributes, words, apply) {
  const input = element("input", { type: "range", ...attributes });
  const output = element("b");
  const show = (value) => {
    input.value = value;
    setText(output, words(value));
    input.setAttribute("aria-valuetext", words(value));
  };
  input.addEventListener("input", () => {
    show(Number(input.value));
  });
  input.addEventListener("change", () => apply(Number(input.value)));
  const reset = () => {
    show(attributes.value);
    apply(attributes.value);
  };
  input.addEventListener("dblclick", reset);
  const name = say(element("span"), key);
  const box = element("label", { class: `knob ${key}` }, element("span", {}, name, output), input);
  return { box, show, input };
}

export class Transport {
  #player;

  constructor(player, { loopTo, stretch }) {
    this.#player = player;
    const button = (kind, name, click) =>
      element("button", { type: "button", class: kind, on: { click } }, ...(name ? [icon(name)] : []));
    this.start = button("quiet icon", "start", () => player.seek(player.loop?.on ? player.loop.from : 0));
    this.play = button("play", "play", () => player.toggle());
    this.now = element("span", { class: "now" });
    this.total = element("span", { class: "total" });
    this.loop = button("toggle loop", "loop", () => loopTo("toggle"));
    this.loop.append(say(element("span"), "loop"));
    this.mix = say(button("", null, () => this.#compare(false)), "mix");
    this.original = say(button("", null, () => this.#compare(true)), "original");
    const compare = element("div", { class: "segments", role: "group" }, this.mix, this.original);
    label(compare, "compare");
    const percent = (value) => `${number(value)} %`;
    const semitones = (value) => (value > 0 ? `+${number(value)}` : number(value));
    const tempo = { min: 50, max: 200, step: 5, value: 100 };
    this.tempo = knob("tempo", tempo, percent, (v) => stretch(v / 100, player.pitch));
    const pitch = { min: -12, max: 12, step: 1, value: 0 };
    this.pitch = knob("pitch", pitch, semitones, (v) => stretch(player.tempo, v));
    const time = element("p", { class: "time" }, this.now, this.total);
    const main = element("div", { class: "main" }, this.start, this.play, time);
    const more = [this.loop, compare, this.tempo.box, this.pitch.box];
    this.box = element("div", { class: "transport", role: "group" }, main, ...more);
    label(this.box, "transport");
    label(this.start, "toStart");
  }

  #compare(original) {
    if (this.#player.original !== original) this.#player.setMix(this.#player.mix, { original });
  }

  /** Show the player's state. */
  show({ stretches }) {
    const { state, loop, original, tempo, pitch } = this.#player;
    const action = state === "paused" ? "play" : "pause";
    this.play.querySelector("use").setAttribute("href", `#i-${action}`);
    this.play.dataset.state = state;
    label(this.play, action);
    this.loop.setAttribute("aria-pressed", Boolean(loop?.on));
    label(this.loop, "loopKey");
    this.mix.setAttribute("aria-pressed", !original);
    this.original.setAttribute("aria-pressed", original);
    this.tempo.show(Math.round(100 * tempo));
    this.pitch.show(pitch);
    this.tempo.box.hidden = this.pitch.box.hidden = !stretches;
  }

  /** Show where it plays. */
  place(position) {
    const { track } = this.#player;
    const rate = track.sample_rate ?? 44_100;
    setText(this.now, clock(position / rate));
    setText(this.total, lengthOf(track) ? clock(lengthOf(track) / rate) : "–:––");
  }
}
