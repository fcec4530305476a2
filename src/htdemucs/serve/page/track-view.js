/** The view of one track: what it is, how far it is, its lanes, and the bar that plays. */

import { About } from "./about.js";
import * as server from "./api.js";
import { openDownloads } from "./download.js";
import { announce, element } from "./dom.js";
import { Lanes } from "./lanes.js";
import { gainsOf, settingsOf } from "./mixer.js";
import { Pictures } from "./pictures.js";
import { recall, remember } from "./store.js";
import { Strip } from "./strips.js";
import { Timeline } from "./timeline.js";
import { lengthOf, titleOf } from "./tracks.js";
import { Transport } from "./transport.js";
import { button, clock, label, stemName, text } from "./text.js";

const PLAYABLE = new Set(["queued", "separating", "finished"]);
const SHORTEST = 0.1; // seconds of a region that was drawn on purpose
const SHAPES = ["waveform", "spectrogram"];

export class TrackView {
  #tracks;
  #player;
  #context; // {info, choose}: what the server can do, and the dialog that chooses
  #track;
  #timeline = new Timeline();
  #about;
  #pictures;
  #lanes;
  #strips;
  #transport;
  #memory;
  #looks = null; // the request of the next picture of the screen
  #saving = null;

  constructor(root, track, { tracks, player, context }) {
    this.#tracks = tracks;
    this.#player = player;
    this.#context = context;
    this.#track = track;
    this.id = track.id;
    this.stems = track.stems.join();
    this.#memory = recall(track.id);
    const { mix, loop, tempo, pitch } = this.#memory;
    player.load(track, { mix, loop, tempo, pitch });
    this.#build(root);
    this.#timeline.setLength(lengthOf(track));
    if (this.#memory.zoom) this.#timeline.show(this.#memory.zoom.from, this.#memory.zoom.span);
    this.#timeline.addEventListener("change", () => this.#save());
    this.show();
    this.#look();
  }

  close() {
    cancelAnimationFrame(this.#looks);
    this.#lanes.close();
  }

  #build(root) {
    const { stems } = this.#track;
    const { info, choose } = this.#context;
    const download = () => openDownloads(this.#player, info);
    this.#about = new About(this.#tracks, { choose, download });
    this.#pictures = new Pictures(server, this.#track);
    this.#lanes = new Lanes(stems, this.#pictures, this.#timeline, {
      seek: (frame) => this.#player.seek(frame),
      select: (region, done) => this.#select(region, done),
    });
    this.#lanes.heard = (stem) => this.#heard(stem);
    this.#lanes.setRate(this.#track.sample_rate ?? 44_100);
    this.#lanes.spectrograms = this.#memory.shape === "spectrogram";
    this.#strips = stems.map((stem) => new Strip(stem, (...change) => this.change(...change)));
    this.#transport = new Transport(this.#player, {
      loopTo: (what) => this.loop(what),
      stretch: (tempo, pitch) => {
        this.#player.setStretch(tempo, pitch);
        this.#save();
      },
    });
    const rows = stems.map((stem, i) =>
      element("div", { class: "lane", data: { stem } }, this.#strips[i].box, this.#lanes.lanes[i].box),
    );
    const ruler = element("div", { class: "lane ruling" }, element("div"), this.#lanes.ruler.box);
    const lanes = element("div", { class: "lanes" }, ruler, ...rows);
    lanes.style.setProperty("--count", stems.length);
    this.stage = element("div", { class: "stage" }, this.#buildOverview(), this.#buildTools(), lanes);
    root.replaceChildren(...this.#about.boxes, this.stage, this.#transport.box);
  }

  #buildOverview() {
    const { overview } = this.#lanes;
    overview.canvas.parentElement.setAttribute("role", "slider");
    overview.box.tabIndex = 0;
    label(overview.box, "positionIn");
    overview.box.setAttribute("aria-valuemin", 0);
    overview.box.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -5, ArrowDown: -5, ArrowRight: 5, ArrowUp: 5, PageDown: -30, PageUp: 30 };
      if (event.key in step) this.act("move", step[event.key]);
      else if (event.key === "Home") this.act("home");
      else if (event.key === "End") this.#player.seek(lengthOf(this.#track));
      else return;
      event.preventDefault();
    });
    overview.box.addEventListener("click", (event) => {
      const box = overview.box.getBoundingClientRect();
      const frame = ((event.clientX - box.left) / box.width) * this.#timeline.length;
      this.#player.seek(frame);
      this.#timeline.show(frame - this.#timeline.span / 2, this.#timeline.span);
    });
    return overview.box;
  }

  #buildTools() {
    this.shapes = SHAPES.map((shape) =>
      button("", shape, null, () => {
        this.#lanes.spectrograms = shape === "spectrogram";
        this.#lanes.draw();
        this.#save();
        this.show();
      }),
    );
    const shapes = label(element("div", { class: "segments", role: "group" }, ...this.shapes), "shape");
    const bounds = [
      button("plain", "loopFrom", null, () => this.loop("from")),
      button("plain", "loopTo", null, () => this.loop("to")),
    ];
    this.clear = button("plain", "loopClear", null, () => this.loop("clear"));
    const loops = label(element("div", { class: "loops", role: "group" }, ...bounds, this.clear), "loop");
    const zooms = [
      button("quiet icon", "zoomOut", "minus", () => this.act("zoom", 0.5)),
      button("quiet icon", "zoomFit", "fit", () => this.act("zoom", 0)),
      button("quiet icon", "zoomIn", "plus", () => this.act("zoom", 2)),
    ];
    const zoom = label(element("div", { class: "zooms", role: "group" }, ...zooms), "zoom");
    return element("div", { class: "tools" }, shapes, loops, zoom);
  }

  #heard(stem) {
    const { stems } = this.#track;
    const [left, right] = gainsOf(this.#player.mix, stems)[stems.indexOf(stem)];
    return left + right > 0 && !this.#player.original;
  }

  /** Take what the server newly says. */
  update(track) {
    this.#track = track;
    this.#player.update(track);
    this.#timeline.setLength(lengthOf(track));
    this.#lanes.setRate(track.sample_rate ?? 44_100);
    this.#pictures.update(track);
    this.#lanes.draw();
    this.show();
  }

  /** Change a stem's settings in the mix. */
  change(stem, changes) {
    const { mix } = this.#player;
    this.#player.setMix({ ...mix, [stem]: { ...settingsOf(mix, stem), ...changes } });
    this.#lanes.draw();
    this.#save();
  }

  /** Begin or end the loop here, turn it on or off, or clear it. */
  loop(what) {
    const { loop, position } = this.#player;
    const length = lengthOf(this.#track);
    if (what === "from") {
      this.#player.setLoop({ from: position, to: loop && loop.to > position ? loop.to : length, on: true });
    } else if (what === "to") {
      this.#player.setLoop({ from: loop && loop.from < position ? loop.from : 0, to: position, on: true });
    } else if (what === "toggle") {
      const { from, span } = this.#timeline;
      const fresh = this.#timeline.whole ? { from: 0, to: length } : { from, to: from + span };
      this.#player.setLoop(loop ? { ...loop, on: !loop.on } : { ...fresh, on: true });
    } else {
      this.#player.setLoop(null);
    }
    announce(text(this.#player.loop?.on ? "loopIsOn" : "loopIsOff"));
    this.#save();
  }

  #dragged = null; // the region that a hand is drawing

  #select({ from, to }, done) {
    const region = { from: Math.round(from), to: Math.round(to), on: true };
    this.#dragged = done ? null : region;
    if (!done || region.to - region.from < SHORTEST * (this.#track.sample_rate ?? 44_100)) return;
    this.#player.setLoop(region);
    this.#save();
  }

  /** Do what a key or a button asks for; returns whether it was anything. */
  act(action, argument) {
    const player = this.#player;
    const rate = this.#track.sample_rate ?? 44_100;
    const stem = this.#track.stems[argument];
    const acts = {
      play: () => player.toggle(),
      move: () => player.seek(player.position + argument * rate),
      home: () => player.seek(0),
      loop: () => this.loop(argument),
      compare: () => player.setMix(player.mix, { original: !player.original }),
      zoom: () => {
        const { whole, length } = this.#timeline;
        if (argument === 0) this.#timeline.show(0, length);
        else this.#timeline.zoom(argument, whole ? player.position || length / 2 : player.position);
      },
      mute: () => stem && this.#toggle(stem, "mute"),
      solo: () => stem && this.#toggle(stem, "solo"),
    };
    acts[action]?.();
    return action in acts;
  }

  #toggle(stem, name) {
    const on = !settingsOf(this.#player.mix, stem)[name];
    this.change(stem, { [name]: on });
    announce(text(on ? `${name}IsOn` : `${name}IsOff`, { stem: stemName(stem) }));
  }

  /** Remember mix, loop, zoom and the rest, once the hand rests. */
  #save() {
    clearTimeout(this.#saving);
    const { id } = this.#track;
    this.#saving = setTimeout(() => {
      const { mix, loop, tempo, pitch } = this.#player;
      const { whole, from, span } = this.#timeline;
      const shape = this.#lanes.spectrograms ? "spectrogram" : "waveform";
      remember(id, { mix, loop, tempo, pitch, shape, zoom: whole ? null : { from, span } });
    }, 100);
  }

  /** Show everything that changes now and then. */
  show() {
    const track = this.#track;
    const { mix, original, loop } = this.#player;
    const sounds = track.ranges.length > 0 || PLAYABLE.has(track.state);
    document.title = `${titleOf(track)} – htdemucs`;
    this.#about.show(track, sounds);
    this.stage.hidden = this.#transport.box.hidden = !sounds;
    track.stems.forEach((stem, i) => {
      this.#strips[i].show(mix, original || this.#heard(stem));
      this.#strips[i].offer(track.files?.[stem]);
    });
    this.shapes.forEach((each, i) => each.setAttribute("aria-pressed", (i === 1) === this.#lanes.spectrograms));
    this.clear.disabled = !loop;
    this.#transport.show({ stretches: this.#context.info.stretch });
    this.#lanes.draw();
  }

  /** Say the position in words, where it has changed. */
  #speak(position) {
    const rate = this.#track.sample_rate ?? 44_100;
    const length = lengthOf(this.#track) / rate;
    const words = text("ofLength", { now: clock(position / rate), length: clock(length) });
    const slider = this.#lanes.overview.box;
    if (slider.getAttribute("aria-valuetext") === words) return;
    slider.setAttribute("aria-valuemax", Math.round(length));
    slider.setAttribute("aria-valuenow", Math.round(position / rate));
    slider.setAttribute("aria-valuetext", words);
  }

  /** Move playhead, clock and meters, with every picture of the screen; nothing sounds by it. */
  #look() {
    const { position, mixer, playing } = this.#player;
    if (playing) this.#timeline.follow(position);
    this.#lanes.place(position, this.#dragged ?? this.#player.loop);
    this.#transport.place(position);
    this.#strips.forEach((strip, i) => strip.measure(mixer && playing ? mixer.level(i) : 0));
    this.#speak(position);
    this.#looks = requestAnimationFrame(() => this.#look());
  }
}
