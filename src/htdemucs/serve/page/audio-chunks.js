/** Pieces of a track's sound from the server; the latest are kept, so that loops ask only once. */

import { hearable } from "./tracks.js";

const PIECE = 32_768; // frames of one request, at most one and a half times as many
const KEPT = 12; // pieces
const ROUNDING = 3; // frames that a stretched track may lack at its end

/** Return how many frames can be heard from a place of the stretched time line on, and the last. */
function ready(track, from, tempo) {
  const source = Math.round(from * tempo);
  const frames = Math.floor(hearable(track, source) / tempo);
  const end = source + frames * tempo;
  return { frames, ended: track.frames !== null && end >= track.frames - ROUNDING };
}

export class Pieces {
  #server;
  #kept = []; // {from, frames, samples}, all of one track, tempo and pitch

  constructor(server) {
    this.#server = server;
  }

  clear() {
    this.#kept = [];
  }

  /** Tell whether nothing can be heard from here on yet. */
  lacks = (track, { from, tempo }) => ready(track, from, tempo).frames === 0;

  /**
   * Return {from, frames, samples} from a frame on; null if there is nothing yet.
   *
   * Who is `patient` gets no piece that is shorter than need be. At the end it has no frames.
   */
  async read(track, { from, tempo, pitch, patient, signal }) {
    const kept = this.#kept.find((piece) => piece.from <= from && from < piece.from + piece.frames);
    if (kept) {
      const channels = kept.samples.length / kept.frames;
      const samples = kept.samples.subarray((from - kept.from) * channels);
      return { from, frames: samples.length / channels, samples };
    }
    const frames = (from % PIECE > PIECE / 2 ? 2 : 1) * PIECE - (from % PIECE);
    const there = ready(track, from, tempo);
    if (there.frames === 0 && !there.ended) return null;
    if (there.frames < frames && !there.ended && patient) return null;
    const list = this.#kept;
    const answer = await this.#server.pcm(track, { from, frames, tempo, pitch, signal });
    if (!answer?.frames) return there.ended ? { from, frames: 0 } : null;
    const piece = { from, ...answer };
    if (list === this.#kept) this.#kept = [...list.slice(1 - KEPT), piece];
    return piece;
  }
}
