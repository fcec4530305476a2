/** Canvases over one timeline: waveforms or spectrograms, ruler, overview, loop and playhead. */

import { barAt, barStart } from "./beat.js";
import { element } from "./dom.js";
import { formatTime } from "./i18n/index.js";
import { COLUMN } from "./image-cache.js";
import { LoopHandles } from "./loop-handles.js";
import { addGestures } from "./timeline.js";

const MARK_SECONDS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600]; // between marks
const MARK_WIDTH = 76; // pixels that a time needs
const BAR_WIDTH = 32; // pixels that a bar's number needs
const HATCH_SPACING = 7; // pixels between the lines that fill what is not separated yet
const CONTRAST = 0.6; // exponent of the peaks' height, which makes quiet parts visible

export const ORIGINAL = "original"; // lane of a track without stems

/** Return a colour of an element, from the style sheet: #rrggbb. */
const readColour = (target, name) => getComputedStyle(target).getPropertyValue(`--${name}`).trim();

/** Return the colours that all canvases share. */
function readColours() {
  const names = { muted: "wave-muted", hatch: "hatch", text: "text-muted" };
  return Object.fromEntries(
    Object.entries(names).map(([key, name]) => [key, readColour(document.documentElement, name)]),
  );
}

/** Fit a canvas to its box and clear it; returns its 2D context, which draws in CSS pixels. */
function prepareCanvas(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const scale = window.devicePixelRatio || 1;
  const size = { width: Math.round(width * scale), height: Math.round(height * scale) };
  if (canvas.width !== size.width || canvas.height !== size.height) Object.assign(canvas, size);
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height, step: 1 / scale };
}

/** A box with a canvas, the loop's region and the playhead. */
export class Lane {
  constructor(kind) {
    this.canvas = element("canvas", { "aria-hidden": "true" });
    this.region = element("div", { class: "loop-region", hidden: true });
    this.playhead = element("div", { class: "playhead" });
    this.box = element("div", { class: `wave ${kind}` }, this.canvas, this.region, this.playhead);
  }

  /** Move the playhead and the region; `fraction(frame)` returns a fraction of the width. */
  update(position, loop, fraction) {
    const x = fraction(position);
    this.playhead.hidden = x < 0 || x > 1;
    this.playhead.style.transform = `translateX(${(x * this.box.clientWidth).toFixed(1)}px)`;
    this.region.hidden = !loop;
    if (!loop) return;
    const [from, to] = [loop.from, loop.to].map((end) => Math.min(1, Math.max(0, fraction(end))));
    this.region.hidden = to <= from;
    this.region.classList.toggle("off", !loop.on);
    this.region.style.left = `${100 * from}%`;
    this.region.style.width = `${100 * (to - from)}%`;
  }
}

export class Waveforms {
  #images;
  #timeline;
  #stems; // of the lanes; the original if the track has none
  #originalRow;
  #isAudible;
  #gainOf;
  #handles;
  #viewport; // the visible part, in the overview
  #colours = readColours();
  #pending = false;
  #sampleRate = 44_100;
  #closing = new AbortController();

  showSpectrograms = false;
  beat = null; // {bpm, first, perBar}: the ruler shows bars instead of times

  /** Stems of which `isAudible(stem)` is false are grey, and `gainOf(stem)` scales their waveforms. */
  constructor(stems, images, timeline, { isAudible, gainOf, onSeek, onSelect }) {
    this.#stems = stems.length > 0 ? stems : [ORIGINAL];
    this.#originalRow = stems.length;
    this.#images = images;
    this.#timeline = timeline;
    this.#isAudible = isAudible;
    this.#gainOf = gainOf;
    this.ruler = new Lane("ruler");
    this.overview = new Lane("overview");
    this.#viewport = element("div", { class: "viewport", hidden: true });
    this.overview.box.append(this.#viewport);
    this.lanes = this.#stems.map(() => new Lane("stem"));
    addGestures(this.ruler.box, timeline, { onSeek, onSelect }, { touchSelects: true });
    for (const lane of this.lanes) {
      addGestures(lane.box, timeline, { onSeek, onSelect }, { touchSelects: false });
    }
    this.#handles = new LoopHandles(this.ruler.box, timeline, onSelect);
    const draw = () => this.draw();
    const { signal } = this.#closing;
    images.addEventListener("change", draw, { signal });
    timeline.addEventListener("change", draw, { signal });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw, { signal });
    const observer = new ResizeObserver(draw);
    for (const lane of [this.ruler, ...this.lanes]) observer.observe(lane.box);
    signal.addEventListener("abort", () => observer.disconnect());
  }

  /** Remove the listeners on objects that exist longer than these elements. */
  close() {
    this.#closing.abort();
  }

  setSampleRate(sampleRate) {
    this.#sampleRate = this.#handles.sampleRate = sampleRate;
  }

  /** Draw everything in the next animation frame. */
  draw() {
    if (this.#pending) return;
    this.#pending = true;
    requestAnimationFrame(() => {
      this.#pending = false;
      this.#colours = readColours();
      this.#stems.forEach((stem, row) => this.#drawStem(this.lanes[row], stem, row));
      this.#drawRuler();
      const { length } = this.#timeline;
      this.#drawWaveform(this.overview.canvas, this.#originalRow, 0, length, this.#colours.muted);
    });
  }

  /** Move the playhead, the loop and the overview's viewport; cheap enough for every animation frame. */
  update(position, loop) {
    const { length, from, span, fraction, whole } = this.#timeline;
    for (const lane of [this.ruler, ...this.lanes]) lane.update(position, loop, fraction);
    this.#handles.update(loop);
    this.overview.update(position, loop, (frame) => frame / length);
    this.#viewport.hidden = whole;
    this.#viewport.style.left = `${(100 * from) / length}%`;
    this.#viewport.style.width = `${(100 * span) / length}%`;
  }

  #drawStem(lane, stem, row) {
    const { from, span } = this.#timeline;
    const audible = this.#isAudible(stem);
    const wave = readColour(lane.box, "wave");
    lane.box.removeAttribute("aria-busy");
    if (!this.showSpectrograms) {
      const colour = audible ? wave : this.#colours.muted;
      this.#drawWaveform(lane.canvas, row, from, span, colour, this.#gainOf(stem));
      return;
    }
    const { context, width, height } = prepareCanvas(lane.canvas);
    this.#drawHatching(context, width, height, from, span);
    context.globalAlpha = audible ? 1 : 0.35;
    const rgb = wave.match(/\w\w/g).map((hex) => parseInt(hex, 16));
    const loading = this.#images.drawSpectrogram(context, stem, from, span, width, height, rgb);
    if (loading) lane.box.setAttribute("aria-busy", "true");
    context.globalAlpha = 1;
  }

  #drawWaveform(canvas, row, from, span, colour, gain = 1) {
    const { context, width, height, step } = prepareCanvas(canvas);
    this.#drawHatching(context, width, height, from, span);
    const middle = height / 2;
    const fraction = (peak) => Math.min(1, gain * Math.abs(peak)) ** CONTRAST;
    const scaled = (peak) => Math.sign(peak) * fraction(peak) * (middle - 2);
    context.fillStyle = colour;
    for (let x = 0; x < width; x += step) {
      const frame = from + (x / width) * span;
      const extent = this.#images.extent(row, frame, frame + (step / width) * span);
      if (!extent) continue;
      const top = middle - scaled(extent[1]) - 0.5;
      context.fillRect(x, top, step, Math.max(1, middle - scaled(extent[0]) + 0.5 - top));
    }
  }

  /** Hatch the parts that are not separated yet. */
  #drawHatching(context, width, height, from, span) {
    const isLoaded = (x) => this.#images.loaded[Math.floor((from + (x / width) * span) / COLUMN)];
    context.strokeStyle = this.#colours.hatch;
    context.lineWidth = 1;
    for (let x = 0; x < width; ) {
      const left = x;
      while (x < width && !isLoaded(x)) x += 1;
      if (x > left) {
        context.save();
        context.beginPath();
        context.rect(left, 0, x - left, height);
        context.clip();
        context.beginPath();
        for (let line = left - (left % HATCH_SPACING) - height; line < x; line += HATCH_SPACING) {
          context.moveTo(line, height);
          context.lineTo(line + height, 0);
        }
        context.stroke();
        context.restore();
      }
      while (x < width && isLoaded(x)) x += 1;
    }
  }

  #drawRuler() {
    const { context, width, height } = prepareCanvas(this.ruler.canvas);
    const { from, span } = this.#timeline;
    const [start, end] = [from / this.#sampleRate, (from + span) / this.#sampleRate];
    context.fillStyle = this.#colours.text;
    context.font = `11px ${getComputedStyle(document.body).fontFamily}`;
    const marks = this.beat ? barMarks(this.beat, start, end, width) : timeMarks(start, end, width);
    for (const { seconds, label } of marks) {
      const x = this.#timeline.fraction(seconds * this.#sampleRate) * width;
      context.fillRect(x, height - 6, 1, 6);
      if (x < width - 30) context.fillText(label, x + 4, height - 7);
    }
  }
}

/** Return marks {seconds, label} at round times between two times, as many as a width has room for. */
function timeMarks(start, end, width) {
  const step = MARK_SECONDS.find((each) => (each / (end - start)) * width >= MARK_WIDTH) ?? MARK_SECONDS.at(-1);
  const [first, last] = [Math.ceil(start / step), Math.ceil(end / step)];
  return Array.from({ length: Math.max(0, last - first) }, (_, i) => {
    const seconds = (first + i) * step;
    return { seconds, label: formatTime(seconds + 0.001, step < 1 ? 1 : 0) };
  });
}

/** Return marks {seconds, label} at the starts of bars, as many as a width has room for. */
function barMarks(beat, start, end, width) {
  const bars = barAt(beat, end) - barAt(beat, start);
  let step = 1; // bars between marks: 1, 2, 4, ..., so that bars 1, 5, 9 and so on keep their marks
  while ((step / bars) * width < BAR_WIDTH) step *= 2;
  const marks = [];
  for (let bar = 1; bar <= barAt(beat, end); bar += step) {
    if (bar >= barAt(beat, start)) marks.push({ seconds: barStart(beat, bar), label: String(bar) });
  }
  return marks;
}
