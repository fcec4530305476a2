/** What lanes are drawn from: peaks and spectrograms, fetched as far as the track is separated. */

const COLUMN = 1024; // frames
const BANDS = 96;
const REQUEST = 4096; // columns
const DEEPEST = 10; // the server joins up to 2 ** 10 columns
const TILE = 512; // pixels of a spectrogram's tile
const TILES = 64; // tiles kept
const [QUIET, LOUD] = [0.15, 0.8]; // levels of a spectrogram, -76 and -18 dB, where colour begins and ends
const CURVE = 1.3; // makes what is quiet a little paler

export class Pictures extends EventTarget {
  peaks = new Int8Array(0); // [column][stem..., original][min, max]
  known = new Uint8Array(0); // 1 for each column whose peaks are here

  #server; // peaks(id, from, columns), spectrogram(id, stem, from, columns, step)
  #track;
  #fetching = false;
  #asked = false;
  #tiles = new Map(); // place -> {filled: columns known when it was asked for, image}
  #wanted = []; // tiles to fetch; the latest first
  #painting = false;

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
    if (track.ranges.length > 0) this.#asked = false;
    else if (track.state === "finished" && !this.#asked) {
      this.#asked = true; // whoever asks for peaks has the server decode the stems' files
      this.#server.peaks(track.id, 0, 1).catch(() => (this.#asked = false));
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
    const depth = Math.min(DEEPEST, Math.max(0, Math.floor(Math.log2(span / COLUMN / width))));
    const tile = TILE * COLUMN * 2 ** depth;
    for (let index = Math.floor(from / tile); index * tile < from + span; index++) {
      const image = this.#tile(stem, index, depth, colour);
      if (!image) continue;
      const x = (index * tile - from) * scale;
      pen.drawImage(image, 0, 0, TILE, BANDS, x, 0, tile * scale, height);
    }
  }

  /** Return a tile of TILE pixels, each the loudest of 2 ** depth columns; fetch it if need be. */
  #tile(stem, index, depth, colour) {
    const columns = TILE * 2 ** depth;
    const known = this.known.subarray(index * columns, (index + 1) * columns);
    const filled = known.reduce((sum, value) => sum + value, 0);
    const place = `${stem}:${index}:${depth}:${colour}`;
    const tile = this.#tiles.get(place) ?? { filled: 0, image: null };
    if (filled > tile.filled) {
      this.#tiles.delete(place); // the latest ones come last
      this.#tiles.set(place, { ...tile, filled });
      if (this.#tiles.size > TILES) this.#tiles.delete(this.#tiles.keys().next().value);
      this.#wanted.push({ place, stem, from: index * TILE, step: 2 ** depth, colour });
      this.#paint();
    }
    return tile.image;
  }

  /** Fetch the tiles that are wanted, one after the other: sound comes first. */
  async #paint() {
    if (this.#painting) return;
    this.#painting = true;
    for (let next = this.#wanted.pop(); next; next = this.#wanted.pop()) {
      const { place, stem, from, step, colour } = next;
      try {
        const levels = await this.#server.spectrogram(this.#track.id, stem, from, TILE, step);
        const tile = this.#tiles.get(place);
        if (tile) tile.image = toImage(levels, colour);
      } catch {
        this.#tiles.delete(place);
      }
      this.dispatchEvent(new Event("change"));
    }
    this.#painting = false;
  }
}

/** Return levels [column][band] as a picture: low bands at the bottom, louder is more opaque. */
function toImage(levels, [red, green, blue]) {
  const canvas = document.createElement("canvas");
  canvas.width = TILE;
  canvas.height = BANDS;
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(TILE, BANDS);
  for (let x = 0; x < levels.length / BANDS; x++) {
    for (let band = 0; band < BANDS; band++) {
      const level = Math.min(1, Math.max(0, (levels[x * BANDS + band] / 255 - QUIET) / (LOUD - QUIET)));
      const at = 4 * ((BANDS - 1 - band) * TILE + x);
      image.data.set([red, green, blue, 255 * level ** CURVE], at);
    }
  }
  pen.putImageData(image, 0, 0);
  return canvas;
}
