/** The two ends of the loop on the ruler: moved by mouse, finger or arrow keys. */

import { element } from "./dom.js";
import { clock, label } from "./text.js";

const STEP = 1; // seconds that an arrow key moves
const FINE = 0.1; // seconds, with Shift
const ENDS = { from: "loopStart", to: "loopEnd" };

export class Grips {
  #ruler;
  #timeline;
  #select;
  #region = null; // the loop as it is shown

  /** `select(region, done)` is told where the ends are, while and after they are moved. */
  constructor(ruler, timeline, select) {
    this.#ruler = ruler;
    this.#timeline = timeline;
    this.#select = select;
    this.rate = 44_100;
    this.grips = Object.entries(ENDS).map(([end, name]) => {
      const grip = element("div", { class: `grip ${end}`, role: "slider", tabindex: 0, "aria-valuemin": 0 });
      this.#drag(label(grip, name), end);
      grip.addEventListener("keydown", (event) => this.#key(event, end));
      return grip;
    });
    ruler.append(...this.grips);
  }

  /** Return the region with one end elsewhere; the ends stay in order. */
  #moved(end, frame) {
    const { from, to } = this.#region;
    if (end === "from") return { from: Math.max(0, Math.min(frame, to)), to };
    return { from, to: Math.min(this.#timeline.length, Math.max(frame, from)) };
  }

  #drag(grip, end) {
    let held = null; // frames between the pointer and the end
    const frameOf = (event) => {
      const box = this.#ruler.getBoundingClientRect();
      return this.#timeline.frameAt((event.clientX - box.left) / box.width);
    };
    grip.addEventListener("pointerdown", (event) => {
      event.stopPropagation(); // the ruler would draw a new region
      if (event.button !== 0) return;
      grip.setPointerCapture(event.pointerId);
      held = frameOf(event) - this.#region[end];
    });
    grip.addEventListener("pointermove", (event) => {
      if (held === null) return;
      this.#region = this.#moved(end, frameOf(event) - held);
      this.#select(this.#region, false);
    });
    const release = () => {
      if (held !== null) this.#select(this.#region, true);
      held = null;
    };
    grip.addEventListener("pointerup", release);
    grip.addEventListener("pointercancel", release);
  }

  #key(event, end) {
    const sign = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    if (!sign) return;
    event.preventDefault();
    const step = sign * (event.shiftKey ? FINE : STEP) * this.rate;
    this.#region = this.#moved(end, this.#region[end] + step); // for a key pressed before the next frame
    this.#select(this.#region, true);
  }

  /** Move the grips to the loop's ends, outside of it if they can; an end out of sight has none. */
  place(loop, fraction) {
    this.#region = loop;
    for (const grip of this.grips) {
      const end = grip.classList.contains("from") ? "from" : "to";
      const at = loop ? fraction(loop[end]) : -1;
      grip.hidden = at < 0 || at > 1;
      if (grip.hidden) continue;
      grip.style.setProperty("--at", `${100 * at}%`);
      const words = clock(loop[end] / this.rate);
      if (grip.getAttribute("aria-valuetext") === words) continue;
      grip.setAttribute("aria-valuetext", words);
      grip.setAttribute("aria-valuenow", Math.round(loop[end] / this.rate));
      grip.setAttribute("aria-valuemax", Math.round(this.#timeline.length / this.rate));
    }
  }
}
