/** Peaks and spectrograms of a track, fetched as far as it is separated, and cached. */

export const COLUMN = 1024; // frames of a column
const BANDS = 96; // of a spectrogram
const REQUEST = 4096; // columns in a request of peaks
const MAX_LEVEL = 10; // zoom level of a spectrogram: the server combines up to 2 ** 10 columns
const TILE = 512; // pixels of a spectrogram's tile
const CACHE_SIZE = 64; // tiles
const [QUIET, LOUD] = [0.15, 0.8]; // where colour begins and ends: -76 and -18 dB
const CURVE = 1.3; // exponent of the opacity, which makes quiet parts a little paler

export class ImageCache extends EventTarget {
  peaks = new Int8Array(0); // [column][stem..., original][min, max]
  loaded = new Uint8Array(0); // 1 for each column whose peaks are here

  #api; // peaks(id, from, columns), spectrogram(id, stem, from, columns, step)
  #track;
  #rows; // stems, plus the original
  #fetchingPeaks = false;
  #decodeRequested = false;
  #tiles = new Map(); // key -> {columns: loaded when it was requested, image}; least recent first
  #tileQueue = []; // tiles to fetch; the last is the next
  #fetchingTiles = false;

  constructor(api, track) {
    super();
    this.#api = api;
    this.update(track);
  }

  /** Take the track's new state from the server, and fetch the peaks of what has been separated. */
  update(track) {
    this.#track = track;
    for (const [key, { failed }] of this.#tiles) if (failed) this.#tiles.delete(key);
    this.#rows = track.stems.length + 1;
    const columns = Math.ceil(Math.max(track.frames ?? 0, ...track.ranges.map(([, to]) => to)) / COLUMN);
    if (columns > this.loaded.length) {
      const peaks = new Int8Array(2 * this.#rows * columns);
      const loaded = new Uint8Array(columns);
      peaks.set(this.peaks);
      loaded.set(this.loaded);
      Object.assign(this, { peaks, loaded });
    }
    if (track.ranges.length > 0) {
      this.#decodeRequested = false;
    } else if (["finished", "unseparated"].includes(track.state) && !this.#decodeRequested) {
      this.#decodeRequested = true; // a request for peaks makes the server decode the files
      this.#api.peaks(track.id, 0, 1).catch(() => (this.#decodeRequested = false));
    }
    this.#fetchPeaks();
  }

  async #fetchPeaks() {
    if (this.#fetchingPeaks) return;
    this.#fetchingPeaks = true;
    try {
      for (let missing = this.#missingColumns(); missing; missing = this.#missingColumns()) {
        const [from, to] = missing;
        const peaks = await this.#api.peaks(this.#track.id, from, to - from);
        const columns = Math.min(to - from, Math.floor(peaks.length / (2 * this.#rows)));
        if (columns === 0) break;
        this.peaks.set(peaks.subarray(0, 2 * this.#rows * columns), 2 * this.#rows * from);
        this.loaded.fill(1, from, from + columns);
        this.dispatchEvent(new Event("change"));
      }
    } catch {
      // the next update tries again
    } finally {
      this.#fetchingPeaks = false;
    }
  }

  /** Return [first, end) of the first complete columns to fetch; null if all are loaded. */
  #missingColumns() {
    const { frames, ranges } = this.#track;
    for (const [first, last] of ranges) {
      const isEnd = frames !== null && last >= frames;
      const end = isEnd ? Math.ceil(last / COLUMN) : Math.floor(last / COLUMN);
      let from = Math.ceil(first / COLUMN);
      while (from < end && this.loaded[from]) from += 1;
      let to = from;
      while (to < end && !this.loaded[to] && to - from < REQUEST) to += 1;
      if (to > from) return [from, to];
    }
    return null;
  }

  /** Return [min, max] of a row between two frames, or null if nothing of that is loaded. */
  extent(row, from, to) {
    const first = Math.floor(from / COLUMN);
    const end = Math.max(first + 1, Math.ceil(to / COLUMN));
    let min = 127;
    let max = -128;
    for (let column = first; column < end; column++) {
      if (!this.loaded[column]) continue;
      const i = 2 * (this.#rows * column + row);
      if (this.peaks[i] < min) min = this.peaks[i];
      if (this.peaks[i + 1] > max) max = this.peaks[i + 1];
    }
    return max < min ? null : [min / 128, max / 128];
  }

  /**
   * Draw a stem's spectrogram, as far as it is loaded, in a colour [r, g, b]; fetch the rest.
   *
   * Returns whether a part is still loading.
   */
  drawSpectrogram(context, stem, from, span, width, height, colour) {
    const scale = width / span;
    const level = Math.min(MAX_LEVEL, Math.max(0, Math.floor(Math.log2(span / COLUMN / width))));
    const tileFrames = TILE * COLUMN * 2 ** level;
    let loading = false;
    for (let index = Math.floor(from / tileFrames); index * tileFrames < from + span; index++) {
      const { image, columns, failed } = this.#tile(stem, index, level, colour);
      loading ||= !image && columns > 0 && !failed;
      if (!image) continue;
      const x = (index * tileFrames - from) * scale;
      context.drawImage(image, 0, 0, TILE, BANDS, x, 0, tileFrames * scale, height);
    }
    return loading;
  }

  /**
   * Return a tile, {columns, image}. Each of its TILE pixels is the maximum of 2 ** level columns.
   *
   * `image` is null until it is loaded. The tile is fetched (again) if more of its columns have been separated.
   */
  #tile(stem, index, level, colour) {
    const size = TILE * 2 ** level;
    const columns = this.loaded
      .subarray(index * size, (index + 1) * size)
      .reduce((sum, value) => sum + value, 0);
    const key = `${stem}:${index}:${level}:${colour}`;
    let tile = this.#tiles.get(key) ?? { columns: 0, image: null };
    if (columns > tile.columns) {
      tile = { ...tile, columns };
      this.#tiles.delete(key);
      this.#tiles.set(key, tile);
      if (this.#tiles.size > CACHE_SIZE) this.#tiles.delete(this.#tiles.keys().next().value);
      this.#tileQueue.push({ key, stem, from: index * TILE, step: 2 ** level, colour });
      this.#fetchTiles();
    }
    return tile;
  }

  /** Fetch the queued tiles one at a time, which leaves connections for the sound. */
  async #fetchTiles() {
    if (this.#fetchingTiles) return;
    this.#fetchingTiles = true;
    for (let next = this.#tileQueue.pop(); next; next = this.#tileQueue.pop()) {
      const { key, stem, from, step, colour } = next;
      try {
        const levels = await this.#api.spectrogram(this.#track.id, stem, from, TILE, step);
        const tile = this.#tiles.get(key);
        if (tile) tile.image = toImage(levels, colour);
      } catch {
        const tile = this.#tiles.get(key);
        if (tile) tile.failed = true; // the next update tries again
      }
      this.dispatchEvent(new Event("change"));
    }
    this.#fetchingTiles = false;
  }
}

/** Return levels [column][band] as an image: low bands at the bottom, loud parts opaque. */
function toImage(levels, [red, green, blue]) {
  const canvas = document.createElement("canvas");
  canvas.width = TILE;
  canvas.height = BANDS;
  const context = canvas.getContext("2d");
  const image = context.createImageData(TILE, BANDS);
  for (let x = 0; x < levels.length / BANDS; x++) {
    for (let band = 0; band < BANDS; band++) {
      const level = (levels[x * BANDS + band] / 255 - QUIET) / (LOUD - QUIET);
      const opacity = 255 * Math.min(1, Math.max(0, level)) ** CURVE;
      image.data.set([red, green, blue, opacity], 4 * ((BANDS - 1 - band) * TILE + x));
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}
