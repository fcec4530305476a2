/** Chunks of a track's samples from the server; recent ones are cached, so a loop is fetched once. */

import { separatedFrames } from "./tracks.js";

const CHUNK = 32_768; // frames of a request; at most one and a half times as many
const CACHE_SIZE = 12; // chunks
const ROUNDING = 3; // frames by which a stretched track may be shorter than expected

/** Return how many frames of the stretched track are available from `from`, and whether it ends there. */
function available(track, from, tempo) {
  const source = Math.round(from * tempo);
  const frames = Math.floor(separatedFrames(track, source) / tempo);
  const end = source + frames * tempo;
  return { frames, ended: track.frames !== null && end >= track.frames - ROUNDING };
}

export class AudioChunks {
  #api;
  #cache = []; // {from, frames, samples}, all of one track, tempo and pitch

  constructor(api) {
    this.#api = api;
  }

  clear() {
    this.#cache = [];
  }

  isAvailable = (track, { from, tempo }) => available(track, from, tempo).frames > 0;

  /**
   * Return {from, frames, samples}; null if the frame `from` is not separated yet.
   *
   * Without `allowShort`, also null while the chunk is not complete. At the track's end, `frames`
   * is 0.
   */
  async read(track, { from, tempo, pitch, allowShort, signal }) {
    const cached = this.#cache.find((chunk) => chunk.from <= from && from < chunk.from + chunk.frames);
    if (cached) {
      const channels = cached.samples.length / cached.frames;
      const samples = cached.samples.subarray((from - cached.from) * channels);
      return { from, frames: samples.length / channels, samples };
    }
    const frames = (from % CHUNK > CHUNK / 2 ? 2 : 1) * CHUNK - (from % CHUNK);
    const ready = available(track, from, tempo);
    if (ready.frames === 0 && !ready.ended) return null;
    if (ready.frames < frames && !ready.ended && !allowShort) return null;
    const cache = this.#cache;
    const response = await this.#api.pcm(track, { from, frames, tempo, pitch, signal });
    if (!response?.frames) {
      // Otherwise the server has just deleted the preview, and builds it again.
      const isEnd = ready.ended && ready.frames <= ROUNDING;
      return isEnd ? { from, frames: 0 } : null;
    }
    const chunk = { from, ...response };
    if (cache === this.#cache) this.#cache = [...cache.slice(1 - CACHE_SIZE), chunk]; // not cleared since
    return chunk;
  }
}
