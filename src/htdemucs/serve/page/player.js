/**
 * Plays a track while it is being separated: short chunks of all stems on one clock.
 *
 * Public positions are frames of the track. Internally, frames count in the stretched track, because
 * the server does the stretching: at half the tempo a track has twice as many frames.
 */

import { AudioChunks } from "./audio-chunks.js";
import { clicksBetween, countIn } from "./beat.js";
import { scheduleClicks } from "./clicks.js";
import { Loudness } from "./loudness.js";
import { Mixer } from "./mixer.js";
import { LEAD, Scheduler } from "./scheduler.js";
import { lengthOf, PROCESSING } from "./tracks.js";

const LOOKAHEAD = 4; // seconds to schedule ahead, so that a throttled background tab keeps playing
const LOW_BUFFER = 0.3; // seconds scheduled ahead, below which a short chunk is better than none
const TICK = 250; // milliseconds; a background tab ticks less often, and is driven by ending chunks
const SEAM = 4; // frames by which rounding to another tempo may miss the end of a range
const SEEK_DELAY = 6000; // milliseconds to wait at the end of a range before a seek request
const SUSPEND_DELAY = 400; // milliseconds from a pause to suspending the audio context
const MIN_LOOP = 0.1; // seconds
// Firefox on Linux queries PulseAudio's latency under a lock for which its audio thread may wait
// inside PulseAudio. Both then wait for ever, and the tab hangs.
const OUTPUT_LATENCY_HANGS = /Linux.*Firefox/.test(navigator.userAgent);

/** Whether no more of a track will be separated or decoded. */
const isStopped = ({ state, error }) =>
  ["failed", "cancelled"].includes(state) || Boolean(state === "unseparated" && error);

export class Player extends EventTarget {
  track = null;
  state = "paused"; // playing, or waiting (for the separation or the network)
  tempo = 1;
  pitch = 0; // semitones
  loop = null; // {from, to, on} in frames
  beat = null; // {bpm, first, perBar, countIn, click}: whether clicks precede and accompany the music
  mix = {}; // {stem: {gain, pan, mute, solo}}
  volume = 1; // gain of what is heard, for all tracks
  original = false; // whether the original plays instead of the mix
  mixer = null; // while the audio context is open
  loudness = new Loudness();

  #api; // pcm(track, options), seek(id, frame)
  #chunks;
  #context = null;
  #scheduler = null; // while playing or waiting
  #position = 0; // while paused
  #fetching = null; // AbortController of the current fetch
  #seekRequest = null; // {frame, since, sent}: a part that has to be separated before it can play
  #timer = null;
  #countInPending = false; // whether the first chunk follows a count-in
  #clicks = []; // functions that stop scheduled clicks

  constructor(api) {
    super();
    this.#api = api;
    this.#chunks = new AudioChunks(api);
  }

  /** Load another track, or the same one with other stems, which keeps playing. */
  load(track, { mix = {}, tempo = 1, pitch = 0, loop = null }) {
    const same = this.track?.id === track.id;
    const position = same ? this.position : 0;
    const playing = same && this.playing;
    this.pause();
    this.#closeContext();
    Object.assign(this, { track, mix, tempo, pitch, loop, original: false });
    this.#position = position;
    this.#clearChunks();
    if (playing) this.play();
    this.#notify();
  }

  /** Take the track's new state from the server; its stems must not have changed. */
  update(track) {
    this.track = track;
    if (isStopped(track) && this.state === "waiting") this.pause(); // what it waits for will not come
    else if (this.playing && !this.#scheduler) this.#start();
    else this.#fillBuffer();
  }

  /** The frame that can be heard now. */
  get position() {
    if (!this.#scheduler) return this.#position;
    const latency = OUTPUT_LATENCY_HANGS ? 0 : this.#context.outputLatency || 0;
    const time = this.#context.currentTime - latency;
    return Math.min(lengthOf(this.track), Math.round(this.#scheduler.frameAt(time) * this.tempo));
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
    if (this.#isOutsideLoop(this.#position)) this.#position = this.loop.from;
    this.state = "waiting";
    this.#start();
    this.#notify();
  }

  pause() {
    if (!this.playing) return;
    this.#position = this.position;
    this.#stopScheduler();
    clearInterval(this.#timer);
    this.#timer = setTimeout(() => this.#context?.suspend(), SUSPEND_DELAY);
    this.state = "paused";
    this.#notify();
  }

  /** Go to a frame; playback continues from there. */
  seek(frame) {
    this.#position = Math.max(0, Math.min(lengthOf(this.track), Math.round(frame)));
    if (this.#scheduler) this.#restartAt(this.#position);
    this.#notify();
  }

  setLoop(loop) {
    const shortest = MIN_LOOP * this.track.sample_rate;
    this.loop = loop && loop.to - loop.from >= shortest ? loop : null;
    if (this.#isOutsideLoop(this.position)) this.seek(this.loop.from);
    else if (this.#scheduler) this.#reschedule();
    this.#notify();
  }

  #isOutsideLoop(position) {
    return Boolean(this.loop?.on) && (position < this.loop.from || position >= this.loop.to);
  }

  /** Go to the start of the loop or, without one, of the track. */
  toStart() {
    this.seek(this.loop?.on ? this.loop.from : 0);
  }

  setStretch(tempo, pitch) {
    if (tempo === this.tempo && pitch === this.pitch) return;
    const position = this.position;
    Object.assign(this, { tempo, pitch });
    this.#clearChunks();
    if (this.#scheduler) this.#restartAt(position);
    this.#notify();
  }

  setMix(mix, { original = this.original } = {}) {
    this.mix = mix;
    this.original = original;
    this.#applyMix(true);
    this.#notify();
  }

  /** Take the song's beat; clicks begin or end with it, also while the song plays. */
  setBeat(beat) {
    const changed = Boolean(beat?.click || this.beat?.click) && beat !== this.beat;
    this.beat = beat;
    if (changed && this.#scheduler && !this.#countInPending) this.#reschedule();
  }

  setVolume(volume) {
    this.volume = volume;
    this.mixer?.setVolume(volume);
    this.#notify();
  }

  #applyMix(smooth) {
    const original = this.original || this.track.stems.length === 0;
    const gain = original ? this.loudness.matchingGain(this.mix, this.track.stems) : null;
    this.mixer?.set(this.mix, { original: gain, smooth });
  }

  #notify() {
    this.dispatchEvent(new Event("change"));
  }

  /** Start to play, if the track's sample rate and stems are known; else `update` does. */
  #start() {
    const { sample_rate: rate, stems, state } = this.track;
    if (!rate || (stems.length === 0 && PROCESSING.has(state))) return;
    clearTimeout(this.#timer);
    this.#openContext();
    this.#context.resume();
    this.#timer = setInterval(() => this.#fillBuffer(), TICK);
    this.#countInPending = Boolean(this.beat?.countIn);
    this.#restartAt(this.#position);
  }

  /** Schedule the count-in to a frame; returns when the music starts, on the context's clock. */
  #countIn(frame) {
    const { clicks, length } = countIn(this.beat, (frame * this.tempo) / this.track.sample_rate);
    const start = this.#context.currentTime + LEAD;
    this.#scheduleClicks(clicks, start);
    return start + length / this.tempo;
  }

  #scheduleClicks(clicks, start) {
    this.#clicks.push(scheduleClicks(this.#context, this.mixer.output, clicks, start, this.tempo));
  }

  #openContext() {
    if (this.#context) return;
    const sampleRate = this.track.sample_rate;
    try {
      this.#context = new AudioContext({ sampleRate, latencyHint: "playback" });
    } catch {
      this.#context = new AudioContext(); // the rate is not supported: the browser resamples
    }
    this.#context.onstatechange = () => {
      if (this.#context?.state === "interrupted") this.pause(); // by a phone call
    };
    this.mixer = new Mixer(this.#context, this.track.stems);
    this.mixer.setVolume(this.volume, { smooth: false });
    this.#applyMix(false);
  }

  #closeContext() {
    clearTimeout(this.#timer);
    this.#context?.close();
    this.#context = null;
    this.mixer = null;
  }

  #clearChunks() {
    this.#chunks.clear();
    this.loudness.reset();
  }

  #restartAt(position) {
    this.#stopScheduler();
    this.#scheduleFrom(Math.round(position / this.tempo));
    this.#notify();
  }

  /** Schedule everything again from what plays now, which crossfades into itself. */
  #reschedule() {
    const next = this.#scheduler.frameAt(this.#context.currentTime + LEAD);
    this.#stopScheduler(LEAD);
    this.#scheduleFrom(next);
  }

  #scheduleFrom(next) {
    this.#scheduler = new Scheduler(this.#context, this.mixer, this.track.sample_rate, next);
    this.#seekRequest = null;
    this.#fillBuffer();
  }

  #stopScheduler(delay = 0) {
    this.#fetching?.abort();
    this.#fetching = null;
    for (const stop of this.#clicks) stop();
    this.#clicks = [];
    this.#scheduler?.stop(delay);
    this.#scheduler = null;
  }

  /** Schedule chunks until enough is scheduled ahead, or no more is available. */
  async #fillBuffer() {
    const scheduler = this.#scheduler;
    if (!scheduler || this.#fetching) return;
    const fetching = (this.#fetching = new AbortController());
    try {
      while (scheduler.buffered < LOOKAHEAD && !this.#isPastEnd(scheduler.next)) {
        const chunk = await this.#readChunk(scheduler, fetching.signal);
        if (this.#scheduler !== scheduler) return;
        if (!chunk) break;
        this.#scheduleChunk(scheduler, chunk);
      }
    } catch (error) {
      const retryable = error.name === "AbortError" || error.status === 0; // by the next tick
      if (this.#scheduler === scheduler && !retryable) {
        this.pause();
        this.dispatchEvent(new CustomEvent("failure", { detail: error }));
      }
    } finally {
      if (this.#fetching === fetching) this.#fetching = null;
    }
    if (this.#scheduler === scheduler) this.#updateState(scheduler);
  }

  /** Switch between playing and waiting, or pause at the end of the track. */
  #updateState(scheduler) {
    if (scheduler.buffered === 0 && this.#isPastEnd(scheduler.next)) {
      this.pause();
      this.seek(lengthOf(this.track));
    } else if (scheduler.buffered === 0 && this.#isStuck(scheduler.next)) {
      this.pause();
    }
    const state = !this.playing ? "paused" : scheduler.buffered > 0 ? "playing" : "waiting";
    if (state === this.state) return;
    this.state = state;
    this.#notify();
  }

  #isPastEnd(next) {
    return this.track.frames !== null && next >= Math.floor(this.track.frames / this.tempo);
  }

  /** Whether the part from a frame on is not separated, and will not be. */
  #isStuck(next) {
    return isStopped(this.track) && !this.#chunks.isAvailable(this.track, { from: next, tempo: this.tempo });
  }

  /** Return the next chunk; null if it is not separated yet. */
  async #readChunk(scheduler, signal) {
    const { track, tempo, pitch } = this;
    const allowShort = scheduler.buffered <= LOW_BUFFER;
    const options = { from: scheduler.next, tempo, pitch };
    if (allowShort && !this.#chunks.isAvailable(track, options)) {
      this.#requestSeparation(Math.round(scheduler.next * tempo));
    }
    const chunk = await this.#chunks.read(track, { ...options, allowShort, signal });
    if (chunk?.frames !== 0) return chunk;
    scheduler.next = Infinity; // the stretched track is shorter than expected, by rounding
    return null;
  }

  /** Ask the server, once, to separate from a frame next; at the end of a range only if it stalls. */
  #requestSeparation(frame) {
    if (!PROCESSING.has(this.track.state)) return;
    if (this.#seekRequest?.frame !== frame) {
      this.#seekRequest = { frame, since: performance.now(), sent: false };
    }
    const atRangeEnd = this.track.ranges.some(([, to]) => Math.abs(to - frame) < SEAM);
    const delay = atRangeEnd ? SEEK_DELAY : 0;
    if (this.#seekRequest.sent || performance.now() - this.#seekRequest.since < delay) return;
    const request = this.#seekRequest;
    request.sent = true;
    this.#api.seek(this.track.id, frame).catch((error) => {
      if (error.status === 0) request.sent = false; // the server did not receive it
    });
  }

  /** Schedule a chunk, cut where the loop ends. */
  #scheduleChunk(scheduler, { from, frames, samples }) {
    const channels = this.mixer.channels;
    const loopEnd = this.loop?.on ? Math.round(this.loop.to / this.tempo) : -Infinity;
    const jumps = from < loopEnd && from + frames >= loopEnd;
    const played = jumps ? samples.subarray(0, (loopEnd - from) * channels) : samples;
    const fadeIn = scheduler.jumped;
    scheduler.jumped = jumps;
    if (this.#countInPending && this.beat) scheduler.end = this.#countIn(from); // now that the music is here
    this.#countInPending = false;
    scheduler.next = jumps ? Math.round(this.loop.from / this.tempo) : from + frames;
    const start = scheduler.schedule(played, channels, {
      frame: from,
      fadeIn,
      fadeOut: jumps,
      onEnded: () => this.#fillBuffer(),
    });
    if (this.beat?.click) {
      const seconds = (frame) => (frame * this.tempo) / this.track.sample_rate;
      const end = from + played.length / channels;
      this.#scheduleClicks(clicksBetween(this.beat, seconds(from), seconds(end)), start);
    }
    this.loudness.add(played, channels);
    if (this.original) this.#applyMix(true);
  }
}
