/** The view of one track: header, overview, toolbar, a lane for each stem, and the transport bar. */

import * as api from "./api.js";
import { BeatMenu } from "./beat-menu.js";
import { ChannelStrip } from "./channel-strip.js";
import { announce, element } from "./dom.js";
import { openDownloadDialog } from "./download-dialog.js";
import { bindLabel, bindText, button, formatPercent, formatTime, stemName, text } from "./i18n/index.js";
import { ImageCache } from "./image-cache.js";
import { formatLink } from "./link.js";
import { Markers } from "./markers.js";
import { PresetMenu } from "./mix-presets.js";
import { stemGains, stemSettings } from "./mixer.js";
import { readTrackState, saveSettings, saveTrackState } from "./storage.js";
import { createTimeField } from "./time-field.js";
import { Timeline } from "./timeline.js";
import { TrackHeader } from "./track-header.js";
import { lengthOf } from "./tracks.js";
import { Transport } from "./transport.js";
import { ORIGINAL, Waveforms } from "./waveforms.js";

const PLAYABLE = new Set(["unseparated", "queued", "separating", "finished"]);
const MIN_SELECTION = 0.1; // seconds; anything shorter was selected by mistake
const [MIN_TEMPO, MAX_TEMPO] = [0.5, 2]; // that the server accepts
const SAVE_DELAY = 100; // milliseconds after the last change
const VIEWS = ["waveform", "spectrogram"];

/** Return the strip of a track that has no stems yet. */
const createOriginalStrip = () =>
  element("div", { class: "channel-strip" }, bindText(element("h2"), "original"));

export class TrackView {
  #tracks;
  #player;
  #info; // what the server supports
  #track;
  #timeline = new Timeline();
  #header;
  #images;
  #waveforms;
  #strips;
  #lanes; // elements: a strip and a waveform each
  #expanded = null; // the stem whose sliders a phone shows
  #transport;
  #workspace; // everything between the header and the transport bar
  #viewButtons;
  #presets;
  #loopFields; // of its start and end
  #clearLoop;
  #markers;
  #beatMenu;
  #selection = null; // the region that is being dragged
  #animation = null; // the request of the next animation frame
  #saving = null; // timer

  /** `pickModel()` asks for a model and stems. */
  constructor(root, track, { tracks, player, info, pickModel, deletions }) {
    this.#tracks = tracks;
    this.#player = player;
    this.#info = info;
    this.#track = track;
    this.id = track.id;
    this.stems = track.stems.join();
    const { mix, loop, tempo, pitch, zoom, view, markers = [], beat } = readTrackState(track.id);
    player.load(track, { mix, loop, tempo, pitch });
    const onDelete = () => deletions.add([this.#track]);
    this.#build(root, { pickModel, onDelete, markers, beat });
    this.#waveforms.showSpectrograms = view === "spectrogram";
    this.#timeline.setLength(lengthOf(track));
    if (zoom) this.#timeline.show(zoom.from, zoom.span);
    this.#timeline.addEventListener("change", () => this.#save());
    this.render();
    this.#animate();
  }

  close() {
    if (this.#saving !== null) this.#saveNow();
    cancelAnimationFrame(this.#animation);
    this.#waveforms.close();
  }

  get #sampleRate() {
    return this.#track.sample_rate ?? 44_100;
  }

  #build(root, { pickModel, onDelete, markers, beat }) {
    const { stems } = this.#track;
    const onDownload = () => openDownloadDialog(this.#player, this.#info);
    const link = () => {
      const { position, mix } = this.#player;
      return formatLink(this.#track, position / this.#sampleRate, mix);
    };
    this.#header = new TrackHeader(this.#tracks, { pickModel, onDownload, onDelete, link });
    this.#images = new ImageCache(api, this.#track);
    this.#waveforms = new Waveforms(stems, this.#images, this.#timeline, {
      isAudible: (stem) => this.#isAudible(stem),
      gainOf: (stem) => stemSettings(this.#player.mix, stem).gain,
      onSeek: (frame) => this.#player.seek(frame),
      onSelect: (region, done) => this.#select(region, done),
    });
    this.#waveforms.setSampleRate(this.#sampleRate);
    this.#markers = new Markers(markers, this.#waveforms.ruler.box, this.#timeline, {
      onSeek: (frame) => this.#player.seek(frame),
      onLoop: (from, to = lengthOf(this.#track)) =>
        this.#loopSeconds(from / this.#sampleRate, to / this.#sampleRate),
      onChange: () => this.#save(),
    });
    this.#markers.setSampleRate(this.#sampleRate);
    this.#beatMenu = this.#createBeatMenu(beat);
    this.#strips = stems.map(
      (stem) =>
        new ChannelStrip(stem, {
          onChange: (...change) => this.#changeStem(...change),
          onExpand: () => {
            this.#expanded = this.#expanded === stem ? null : stem;
            this.render();
          },
        }),
    );
    this.#transport = new Transport(this.#player, {
      onToggleLoop: () => this.#changeLoop("toggle"),
      onStretch: (tempo, pitch) => this.#setStretch(tempo, pitch),
      onVolume: (volume) => {
        this.#player.setVolume(volume);
        saveSettings({ volume });
      },
    });
    this.#lanes = this.#waveforms.lanes.map(({ box }, i) => {
      const strip = this.#strips[i]?.box ?? createOriginalStrip();
      return element("div", { class: "lane", data: { stem: stems[i] ?? ORIGINAL } }, strip, box);
    });
    const ruler = element("div", { class: "lane ruler-row" }, element("div"), this.#waveforms.ruler.box);
    const lanes = element("div", { class: "lanes" }, ruler, ...this.#lanes);
    lanes.style.setProperty("--count", this.#lanes.length);
    const parts = [this.#buildOverview(), this.#buildToolbar(), lanes];
    this.#workspace = element("div", { class: "workspace" }, ...parts);
    root.replaceChildren(...this.#header.boxes, this.#workspace, this.#transport.box);
  }

  #createBeatMenu(stored) {
    const view = this;
    const position = {
      get playing() {
        return view.#player.state === "playing";
      },
      get seconds() {
        return view.#player.position / view.#sampleRate;
      },
    };
    return new BeatMenu(stored, position, {
      onChange: () => {
        this.#save();
        this.render();
      },
      onLoop: (from, to) => this.#loopSeconds(from, to),
    });
  }

  /** Make the overview a slider of the position. */
  #buildOverview() {
    const { box } = this.#waveforms.overview;
    box.setAttribute("role", "slider");
    box.tabIndex = 0;
    bindLabel(box, "position");
    box.setAttribute("aria-valuemin", 0);
    box.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -5, ArrowDown: -5, ArrowRight: 5, ArrowUp: 5, PageDown: -30, PageUp: 30 };
      if (event.key in step) this.runAction("skip", step[event.key]);
      else if (event.key === "Home") this.runAction("toStart");
      else if (event.key === "End") this.#player.seek(lengthOf(this.#track));
      else return;
      event.preventDefault();
    });
    box.addEventListener("click", (event) => {
      const { left, width } = box.getBoundingClientRect();
      const frame = ((event.clientX - left) / width) * this.#timeline.length;
      this.#player.seek(frame);
      this.#timeline.show(frame - this.#timeline.span / 2, this.#timeline.span);
    });
    return box;
  }

  #buildToolbar() {
    const group = (className, key, ...children) =>
      bindLabel(element("div", { class: className, role: "group" }, ...children), key);
    this.#viewButtons = VIEWS.map((view) =>
      button("icon", view, view, () => {
        this.#waveforms.showSpectrograms = view === "spectrogram";
        this.#save();
        this.render();
      }),
    );
    const [start, end] = (this.#loopFields = [
      createTimeField("loopStart", (seconds) => this.#moveLoopEnd("from", seconds)),
      createTimeField("loopEnd", (seconds) => this.#moveLoopEnd("to", seconds)),
    ]);
    this.#clearLoop = button("ghost icon", "clearLoop", "close", () => this.#changeLoop("clear"));
    this.#presets = new PresetMenu(this.#track.stems, (mix) => this.#changeMix(mix));
    return element(
      "div",
      { class: "toolbar" },
      group("segments view-buttons", "view", ...this.#viewButtons),
      this.#presets.box,
      group(
        "loop-buttons",
        "loop",
        bindText(element("span", { class: "group-name" }), "loop"),
        button("secondary icon", "setLoopStart", "from-here", () => this.#changeLoop("start")),
        start.input,
        element("span", { "aria-hidden": "true" }, "–"),
        end.input,
        button("secondary icon", "setLoopEnd", "to-here", () => this.#changeLoop("end")),
        this.#clearLoop,
      ),
      this.#beatMenu.box,
      element(
        "div",
        { class: "marker-buttons" },
        button("secondary icon", "addMarker", "flag", () => this.runAction("marker")),
        this.#markers.box,
      ),
      group(
        "zoom-buttons",
        "zoom",
        button("ghost icon", "zoomOut", "minus", () => this.runAction("zoom", 0.5)),
        button("ghost icon", "zoomFit", "fit", () => this.runAction("zoom", 0)),
        button("ghost icon", "zoomIn", "plus", () => this.runAction("zoom", 2)),
      ),
    );
  }

  /** Whether a stem can be heard in the current mix. */
  #isAudible(stem) {
    const { stems } = this.#track;
    if (stem === ORIGINAL) return true;
    const [left, right] = stemGains(this.#player.mix, stems)[stems.indexOf(stem)];
    return left + right > 0 && !this.#player.original;
  }

  /** Show the track's new state from the server. */
  update(track) {
    this.#track = track;
    this.#player.update(track);
    this.#timeline.setLength(lengthOf(track));
    this.#waveforms.setSampleRate(this.#sampleRate);
    this.#markers.setSampleRate(this.#sampleRate);
    this.#images.update(track);
    this.render();
  }

  /** Go to a time and take a mix, as a link asks for; null leaves it. */
  show(seconds, mix) {
    if (mix) this.#changeMix(mix);
    if (seconds === null) return;
    const frame = seconds * this.#sampleRate;
    this.#player.seek(frame);
    this.#timeline.follow(frame);
  }

  #changeStem(stem, changes) {
    const { mix } = this.#player;
    this.#changeMix({ ...mix, [stem]: { ...stemSettings(mix, stem), ...changes } });
  }

  #changeMix(mix) {
    this.#player.setMix(mix);
    this.#waveforms.draw();
    this.#save();
  }

  /** Set the loop's "start" or "end" to the position, "toggle" the loop, or "clear" it. */
  #changeLoop(action) {
    const { loop, position } = this.#player;
    const length = lengthOf(this.#track);
    if (action === "start") {
      this.#player.setLoop({ from: position, to: loop && loop.to > position ? loop.to : length, on: true });
    } else if (action === "end") {
      this.#player.setLoop({ from: loop && loop.from < position ? loop.from : 0, to: position, on: true });
    } else if (action === "toggle") {
      const { from, span } = this.#timeline;
      const visible = this.#timeline.whole ? { from: 0, to: length } : { from, to: from + span };
      this.#player.setLoop(loop ? { ...loop, on: !loop.on } : { ...visible, on: true });
    } else {
      this.#player.setLoop(null);
    }
    announce(text(this.#player.loop?.on ? "loopOn" : "loopOff"));
    this.#save();
  }

  /** Set one end of the loop to a time; without a loop the other is the song's. Returns if it fits. */
  #moveLoopEnd(end, seconds) {
    const ends = { from: 0, to: lengthOf(this.#track), ...this.#player.loop };
    const { from, to } = { ...ends, [end]: seconds * this.#sampleRate };
    return this.#loopSeconds(from / this.#sampleRate, to / this.#sampleRate);
  }

  /** Loop a part, as far as it is in the song; returns whether it is long enough. */
  #loopSeconds(from, to) {
    const frame = (seconds) => Math.min(lengthOf(this.#track), Math.round(seconds * this.#sampleRate));
    const loop = { from: frame(from), to: frame(to), on: true };
    if (loop.to - loop.from < MIN_SELECTION * this.#sampleRate) return false;
    this.#player.setLoop(loop);
    this.#save();
    return true;
  }

  #setStretch(tempo, pitch) {
    this.#player.setStretch(tempo, pitch);
    this.#save();
  }

  /** Multiply the tempo by a factor, as far as possible; 0 resets tempo and pitch. */
  #changeTempo(factor) {
    const { tempo, pitch } = this.#player;
    if (!this.#info.stretch) return;
    if (factor === 0) this.#setStretch(1, 0);
    else this.#setStretch(Math.max(MIN_TEMPO, Math.min(MAX_TEMPO, factor * tempo)), pitch);
    announce(text("tempoIs", { tempo: formatPercent(this.#player.tempo) }));
  }

  /** Show the region that is being selected; when it is done, loop it. */
  #select({ from, to }, done) {
    const region = { from: Math.round(from), to: Math.round(to), on: true };
    this.#selection = done ? null : region;
    if (!done || region.to - region.from < MIN_SELECTION * this.#sampleRate) return;
    this.#player.setLoop(region);
    this.#save();
  }

  /** Run the action of a button or shortcut; returns whether it exists. */
  runAction(action, argument) {
    const player = this.#player;
    const stem = this.#track.stems[argument];
    const actions = {
      play: () => player.toggle(),
      skip: () => player.seek(player.position + argument * this.#sampleRate),
      toStart: () => player.toStart(),
      loop: () => this.#changeLoop(argument),
      marker: () => this.#markers.add(player.position),
      tap: () => this.#beatMenu.tap(),
      tempo: () => this.#changeTempo(argument),
      compare: () => player.setMix(player.mix, { original: !player.original }),
      zoom: () => {
        const { whole, length } = this.#timeline;
        if (argument === 0) this.#timeline.show(0, length);
        else this.#timeline.zoom(argument, whole ? player.position || length / 2 : player.position);
      },
      mute: () => stem && this.#toggle(stem, "mute"),
      solo: () => stem && this.#toggle(stem, "solo"),
    };
    actions[action]?.();
    return action in actions;
  }

  #toggle(stem, name) {
    const on = !stemSettings(this.#player.mix, stem)[name];
    this.#changeStem(stem, { [name]: on });
    announce(text(`${name}${on ? "On" : "Off"}`, { stem: stemName(stem) }));
  }

  /** Store the mix, loop, zoom and the rest, soon after the last change. */
  #save() {
    clearTimeout(this.#saving);
    this.#saving = setTimeout(() => this.#saveNow(), SAVE_DELAY);
  }

  #saveNow() {
    clearTimeout(this.#saving);
    this.#saving = null;
    const { mix, loop, tempo, pitch } = this.#player;
    const { whole, from, span } = this.#timeline;
    const view = this.#waveforms.showSpectrograms ? "spectrogram" : "waveform";
    const { items: markers } = this.#markers;
    const { beat } = this.#beatMenu;
    const zoom = whole ? null : { from, span };
    saveTrackState(this.#track.id, { mix, loop, tempo, pitch, view, zoom, markers, beat });
  }

  /** Show everything but what moves with the position. */
  render() {
    const track = this.#track;
    const { mix, original, loop } = this.#player;
    const undecodable = track.state === "unseparated" && track.error;
    const playable = track.ranges.length > 0 || (PLAYABLE.has(track.state) && !undecodable);
    this.#header.render(track, playable, this.#player.pitch);
    this.#workspace.hidden = this.#transport.box.hidden = !playable;
    track.stems.forEach((stem, i) => {
      const expanded = stem === this.#expanded;
      const audible = original || this.#isAudible(stem);
      this.#strips[i].render(mix, { audible, expanded, file: track.files?.[stem] });
      this.#lanes[i].classList.toggle("expanded", expanded);
    });
    this.#viewButtons.forEach((node, i) => {
      node.setAttribute("aria-pressed", (VIEWS[i] === "spectrogram") === this.#waveforms.showSpectrograms);
    });
    this.#presets.render(mix);
    this.#presets.box.hidden = track.stems.length === 0;
    this.#clearLoop.disabled = !loop;
    const ends = loop ? [loop.from, loop.to].map((frame) => frame / this.#sampleRate) : [null, null];
    this.#loopFields.forEach((field, i) => field.show(ends[i]));
    this.#beatMenu.render(loop && { from: ends[0], to: ends[1] });
    const { beat } = this.#beatMenu;
    this.#player.setBeat(beat);
    this.#waveforms.beat = beat;
    this.#transport.render({ canStretch: this.#info.stretch });
    this.#waveforms.draw();
  }

  /** Move the playhead, the times and the meters in every animation frame; playback needs none. */
  #animate() {
    const { position, mixer, playing } = this.#player;
    if (playing) this.#timeline.follow(position);
    this.#waveforms.update(position, this.#selection ?? this.#player.loop);
    this.#markers.update();
    this.#transport.updatePosition(position);
    this.#strips.forEach((strip, i) => strip.updateMeter(mixer && playing ? mixer.level(i) : 0));
    this.#updateSlider(position);
    this.#animation = requestAnimationFrame(() => this.#animate());
  }

  #updateSlider(position) {
    const seconds = position / this.#sampleRate;
    const length = lengthOf(this.#track) / this.#sampleRate;
    const valueText = text("positionOf", { position: formatTime(seconds), length: formatTime(length) });
    const slider = this.#waveforms.overview.box;
    if (slider.getAttribute("aria-valuetext") === valueText) return;
    slider.setAttribute("aria-valuemax", Math.round(length));
    slider.setAttribute("aria-valuenow", Math.round(seconds));
    slider.setAttribute("aria-valuetext", valueText);
  }
}
