/** How loud the mix is beside the original, so that comparing them is fair. */

import { gainsOf } from "./mixer.js";

const STEP = 8; // every eighth sample is enough for a level
const MEMORY = 0.8; // share of the past that each new piece keeps
const RANGE = [0.02, 4]; // the original's gain stays within

/**
 * Keeps the products of all pairs of channels of what was played lately. The energy of any mix
 * follows from them, so a new mix has its loudness at once.
 */
export class Loudness {
  #products = null; // per side: (stems + 1) x (stems + 1)

  reset() {
    this.#products = null;
  }

  /** Take in a piece of interleaved samples. */
  hear(samples, channels) {
    const count = channels / 2;
    const products = this.#products ?? [0, 1].map(() => new Float64Array(count * count));
    for (const side of [0, 1]) {
      const sums = products[side].map((value) => MEMORY * value);
      for (let frame = 0; frame < samples.length; frame += STEP * channels) {
        for (let a = 0; a < count; a++) {
          const first = samples[frame + 2 * a + side] / 32768;
          for (let b = a; b < count; b++) {
            sums[a * count + b] += first * (samples[frame + 2 * b + side] / 32768);
          }
        }
      }
      products[side] = sums;
    }
    this.#products = products;
  }

  /** Return the gain with which the original is as loud as the mix. */
  matching(mix, stems) {
    if (!this.#products) return 1;
    const count = stems.length + 1;
    const gains = gainsOf(mix, stems);
    let mixed = 0;
    let original = 0;
    for (const side of [0, 1]) {
      const products = this.#products[side];
      original += products[count * count - 1];
      for (let a = 0; a < stems.length; a++) {
        for (let b = a; b < stems.length; b++) {
          const product = gains[a][side] * gains[b][side] * products[a * count + b];
          mixed += a === b ? product : 2 * product;
        }
      }
    }
    if (original <= 0 || mixed <= 0) return 1;
    return Math.min(RANGE[1], Math.max(RANGE[0], Math.sqrt(mixed / original)));
  }
}
