/** Canvas lanes over one time line: waveforms or spectrograms, ruler, overview, loop, playhead. */

import { element } from "./dom.js";
import { Grips } from "./grips.js";
import { clock } from "./text.js";
import { handle } from "./timeline.js";

const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600]; // seconds between marks
const MARK = 76; // pixels that a mark's text needs
const HATCH = 7; // pixels between the lines where nothing is separated yet

/** Return the colours that canvases use, from the style sheet. */
function palette() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const accent = colour("wave");
  const rgb = accent.match(/\w\w/g).map((hex) => parseInt(hex, 16));
  return { wave: accent, rgb, quiet: colour("wave-quiet"), hatch: colour("hatch"), text: colour("soft") };
}

/** Return a canvas's pen in CSS pixels, the canvas cleared and fitted to its box. */
function penOf(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const scale = window.devicePixelRatio || 1;
  const [wide, high] = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  return { pen, width, height, step: 1 / scale };
}

/** A box with a canvas, the loop's region and the playhead. */
export class Lane {
  constructor(kind) {
    this.canvas = element("canvas", { "aria-hidden": "true" });
    this.region = element("div", { class: "region", hidden: true });
    this.head = element("div", { class: "playhead" });
    this.box = element("div", { class: `wave ${kind}` }, this.canvas, this.region, this.head);
  }

  /** Move the playhead and the region to fractions of the width. */
  place(head, loop, fraction) {
    this.head.hidden = head < 0 || head > 1;
    this.head.style.transform = `translateX(${(head * this.box.clientWidth).toFixed(1)}px)`;
    this.region.hidden = !loop;
    if (!loop) return;
    const [from, to] = [fraction(loop.from), fraction(loop.to)].map((f) => Math.min(1, Math.max(0, f)));
    this.region.hidden = to <= from;
    this.region.classList.toggle("off", !loop.on);
    this.region.style.left = `${100 * from}%`;
    this.region.style.width = `${100 * (to - from)}%`;
  }
}

export class Lanes {
  #pictures;
  #timeline;
  #stems;
  #colours = palette();
  #pending = false;
  #rate = 44_100;
  #closing = new AbortController();

  heard = () => true; // is a stem heard, or muted?
  spectrograms = false;

  constructor(stems, pictures, timeline, hands) {
    this.#stems = stems;
    this.#pictures = pictures;
    this.#timeline = timeline;
    this.ruler = new Lane("ruler");
    this.overview = new Lane("overview");
    this.window = element("div", { class: "window", hidden: true });
    this.overview.box.append(this.window);
    this.lanes = stems.map(() => new Lane("stem"));
    handle(this.ruler.box, timeline, hands, true);
    for (const lane of this.lanes) handle(lane.box, timeline, hands, false);
    this.grips = new Grips(this.ruler.box, timeline, hands.select);
    const draw = () => this.draw();
    const { signal } = this.#closing;
    pictures.addEventListener("change", draw, { signal });
    timeline.addEventListener("change", draw, { signal });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw, { signal });
    const observer = new ResizeObserver(draw);
    for (const lane of [this.ruler, ...this.lanes]) observer.observe(lane.box);
    signal.addEventListener("abort", () => observer.disconnect());
  }

  /** Let go of what outlives the elements. */
  close() {
    this.#closing.abort();
  }

  setRate(rate) {
    this.#rate = this.grips.rate = rate;
  }

  /** Draw everything once, before the next picture of the screen. */
  draw() {
    if (this.#pending) return;
    this.#pending = true;
    requestAnimationFrame(() => {
      this.#pending = false;
      this.#colours = palette();
      this.#stems.forEach((stem, row) => this.#drawStem(this.lanes[row], stem, row));
      this.#drawRuler();
      const { length } = this.#timeline;
      this.#drawWave(this.overview.canvas, this.#stems.length, 0, length, this.#colours.quiet);
    });
  }

  #drawStem(lane, stem, row) {
    const { from, span } = this.#timeline;
    const colour = this.heard(stem) ? this.#colours.wave : this.#colours.quiet;
    if (!this.spectrograms) {
      this.#drawWave(lane.canvas, row, from, span, colour);
      return;
    }
    const { pen, width, height } = penOf(lane.canvas);
    this.#drawHatch(pen, width, height, from, span);
    const rgb = this.#colours.rgb;
    pen.globalAlpha = this.heard(stem) ? 1 : 0.35;
    this.#pictures.drawSpectrogram(pen, stem, from, span, width, height, rgb);
    pen.globalAlpha = 1;
  }

  #drawWave(canvas, row, from, span, colour) {
    const { pen, width, height, step } = penOf(canvas);
    this.#drawHatch(pen, width, height, from, span);
    const middle = height / 2;
    const tall = (value) => Math.sign(value) * Math.abs(value) ** 0.6 * (middle - 2);
    pen.fillStyle = colour;
    for (let x = 0; x < width; x += step) {
      const at = from + (x / width) * span;
      const extent = this.#pictures.extent(row, at, at + (step / width) * span);
      if (!extent) continue;
      const top = middle - tall(extent[1]) - 0.5;
      pen.fillRect(x, top, step, Math.max(1, middle - tall(extent[0]) + 0.5 - top));
    }
  }

  /** Hatch what is not separated yet. */
  #drawHatch(pen, width, height, from, span) {
    const column = (x) => Math.floor((from + (x / width) * span) / 1024);
    const known = this.#pictures.known;
    pen.strokeStyle = this.#colours.hatch;
    pen.lineWidth = 1;
    for (let x = 0; x < width; ) {
      const begin = x;
      while (x < width && !known[column(x)]) x += 1;
      if (x > begin) {
        pen.save();
        pen.beginPath();
        pen.rect(begin, 0, x - begin, height);
        pen.clip();
        pen.beginPath();
        for (let line = begin - (begin % HATCH) - height; line < x; line += HATCH) {
          pen.moveTo(line, height);
          pen.lineTo(line + height, 0);
        }
        pen.stroke();
        pen.restore();
      }
      while (x < width && known[column(x)]) x += 1;
    }
  }

  #drawRuler() {
    const { pen, width, height } = penOf(this.ruler.canvas);
    const { from, span } = this.#timeline;
    const seconds = span / this.#rate;
    const step = STEPS.find((each) => (each / seconds) * width >= MARK) ?? STEPS.at(-1);
    pen.fillStyle = this.#colours.text;
    pen.font = `11px ${getComputedStyle(document.body).fontFamily}`;
    for (let i = Math.ceil(from / this.#rate / step); i * step < (from + span) / this.#rate; i++) {
      const x = this.#timeline.fraction(i * step * this.#rate) * width;
      const tenths = step < 1 ? `.${Math.round(((i * step) % 1) * 10) % 10}` : "";
      pen.fillRect(x, height - 6, 1, 6);
      if (x < width - 30) pen.fillText(clock(i * step + 0.001) + tenths, x + 4, height - 7);
    }
  }

  /** Move playhead, loop and window; cheap enough for every picture of the screen. */
  place(position, loop) {
    const { length, from, span, fraction, whole } = this.#timeline;
    for (const lane of [this.ruler, ...this.lanes]) lane.place(fraction(position), loop, fraction);
    this.grips.place(loop, fraction);
    this.overview.place(position / length, loop, (frame) => frame / length);
    this.window.hidden = whole;
    this.window.style.left = `${(100 * from) / length}%`;
    this.window.style.width = `${(100 * span) / length}%`;
  }
}
