/**
 * Plays a track while it is separated: short pieces of all stems on one clock.
 *
 * Positions outside are frames of the track. Inside, frames count in the stretched time line,
 * because the server stretches: a track at half the tempo has twice the frames.
 */

import { Loudness } from "./loudness.js";
import { Mixer } from "./mixer.js";
import { Pieces } from "./pieces.js";
import { LEAD, Run } from "./run.js";
import { lengthOf } from "./tracks.js";

const AHEAD = 4; // seconds of sound placed ahead, so that a throttled tab plays on
const LOW = 0.3; // seconds placed ahead below which a short piece is better than none
const TICK = 250; // milliseconds; a hidden tab ticks slower, and is driven by pieces that end
const EDGE = 4; // frames that rounding to another tempo may change
const PATIENCE = 6000; // milliseconds in which a range should grow
const IDLE = 400; // milliseconds after which a paused context sleeps
const SHORTEST_LOOP = 0.1; // seconds
// Firefox on Linux asks PulseAudio for the latency under a lock that its sound thread may wait for
// inside PulseAudio: then both wait for ever, and the tab stands still.
const FREEZES = /Linux.*Firefox/.test(navigator.userAgent);

export class Player extends EventTarget {
  mixer = null; // while a context is open
  track = null;
  state = "paused"; // playing, waiting (for the separation or the network)
  tempo = 1;
  pitch = 0;
  loop = null; // {from, to, on} in frames
  loudness = new Loudness();
  original = false; // is the original heard instead of the mix?

  #server; // pcm(track, options), seek(id, frame)
  #pieces;
  #context = null;
  #run = null;
  #position = 0;
  mix = {};
  #filling = null; // aborts the request under way
  #wish = null; // {frame, since, asked}: what cannot be heard yet
  #timer = null;

  constructor(server) {
    super();
    this.#server = server;
    this.#pieces = new Pieces(server);
  }

  /** Take another track, or the same one with other stems: that plays on. */
  load(track, { mix = {}, tempo = 1, pitch = 0, loop = null }) {
    const same = this.track?.id === track.id;
    const position = same ? this.position : 0;
    const playing = same && this.playing;
    this.pause();
    this.#close();
    Object.assign(this, { track, mix, tempo, pitch, loop, original: false });
    this.#position = position;
    this.#clear();
    if (playing) this.play();
    this.#tell();
  }

  /** Take what the server newly says of the track; its stems are the same. */
  update(track) {
    this.track = track;
    if (this.playing && !this.#run) this.#start();
    else this.#fill();
  }

  /** The frame that is heard now. */
  get position() {
    if (!this.#run) return this.#position;
    const latency = FREEZES ? 0 : this.#context.outputLatency || 0;
    const heard = this.#context.currentTime - latency;
    return Math.min(lengthOf(this.track), Math.round(this.#run.frameAt(heard) * this.tempo));
  }

  get playing() {
    return this.state !== "paused";
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  play() {
    if (!this.track || this.playing) return;
    if (this.#position >= lengthOf(this.track) && this.track.frames) this.#position = 0;
    this.state = "waiting";
    this.#start();
    this.#tell();
  }

  /** Begin to play, once the track's rate and stems are known. */
  #start() {
    if (!this.track.sample_rate || this.track.stems.length === 0) return;
    clearTimeout(this.#timer);
    this.#open();
    this.#context.resume();
    this.#timer = setInterval(() => this.#fill(), TICK);
    this.#begin(this.#position);
  }

  pause() {
    if (!this.playing) return;
    this.#position = this.position;
    this.#leave();
    clearInterval(this.#timer);
    this.#timer = setTimeout(() => this.#context?.suspend(), IDLE);
    this.state = "paused";
    this.#tell();
  }

  /** Go to a frame, playing on if it plays. */
  seek(frame) {
    this.#position = Math.max(0, Math.min(lengthOf(this.track), Math.round(frame)));
    if (this.#run) this.#begin(this.#position);
    this.#tell();
  }

  setLoop(loop) {
    const shortest = SHORTEST_LOOP * this.track.sample_rate;
    this.loop = loop && loop.to - loop.from >= shortest ? loop : null;
    if (this.#run) this.#again();
    this.#tell();
  }

  setStretch(tempo, pitch) {
    if (tempo === this.tempo && pitch === this.pitch) return;
    const position = this.position;
    Object.assign(this, { tempo, pitch });
    this.#clear();
    if (this.#run) this.#begin(position);
    this.#tell();
  }

  /** Mix as these settings say. */
  setMix(mix, { original = this.original } = {}) {
    this.mix = mix;
    this.original = original;
    this.#applyMix(true);
    this.#tell();
  }

  #applyMix(smooth) {
    const gain = this.original ? this.loudness.matching(this.mix, this.track.stems) : null;
    this.mixer?.set(this.mix, { original: gain, smooth });
  }

  #tell() {
    this.dispatchEvent(new Event("change"));
  }

  #open() {
    if (this.#context) return;
    const sampleRate = this.track.sample_rate;
    try {
      this.#context = new AudioContext({ sampleRate, latencyHint: "playback" });
    } catch {
      this.#context = new AudioContext(); // a rate this machine cannot play: resampled
    }
    this.#context.onstatechange = () => {
      if (this.#context?.state === "interrupted") this.pause(); // a call, on a phone
    };
    this.mixer = new Mixer(this.#context, this.track.stems);
    this.#applyMix(false);
  }

  #close() {
    clearTimeout(this.#timer);
    this.#context?.close();
    this.#context = null;
    this.mixer = null;
  }

  #clear() {
    this.#pieces.clear();
    this.loudness.reset();
  }

  #leave(later = 0) {
    this.#filling?.abort();
    this.#filling = null;
    this.#run?.leave(later);
    this.#run = null;
  }

  #begin(position) {
    this.#leave();
    this.#runFrom(Math.round(position / this.tempo));
    this.#tell();
  }

  #runFrom(next) {
    this.#run = new Run(this.#context, this.mixer, this.track.sample_rate, next);
    this.#wish = null;
    this.#fill();
  }

  /** Place everything anew from where it plays; the same sound fades over into itself. */
  #again() {
    const next = this.#run.frameAt(this.#context.currentTime + LEAD);
    this.#leave(LEAD);
    this.#runFrom(next);
  }

  /** Place pieces until enough lies ahead, or nothing more can be heard. */
  async #fill() {
    const run = this.#run;
    if (!run || this.#filling) return;
    const filling = (this.#filling = new AbortController());
    try {
      while (run.ahead < AHEAD && !this.#over(run.next)) {
        const piece = await this.#read(run, filling.signal);
        if (this.#run !== run) return;
        if (!piece) break;
        this.#place(run, piece);
      }
    } catch (error) {
      const lost = error.name === "AbortError" || error.status === 0; // the next tick tries again
      if (this.#run === run && !lost) this.#fail(error);
    } finally {
      if (this.#filling === filling) this.#filling = null;
    }
    if (this.#run === run) this.#settle(run);
  }

  /** Say whether there is sound, wait for more, or stop at the end. */
  #settle(run) {
    if (run.ahead === 0 && this.#over(run.next)) {
      this.pause();
      this.seek(lengthOf(this.track));
    }
    const state = !this.playing ? "paused" : run.ahead > 0 ? "playing" : "waiting";
    if (state === this.state) return;
    this.state = state;
    this.#tell();
  }

  #over(next) {
    return this.track.frames !== null && next >= Math.floor(this.track.frames / this.tempo);
  }

  /** Where the loop jumps back for what is at a frame; null outside of it. */
  #loopEnd(next) {
    if (!this.loop?.on) return null;
    const end = Math.round(this.loop.to / this.tempo);
    return next < end ? end : null;
  }

  /** Return the next piece; null if it cannot be heard yet. */
  async #read(run, signal) {
    const { track, tempo, pitch } = this;
    const patient = run.ahead > LOW;
    const where = { from: run.next, tempo, pitch };
    if (!patient && this.#pieces.lacks(track, where)) this.#ask(Math.round(run.next * tempo));
    const piece = await this.#pieces.read(track, { ...where, patient, signal });
    if (piece?.frames !== 0) return piece;
    run.next = Infinity; // stretching rounded the length down
    return null;
  }

  /** Ask the server once to separate from here next; where a range ends, it most likely does. */
  #ask(frame) {
    if (this.track.state === "finished") return;
    if (this.#wish?.frame !== frame) this.#wish = { frame, since: performance.now(), asked: false };
    const grows = this.track.ranges.some(([, to]) => Math.abs(to - frame) < EDGE);
    const patience = grows ? PATIENCE : 0;
    if (this.#wish.asked || performance.now() - this.#wish.since < patience) return;
    this.#wish.asked = true;
    this.#server.seek(this.track.id, frame).catch(() => {});
  }

  #place(run, { from, frames, samples }) {
    const channels = this.mixer.channels;
    const end = this.#loopEnd(from);
    const jumps = end !== null && from + frames >= end;
    const kept = jumps ? samples.subarray(0, (end - from) * channels) : samples;
    const jumped = run.jumped;
    run.jumped = jumps;
    run.next = jumps ? Math.round(this.loop.from / this.tempo) : from + frames;
    run.place(kept, channels, {
      frame: from,
      fadeIn: jumped,
      fadeOut: jumps,
      ended: () => this.#fill(),
    });
    this.loudness.hear(kept, channels);
    if (this.original) this.#applyMix(true);
  }

  #fail(error) {
    this.pause();
    this.dispatchEvent(new CustomEvent("failure", { detail: error }));
  }
}
