/** The gain at which the original is as loud as the mix, so that comparing them is fair. */

import { stemGains } from "./mixer.js";

const STEP = 8; // every eighth sample is enough for a level
const DECAY = 0.8; // weight of the past when a chunk is added
const GAIN_RANGE = [0.02, 4];

/**
 * Keeps the products of all pairs of channels, averaged over the chunks played recently. The energy
 * of any mix follows from them, so a new mix has its loudness immediately.
 */
export class Loudness {
  #products = null; // of each side: (stems + 1) x (stems + 1)

  reset() {
    this.#products = null;
  }

  /** Add a chunk of interleaved samples. */
  add(samples, channels) {
    const count = channels / 2;
    const products = this.#products ?? [0, 1].map(() => new Float64Array(count * count));
    for (const side of [0, 1]) {
      const sums = products[side].map((value) => DECAY * value);
      for (let i = 0; i < samples.length; i += STEP * channels) {
        for (let a = 0; a < count; a++) {
          const first = samples[i + 2 * a + side] / 32768;
          for (let b = a; b < count; b++) {
            sums[a * count + b] += first * (samples[i + 2 * b + side] / 32768);
          }
        }
      }
      products[side] = sums;
    }
    this.#products = products;
  }

  /** Return the gain at which the original is as loud as the mix. */
  matchingGain(mix, stems) {
    if (!this.#products) return 1;
    const count = stems.length + 1;
    const gains = stemGains(mix, stems);
    let mixEnergy = 0;
    let originalEnergy = 0;
    for (const side of [0, 1]) {
      const products = this.#products[side];
      originalEnergy += products[count * count - 1];
      for (let a = 0; a < stems.length; a++) {
        for (let b = a; b < stems.length; b++) {
          const product = gains[a][side] * gains[b][side] * products[a * count + b];
          mixEnergy += a === b ? product : 2 * product;
        }
      }
    }
    if (originalEnergy <= 0 || mixEnergy <= 0) return 1;
    const [min, max] = GAIN_RANGE;
    return Math.min(max, Math.max(min, Math.sqrt(mixEnergy / originalEnergy)));
  }
}
