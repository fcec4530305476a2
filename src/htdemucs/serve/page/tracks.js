/** The tracks, as last received from the server. */

export const PROCESSING = new Set(["queued", "separating"]);

// serve/tracks.py has the same tables.
const MARKS = new RegExp(
  "[\u0300-\u036f\u0483-\u0487\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f" + // accents
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670" + // vowel points
    "\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]", // invisible characters
  "g",
);
const SPACES = /[\u0000-\u0020\u007f-\u00a0\u1680\u2028\u2029]+/g;
const EQUIVALENTS = {
  ß: "ss", æ: "ae", œ: "oe", þ: "th", ø: "o", ł: "l", đ: "d", ð: "d", ħ: "h", ŧ: "t", ı: "i", ς: "σ",
};
for (const [plain, variants] of [["'", "‘’‛ʼʻ′"], ['"', "“”„‟"], ["-", "‐‒–—―−"]]) {
  for (const variant of variants) EQUIVALENTS[variant] = plain;
}
const REPLACED = new RegExp(`[${Object.keys(EQUIVALENTS).join("")}]`, "g");

/** Return a text in lower case without accents, full-width forms and typographic quotes. */
export function foldForSearch(text) {
  const lower = text.normalize("NFKD").replace(MARKS, "").toLowerCase();
  return lower.replace(REPLACED, (character) => EQUIVALENTS[character]).replace(SPACES, " ");
}

const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

/** Compare two texts; missing ones come last. */
export const compareTexts = (a, b) => Boolean(b) - Boolean(a) || (a ? collator.compare(a, b) : 0);

const ORDERS = {
  added: (a, b) => (a.created < b.created ? 1 : a.created > b.created ? -1 : collator.compare(a.name, b.name)),
  title: (a, b) => collator.compare(titleOf(a), titleOf(b)),
  artist: (a, b) =>
    compareTexts(a.artist, b.artist) || compareTexts(a.album, b.album) || collator.compare(a.name, b.name),
  length: (a, b) => (a.duration ?? Infinity) - (b.duration ?? Infinity) || collator.compare(a.name, b.name),
};
const SORTED_BY = ["created", "name", "title", "artist", "album", "duration"];
const MAX_INSERTED = 100; // tracks that are inserted one by one; for more, all are sorted again

/** The orders of tracks to choose from. */
export const SORTS = Object.keys(ORDERS);

export class Tracks extends EventTarget {
  version = null; // of the last message; null before the first
  #tracks = new Map(); // by id
  #hidden = new Set(); // ids of tracks that will be deleted
  #searchTexts = new WeakMap(); // track -> its name and tags after foldForSearch
  #sort = null;
  #order = []; // ids, sorted by #sort
  #moved = new Set(); // ids whose place in #order may be wrong

  get(id) {
    return this.#hidden.has(id) ? undefined : this.#tracks.get(id);
  }

  get all() {
    return [...this.#tracks.values()];
  }
  get size() {
    return this.#tracks.size - this.#hidden.size;
  }

  /** Apply a message {version, tracks, removed, whole}; a whole one replaces all tracks. */
  apply(message) {
    if (!message.whole && this.version !== null && message.version <= this.version) return;
    this.version = message.version;
    if (message.whole) {
      const ids = new Set(message.tracks.map(({ id }) => id));
      for (const id of this.#tracks.keys()) if (!ids.has(id)) this.#delete(id);
    }
    for (const id of message.removed) this.#delete(id);
    for (const track of message.tracks) this.#put(track, message.whole);
    this.#notify();
  }

  /** Add or replace one track from a response, unless a newer version has come by the stream. */
  put(track) {
    this.#put(track);
    this.#notify();
  }

  #put(track, whole = false) {
    const before = this.#tracks.get(track.id);
    if (before && !whole && before.version > track.version) return;
    this.#tracks.set(track.id, track);
    if (!before || SORTED_BY.some((name) => before[name] !== track[name])) this.#moved.add(track.id);
    if (before && before.state !== track.state) {
      this.dispatchEvent(new CustomEvent("state", { detail: track }));
    }
  }

  /** Hide tracks that will be deleted soon, or show them again. */
  setHidden(ids, hidden) {
    for (const id of ids) {
      if (hidden && this.#tracks.has(id)) this.#hidden.add(id);
      else this.#hidden.delete(id);
    }
    this.#notify();
  }

  /** Remove tracks that this page has deleted. */
  remove(ids) {
    for (const id of ids) this.#delete(id);
    this.#notify();
  }

  #delete(id) {
    this.#tracks.delete(id);
    this.#hidden.delete(id);
    this.#moved.add(id);
  }

  #notify() {
    this.dispatchEvent(new Event("change"));
  }

  #searchText(track) {
    if (!this.#searchTexts.has(track)) {
      const { name, title, artist, album } = track;
      this.#searchTexts.set(track, foldForSearch([name, title, artist, album].join(" ")));
    }
    return this.#searchTexts.get(track);
  }

  /** Sort again what has changed: most events change no track's place. */
  #updateOrder(sort) {
    const compare = ORDERS[sort];
    if (sort !== this.#sort || this.#moved.size > MAX_INSERTED) {
      this.#order = [...this.#tracks.values()].sort(compare).map(({ id }) => id);
    } else if (this.#moved.size > 0) {
      this.#order = this.#order.filter((id) => !this.#moved.has(id));
      for (const id of this.#moved) if (this.#tracks.has(id)) this.#insert(this.#tracks.get(id), compare);
    }
    this.#sort = sort;
    this.#moved.clear();
  }

  #insert(track, compare) {
    let [from, to] = [0, this.#order.length];
    while (from < to) {
      const middle = (from + to) >> 1;
      if (compare(this.#tracks.get(this.#order[middle]), track) <= 0) from = middle + 1;
      else to = middle;
    }
    this.#order.splice(from, 0, track.id);
  }

  /** Return the tracks that match a search: `processing` in queue order, `others` sorted. */
  sorted(search, sort = "added") {
    this.#updateOrder(sort);
    const words = foldForSearch(search).split(" ").filter(Boolean);
    const processing = [];
    const others = [];
    for (const id of this.#order) {
      const track = this.get(id);
      if (!track || !words.every((word) => this.#searchText(track).includes(word))) continue;
      (PROCESSING.has(track.state) ? processing : others).push(track);
    }
    const position = (track) => (track.state === "separating" ? 0 : (track.position ?? 1e9));
    processing.sort((a, b) => position(a) - position(b) || a.created.localeCompare(b.created));
    return { processing, others };
  }
}

/** Whether a track can be separated: it has no stems, and is not waiting for them. */
export const isSeparable = ({ state }) => ["unseparated", "failed", "cancelled"].includes(state);

/** Return a track's title, or its file name without the extension. */
export const titleOf = (track) => track.title || track.name.replace(/\.[^.]+$/, "");

/** Return the fraction of a track that is separated. */
export const progressOf = ({ done, duration }) => (duration ? Math.min(1, done / duration) : 0);

/** Return a track's length in frames, as far as it is known. */
export function lengthOf(track) {
  if (track.frames) return track.frames;
  const separated = Math.max(0, ...track.ranges.map(([, to]) => to));
  return Math.max(separated, Math.round((track.duration ?? 0) * (track.sample_rate ?? 44_100)));
}

/** Return how many frames are separated from `frame` on without a gap. */
export function separatedFrames(track, frame) {
  const range = track.ranges.find(([from, to]) => from <= frame && frame < to);
  return range ? range[1] - frame : 0;
}
