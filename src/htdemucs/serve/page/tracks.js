/** The tracks, as last received from the server. */

const PROCESSING = new Set(["queued", "separating"]);

// serve/db.py has the same tables.
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

export class Tracks extends EventTarget {
  version = null; // of the last message; null before the first
  #tracks = new Map(); // by id
  #searchTexts = new WeakMap(); // track -> its name and tags after foldForSearch

  get = (id) => this.#tracks.get(id);
  get size() {
    return this.#tracks.size;
  }

  /** Apply a message {version, tracks, removed, whole}; a whole one replaces all tracks. */
  apply(message) {
    if (!message.whole && this.version !== null && message.version <= this.version) return;
    this.version = message.version;
    if (message.whole) this.#tracks.clear();
    for (const id of message.removed) this.#tracks.delete(id);
    for (const track of message.tracks) this.#put(track);
    this.dispatchEvent(new Event("change"));
  }

  /** Add or replace one track from a response, unless a newer version has come by the stream. */
  put(track) {
    this.#put(track);
    this.dispatchEvent(new Event("change"));
  }

  #put(track) {
    const before = this.#tracks.get(track.id);
    if (before && before.version > track.version) return;
    this.#tracks.set(track.id, track);
    if (before && before.state !== track.state) {
      this.dispatchEvent(new CustomEvent("state", { detail: track }));
    }
  }

  /** Remove a track that this page has deleted. */
  remove(id) {
    this.#tracks.delete(id);
    this.dispatchEvent(new Event("change"));
  }

  #searchText(track) {
    if (!this.#searchTexts.has(track)) {
      const { name, title, artist, album } = track;
      this.#searchTexts.set(track, foldForSearch([name, title, artist, album].join(" ")));
    }
    return this.#searchTexts.get(track);
  }

  /** Return the tracks that match a search: `processing` in queue order, `others` newest first. */
  sorted(search) {
    const words = foldForSearch(search).split(" ").filter(Boolean);
    const matches = [...this.#tracks.values()].filter((track) =>
      words.every((word) => this.#searchText(track).includes(word)),
    );
    const processing = matches.filter((track) => PROCESSING.has(track.state));
    const position = (track) => (track.state === "separating" ? 0 : (track.position ?? 1e9));
    processing.sort((a, b) => position(a) - position(b) || a.created.localeCompare(b.created));
    const others = matches.filter((track) => !PROCESSING.has(track.state));
    others.sort((a, b) => b.created.localeCompare(a.created) || a.name.localeCompare(b.name));
    return { processing, others };
  }
}

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
