/** Schedules chunks end to end on an AudioContext's clock. */

import { createMultichannelGain, toBuffer } from "./mixer.js";

const FADE = 0.02; // seconds of fading where sound begins or ends
export const LEAD = 0.05; // seconds from scheduling the first chunk to its sound
const MAX_LATENCY = 2; // seconds that an output, even a wireless one, may lag behind the clock
const SEAM = 0.004; // seconds of fading on each side where a loop jumps back

export class Scheduler {
  #context;
  #sampleRate;
  #envelope; // fades in where sound begins, and out where no chunk follows
  #output; // fades out when the scheduler is stopped
  #chunks = []; // {start, end, frame, frames, source}; start and end in seconds of the clock
  #fadeOutStart = 0; // seconds of the clock, when #envelope will fade out

  end = 0; // when the last chunk ends or the first may start, in seconds of the clock
  jumped = false; // whether the last chunk ended in a jump to the start of the loop

  /** `next` is the frame to schedule next. */
  constructor(context, mixer, sampleRate, next) {
    this.#context = context;
    this.#sampleRate = sampleRate;
    this.next = next;
    this.first = next;
    this.#envelope = createMultichannelGain(context, mixer.channels);
    this.#output = createMultichannelGain(context, mixer.channels);
    this.#envelope.gain.value = 0;
    this.#envelope.connect(this.#output).connect(mixer.input);
  }

  /** Seconds of sound that are scheduled and have not been played. */
  get buffered() {
    return Math.max(0, this.end - this.#context.currentTime);
  }

  /**
   * Schedule a chunk after the last one, or as soon as possible if that has ended; returns when it
   * starts, in seconds of the clock.
   */
  schedule(samples, channels, { frame, fadeIn, fadeOut, onEnded }) {
    const buffer = toBuffer(this.#context, samples, channels, this.#sampleRate);
    fadeEnds(buffer, fadeIn, fadeOut);
    const now = this.#context.currentTime;
    const envelope = this.#envelope.gain;
    let start = this.end;
    let fadedIn = start;
    if (this.#fadeOutStart > now + LEAD / 2) {
      envelope.cancelScheduledValues(this.#fadeOutStart);
    } else {
      start = Math.max(this.end, Math.ceil((now + LEAD) * this.#sampleRate) / this.#sampleRate);
      fadedIn = start + FADE;
      envelope.setValueAtTime(0, start);
      envelope.linearRampToValueAtTime(1, fadedIn);
    }
    this.end = start + buffer.length / this.#sampleRate;
    this.#fadeOutStart = Math.max(fadedIn, this.end - FADE);
    envelope.setValueAtTime(1, this.#fadeOutStart);
    envelope.linearRampToValueAtTime(0, Math.max(this.end, this.#fadeOutStart + 0.001));
    const source = new AudioBufferSourceNode(this.#context, { buffer });
    source.connect(this.#envelope);
    source.start(start);
    source.onended = () => {
      source.disconnect();
      onEnded();
    };
    this.#chunks = this.#chunks.filter(({ end }) => end > now - MAX_LATENCY);
    this.#chunks.push({ start, end: this.end, frame, frames: buffer.length, source });
    return start;
  }

  /** Return the frame that plays at a time of the clock. */
  frameAt(time) {
    let current = null;
    for (const chunk of this.#chunks) if (!current || chunk.start <= time) current = chunk;
    if (!current) return this.first;
    const played = Math.floor((time - current.start) * this.#sampleRate);
    return current.frame + Math.min(current.frames, Math.max(0, played));
  }

  /** Fade out after a number of seconds, and release everything. */
  stop(delay) {
    const time = this.#context.currentTime + delay;
    this.#output.gain.setValueAtTime(1, time);
    this.#output.gain.linearRampToValueAtTime(0, time + FADE);
    for (const { source } of this.#chunks) {
      source.onended = null;
      source.stop(time + FADE);
    }
    setTimeout(() => this.#output.disconnect(), 1000 * (delay + FADE + 0.2));
  }
}

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
