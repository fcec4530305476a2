/** The handles at both ends of the loop on the ruler, moved by mouse, finger or arrow keys. */

import { element } from "./dom.js";
import { bindLabel, formatTime } from "./i18n/index.js";

const STEP = 1; // seconds that an arrow key moves a handle
const FINE_STEP = 0.1; // seconds, with Shift
const ENDS = { from: "loopStart", to: "loopEnd" };

export class LoopHandles {
  #ruler;
  #timeline;
  #onSelect;
  #handles;
  #loop = null; // as it is shown

  sampleRate = 44_100;

  /** `onSelect({from, to}, done)` is called while and after a handle is moved. */
  constructor(ruler, timeline, onSelect) {
    this.#ruler = ruler;
    this.#timeline = timeline;
    this.#onSelect = onSelect;
    this.#handles = Object.entries(ENDS).map(([end, name]) => {
      const slider = { role: "slider", tabindex: 0, "aria-valuemin": 0 };
      const handle = bindLabel(element("div", { class: `loop-handle ${end}`, ...slider }), name);
      this.#addDragging(handle, end);
      handle.addEventListener("keydown", (event) => this.#onKey(event, end));
      return handle;
    });
    ruler.append(...this.#handles);
  }

  /** Return the loop with one end moved to a frame; the ends keep their order. */
  #withEnd(end, frame) {
    const { from, to } = this.#loop;
    if (end === "from") return { from: Math.max(0, Math.min(frame, to)), to };
    return { from, to: Math.min(this.#timeline.length, Math.max(frame, from)) };
  }

  #addDragging(handle, end) {
    let offset = null; // frames between the pointer and the end, while it is dragged
    const frameOf = (event) => {
      const box = this.#ruler.getBoundingClientRect();
      return this.#timeline.frameAt((event.clientX - box.left) / box.width);
    };
    handle.addEventListener("pointerdown", (event) => {
      event.stopPropagation(); // or the ruler starts a new selection
      if (event.button !== 0) return;
      handle.setPointerCapture(event.pointerId);
      offset = frameOf(event) - this.#loop[end];
    });
    handle.addEventListener("pointermove", (event) => {
      if (offset === null) return;
      this.#loop = this.#withEnd(end, frameOf(event) - offset);
      this.#onSelect(this.#loop, false);
    });
    const release = () => {
      if (offset !== null) this.#onSelect(this.#loop, true);
      offset = null;
    };
    handle.addEventListener("pointerup", release);
    handle.addEventListener("pointercancel", release);
  }

  #onKey(event, end) {
    const sign = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    if (!sign) return;
    event.preventDefault();
    const step = sign * (event.shiftKey ? FINE_STEP : STEP) * this.sampleRate;
    this.#loop = this.#withEnd(end, this.#loop[end] + step); // the next key may come before `update`
    this.#onSelect(this.#loop, true);
  }

  /** Move the handles to the loop's ends; hide those whose end is not visible. */
  update(loop) {
    this.#loop = loop;
    for (const handle of this.#handles) {
      const end = handle.classList.contains("from") ? "from" : "to";
      const fraction = loop ? this.#timeline.fraction(loop[end]) : -1;
      handle.hidden = fraction < 0 || fraction > 1;
      if (handle.hidden) continue;
      handle.style.setProperty("--left", `${100 * fraction}%`);
      const time = formatTime(loop[end] / this.sampleRate);
      if (handle.getAttribute("aria-valuetext") === time) continue;
      handle.setAttribute("aria-valuetext", time);
      handle.setAttribute("aria-valuenow", Math.round(loop[end] / this.sampleRate));
      handle.setAttribute("aria-valuemax", Math.round(this.#timeline.length / this.sampleRate));
    }
  }
}
