/** One unbroken run of sound: pieces placed end to end on the context's clock. */

import { toBuffer, wideGain } from "./mixer.js";

const RAMP = 0.02; // seconds of fading where sound begins or ends
export const LEAD = 0.05; // seconds between placing a first piece and hearing it
const LATEST = 2; // seconds that a loudspeaker, even a wireless one, may lag behind the clock
const SEAM = 0.004; // seconds of fading on each side where a loop jumps back

function fadeEnds(buffer, fadeIn, fadeOut) {
  const length = Math.min(buffer.length, Math.round(SEAM * buffer.sampleRate));
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    const data = buffer.getChannelData(channel);
    for (let i = 0; i < length; i++) {
      if (fadeIn) data[i] *= i / length;
      if (fadeOut) data[data.length - 1 - i] *= i / length;
    }
  }
}

export class Run {
  #context;
  #rate;
  #edge; // ramps where sound begins, and where it ends unless another piece comes
  #out; // ramps to silence when the run is left
  #pieces = []; // {time, end, frame, frames, source}, in order of time
  #fall = 0; // when the ramp to silence begins

  end = 0; // when the last piece ends; 0 before the first

  /** `next` is the frame that is to be placed next. */
  constructor(context, mixer, rate, next) {
    this.#context = context;
    this.#rate = rate;
    this.next = next;
    this.first = next;
    this.#edge = wideGain(context, mixer.channels);
    this.#out = wideGain(context, mixer.channels);
    this.#edge.gain.value = 0;
    this.#edge.connect(this.#out).connect(mixer.input);
  }

  /** Seconds of sound that are placed and not yet heard. */
  get ahead() {
    return Math.max(0, this.end - this.#context.currentTime);
  }

  /** Place a piece behind the last one, or soon if that is over. */
  place(samples, channels, { frame, fadeIn, fadeOut, ended }) {
    const buffer = toBuffer(this.#context, samples, channels, this.#rate);
    fadeEnds(buffer, fadeIn, fadeOut);
    const now = this.#context.currentTime;
    const edge = this.#edge.gain;
    let start = this.end;
    let rise = start;
    if (this.#fall > now + LEAD / 2) {
      edge.cancelScheduledValues(this.#fall);
    } else {
      start = Math.max(this.end, Math.ceil((now + LEAD) * this.#rate) / this.#rate);
      rise = start + RAMP;
      edge.setValueAtTime(0, start);
      edge.linearRampToValueAtTime(1, rise);
    }
    this.end = start + buffer.length / this.#rate;
    this.#fall = Math.max(rise, this.end - RAMP);
    edge.setValueAtTime(1, this.#fall);
    edge.linearRampToValueAtTime(0, Math.max(this.end, this.#fall + 0.001));
    const source = new AudioBufferSourceNode(this.#context, { buffer });
    source.connect(this.#edge);
    source.start(start);
    source.onended = () => {
      source.disconnect();
      ended();
    };
    this.#pieces = this.#pieces.filter(({ end }) => end > now - LATEST);
    this.#pieces.push({ time: start, end: this.end, frame, frames: buffer.length, source });
  }

  /** Return the frame that is heard at a time of the context's clock. */
  frameAt(time) {
    let current = null;
    for (const piece of this.#pieces) if (!current || piece.time <= time) current = piece;
    if (!current) return this.first;
    const passed = Math.floor((time - current.time) * this.#rate);
    return current.frame + Math.min(current.frames, Math.max(0, passed));
  }

  /** Fade to silence, in a number of seconds, and let everything go. */
  leave(later) {
    const now = this.#context.currentTime + later;
    this.#out.gain.setValueAtTime(1, now);
    this.#out.gain.linearRampToValueAtTime(0, now + RAMP);
    for (const { source } of this.#pieces) {
      source.onended = null;
      source.stop(now + RAMP);
    }
    setTimeout(() => this.#out.disconnect(), 1000 * (later + RAMP + 0.2));
  }
}
