/**
 * Plays a track while it is separated: short pieces of all stems on one clock.
 *
 * Positions outside are frames of the track. Inside, frames count in the stretched time line,
 * because the server stretches: a track at half the tempo has twice the frames.
 */

import { Loudness } from "./loudness.js";
import { Mixer } from "./mixer.js";
import { LEAD, Run } from "./run.js";
import { hearable, lengthOf } from "./tracks.js";

const PIECE = 32_768; // frames of one request, at most one and a half times as many
const AHEAD = 4; // seconds of sound placed ahead, so that a throttled tab plays on
const LOW = 0.3; // seconds placed ahead below which a short piece is better than none
const TICK = 250; // milliseconds; a hidden tab ticks slower, and is driven by pieces that end
const CACHED = 12; // pieces kept, for loops
const IDLE = 400; // milliseconds after which a paused context sleeps
const SHORTEST_LOOP = 0.1; // seconds

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
  #context = null;
  #run = null;
  #position = 0;
  mix = {};
  #pieces = []; // the latest pieces: {from, frames, samples}
  #filling = null; // aborts the request under way
  #asked = null; // the frame that the server was last asked to go to
  #timer = null;

  constructor(server) {
    super();
    this.#server = server;
  }

  /** Take another track, paused at a frame. */
  load(track, { mix = {}, tempo = 1, pitch = 0, loop = null, position = 0 }) {
    this.pause();
    this.#close();
    Object.assign(this, { track, tempo, pitch, loop, original: false });
    this.mix = mix;
    this.#position = position;
    this.#clear();
    this.#tell();
  }

  /** Take what the server newly says of the track; its stems are the same. */
  update(track) {
    this.track = track;
    this.#fill();
  }

  /** The frame that is heard now. */
  get position() {
    if (!this.#run) return this.#position;
    const heard = this.#context.currentTime - (this.#context.outputLatency || 0);
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
    clearTimeout(this.#timer);
    this.#open();
    this.#context.resume();
    this.state = "waiting";
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
    if (this.playing) this.#begin(this.#position);
    this.#tell();
  }

  setLoop(loop) {
    const shortest = SHORTEST_LOOP * this.track.sample_rate;
    this.loop = loop && loop.to - loop.from >= shortest ? loop : null;
    if (this.playing) this.#again();
    this.#tell();
  }

  setStretch(tempo, pitch) {
    if (tempo === this.tempo && pitch === this.pitch) return;
    const position = this.position;
    Object.assign(this, { tempo, pitch });
    this.#clear();
    if (this.playing) this.#begin(position);
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
    this.#pieces = [];
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
    this.#start(Math.round(position / this.tempo));
    this.#tell();
  }

  #start(next) {
    this.#run = new Run(this.#context, this.mixer, this.track.sample_rate, next);
    this.#asked = null;
    this.#fill();
  }

  /** Place everything anew from where it plays; the same sound fades over into itself. */
  #again() {
    const next = this.#run.frameAt(this.#context.currentTime + LEAD);
    this.#leave(LEAD);
    this.#start(next);
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
      if (this.#run === run && error.name !== "AbortError") this.#fail(error);
    } finally {
      if (this.#filling === filling) this.#filling = null;
    }
    if (this.#run === run) this.#settle(run);
  }

  /** Say whether there is sound, wait for more, or stop at the end. */
  #settle(run) {
    if (run.ahead === 0 && this.#over(run.next)) {
      this.pause();
      this.#position = lengthOf(this.track);
      this.dispatchEvent(new Event("end"));
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

  /** Return the next piece, from the cache or the server; null if it cannot be heard yet. */
  async #read(run, signal) {
    const from = run.next;
    const whole = (from % PIECE > PIECE / 2 ? 2 : 1) * PIECE - (from % PIECE);
    const cached = this.#pieces.find((p) => p.from <= from && from < p.from + p.frames);
    if (cached) {
      const channels = cached.samples.length / cached.frames;
      const samples = cached.samples.subarray((from - cached.from) * channels);
      return { from, frames: samples.length / channels, samples };
    }
    const source = Math.round(from * this.tempo);
    const ready = Math.floor(hearable(this.track, source) / this.tempo);
    const last = this.track.frames !== null && source + ready * this.tempo >= this.track.frames - 3;
    if (ready === 0) this.#ask(run, source);
    if (ready < whole && !last && (ready === 0 || run.ahead > LOW)) return null;
    const { tempo, pitch } = this;
    const answer = await this.#server.pcm(this.track, { from, frames: whole, tempo, pitch, signal });
    if (!answer?.frames) {
      if (last) run.next = Infinity; // stretching rounded the length down
      return null;
    }
    const piece = { from, ...answer };
    if (tempo === this.tempo && pitch === this.pitch) {
      this.#pieces.push(piece);
      if (this.#pieces.length > CACHED) this.#pieces.shift();
    }
    return piece;
  }

  /** Ask the server to separate from here next, once for each place. */
  #ask(run, frame) {
    if (run.ahead > LOW || this.#asked === frame || this.track.state === "finished") return;
    this.#asked = frame;
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
