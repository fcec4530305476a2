/** What lanes are drawn from: peaks and spectrograms, fetched as far as the track is separated. */

const COLUMN = 1024; // frames
const BANDS = 96;
const REQUEST = 4096; // columns
const TILE = 512; // columns of a spectrogram's tile
const TILES = 96; // tiles kept

export class Pictures extends EventTarget {
  peaks = new Int8Array(0); // [column][stem..., original][min, max]
  known = new Uint8Array(0); // 1 for each column whose peaks are here

  #server; // peaks(id, from, columns), spectrogram(id, stem, from, columns)
  #track;
  #fetching = false;
  #tiles = new Map(); // "stem:index" -> canvas, or null while it is fetched

  constructor(server, track) {
    super();
    this.#server = server;
    this.update(track);
  }

  /** Take what the server newly says of the track, and fetch what became known. */
  update(track) {
    this.#track = track;
    this.rows = track.stems.length + 1;
    const columns = Math.ceil(Math.max(track.frames ?? 0, ...track.ranges.map(([, to]) => to)) / COLUMN);
    if (columns > this.known.length) {
      const peaks = new Int8Array(2 * this.rows * columns);
      const known = new Uint8Array(columns);
      peaks.set(this.peaks);
      known.set(this.known);
      Object.assign(this, { peaks, known });
    }
    this.#fetch();
  }

  /** Return [first, end) of the columns of a range that are whole. */
  #columns([from, to]) {
    const last = this.#track.frames !== null && to >= this.#track.frames;
    return [Math.ceil(from / COLUMN), last ? Math.ceil(to / COLUMN) : Math.floor(to / COLUMN)];
  }

  #missing() {
    for (const [first, end] of this.#track.ranges.map((range) => this.#columns(range))) {
      let from = first;
      while (from < end && this.known[from]) from += 1;
      let to = from;
      while (to < end && !this.known[to] && to - from < REQUEST) to += 1;
      if (to > from) return [from, to];
    }
    return null;
  }

  async #fetch() {
    if (this.#fetching) return;
    this.#fetching = true;
    try {
      for (let missing = this.#missing(); missing; missing = this.#missing()) {
        const [from, to] = missing;
        const peaks = await this.#server.peaks(this.#track.id, from, to - from);
        const columns = Math.min(to - from, Math.floor(peaks.length / (2 * this.rows)));
        if (columns === 0) break;
        this.peaks.set(peaks.subarray(0, 2 * this.rows * columns), 2 * this.rows * from);
        this.known.fill(1, from, from + columns);
        this.dispatchEvent(new Event("change"));
      }
    } catch {
      // the next update tries again
    } finally {
      this.#fetching = false;
    }
  }

  /** Return [min, max] of a row between two frames, or null where that is not separated yet. */
  extent(row, from, to) {
    const first = Math.floor(from / COLUMN);
    const end = Math.max(first + 1, Math.ceil(to / COLUMN));
    let low = 127;
    let high = -128;
    for (let column = first; column < end; column++) {
      if (!this.known[column]) continue;
      const at = 2 * (this.rows * column + row);
      if (this.peaks[at] < low) low = this.peaks[at];
      if (this.peaks[at + 1] > high) high = this.peaks[at + 1];
    }
    return high < low ? null : [low / 128, high / 128];
  }

  /** Draw a stem's spectrogram between two frames onto a canvas, in a colour [r, g, b]. */
  drawSpectrogram(pen, stem, from, span, width, height, colour) {
    const scale = width / span;
    const tile = TILE * COLUMN;
    for (let index = Math.floor(from / tile); index * tile < from + span; index++) {
      const image = this.#tile(stem, index, colour);
      if (!image) continue;
      const x = (index * tile - from) * scale;
      pen.drawImage(image, 0, 0, TILE, BANDS, x, 0, tile * scale, height);
    }
  }

  #tile(stem, index, colour) {
    const ready = this.known.subarray(index * TILE, (index + 1) * TILE);
    const filled = ready.reduce((sum, value) => sum + value, 0);
    const key = `${stem}:${index}:${filled}:${colour}`;
    const tile = this.#tiles.get(key);
    if (tile !== undefined || filled === 0) return tile;
    this.#tiles.set(key, null);
    if (this.#tiles.size > TILES) this.#tiles.delete(this.#tiles.keys().next().value);
    this.#server
      .spectrogram(this.#track.id, stem, index * TILE, TILE)
      .then((levels) => {
        this.#tiles.set(key, toImage(levels, colour));
        this.dispatchEvent(new Event("change"));
      })
      .catch(() => this.#tiles.delete(key));
    return null;
  }
}

/** Return levels [column][band] as a picture: low bands at the bottom, louder is more opaque. */
function toImage(levels, [red, green, blue]) {
  const canvas = document.createElement("canvas");
  canvas.width = TILE;
  canvas.height = BANDS;
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(TILE, BANDS);
  const columns = Math.min(TILE, Math.floor(levels.length / BANDS));
  for (let column = 0; column < columns; column++) {
    for (let band = 0; band < BANDS; band++) {
      const level = levels[column * BANDS + band] / 255;
      const at = 4 * ((BANDS - 1 - band) * TILE + column);
      image.data.set([red, green, blue, 255 * level * level], at);
    }
  }
  pen.putImageData(image, 0, 0);
  return canvas;
}
