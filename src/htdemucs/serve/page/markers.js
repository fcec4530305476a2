/** Named markers of a song: flags on the ruler, and a list in which they are renamed and deleted. */

import { announce, createPopover, element, icon } from "./dom.js";
import { bindLabel, bindText, formatTime, text } from "./i18n/index.js";

export class Markers {
  #items; // {frame, name}, in the order of the frames
  #flags = element("div", { class: "marker-flags" });
  #summary = element("summary", { class: "button secondary" });
  #list = element("ul");
  #sampleRate = 44_100;
  #timeline;
  #onSeek;
  #onLoop;
  #onChange;

  /**
   * `onSeek(frame)` is called for a chosen marker, `onLoop(from, to)` for the section that begins with
   * one (to is undefined for the last), and `onChange()` when the markers have changed.
   */
  constructor(items, ruler, timeline, { onSeek, onLoop, onChange }) {
    this.#items = items;
    this.#timeline = timeline;
    this.#onSeek = onSeek;
    this.#onLoop = onLoop;
    this.#onChange = onChange;
    ruler.prepend(this.#flags);
    this.box = createPopover("markers", this.#summary, this.#list);
    this.render();
  }

  get items() {
    return this.#items;
  }

  setSampleRate(sampleRate) {
    if (sampleRate === this.#sampleRate) return;
    this.#sampleRate = sampleRate;
    this.render();
  }

  add(frame) {
    const name = text("markerNumber", { number: this.#items.length + 1 });
    this.#items = [...this.#items, { frame, name }].sort((a, b) => a.frame - b.frame);
    announce(text("markerAdded", { time: formatTime(frame / this.#sampleRate) }));
    this.#changed();
  }

  #changed() {
    this.render();
    this.#onChange();
  }

  #delete(marker) {
    this.#items = this.#items.filter((each) => each !== marker);
    this.#changed();
    if (this.#items.length > 0) this.#summary.focus();
  }

  render() {
    this.box.hidden = this.#items.length === 0;
    bindText(this.#summary, "markers", { count: this.#items.length });
    this.#list.replaceChildren(...this.#items.map((marker) => this.#createRow(marker)));
    this.#renderFlags();
  }

  #renderFlags() {
    this.#flags.replaceChildren(...this.#items.map((marker) => this.#createFlag(marker)));
    this.update();
  }

  #createFlag({ frame, name }) {
    const flag = element("button", { type: "button", class: "marker" }, element("span", {}, name));
    flag.addEventListener("pointerdown", (event) => event.stopPropagation()); // it selects no loop
    flag.addEventListener("click", () => this.#onSeek(frame));
    return bindLabel(flag, "goToMarker", { name });
  }

  #createRow(marker) {
    const { frame } = marker;
    const time = formatTime(frame / this.#sampleRate, 1);
    const go = element("button", { type: "button", class: "ghost" }, time);
    go.addEventListener("click", () => this.#onSeek(frame));
    const input = element("input", { type: "text", value: marker.name, autocomplete: "off" });
    const loop = element("button", { type: "button", class: "ghost icon" }, icon("loop"));
    loop.addEventListener("click", () => this.#onLoop(frame, this.#items[this.#items.indexOf(marker) + 1]?.frame));
    const remove = element("button", { type: "button", class: "ghost icon" }, icon("trash"));
    remove.addEventListener("click", () => this.#delete(marker));
    const bindLabels = () => {
      bindLabel(go, "goToMarker", { name: `${marker.name}, ${time}` });
      bindLabel(loop, "loopMarker", { name: marker.name });
      bindLabel(remove, "deleteMarker", { name: marker.name });
    };
    input.addEventListener("change", () => {
      marker.name = input.value = input.value.trim() || marker.name;
      bindLabels(); // the row stays, and with it the focus
      this.#renderFlags();
      this.#onChange();
    });
    bindLabels();
    return element("li", {}, go, bindLabel(input, "markerName", { time }), loop, remove);
  }

  /** Move the flags to where their frames are; hide those outside the visible part. */
  update() {
    this.#items.forEach(({ frame }, i) => {
      const fraction = this.#timeline.fraction(frame);
      const flag = this.#flags.children[i];
      flag.hidden = fraction < 0 || fraction >= 1;
      flag.style.left = `${100 * fraction}%`;
    });
  }
}
