/** The tracks as the server last told them. */

const WORKING = new Set(["queued", "separating"]);

// serve/tracks.py has the same tables.
const MARKS = new RegExp(
  "[\u0300-\u036f\u0483-\u0487\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f" + // accents
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670" + // points
    "\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]", // invisible characters
  "g",
);
const SPACES = /[\u0000-\u0020\u007f-\u00a0\u1680\u2028\u2029]+/g;
const ALIKE = {
  ß: "ss", æ: "ae", œ: "oe", þ: "th", ø: "o", ł: "l", đ: "d", ð: "d", ħ: "h", ŧ: "t", ı: "i", ς: "σ",
};
for (const [plain, others] of [["'", "‘’‛ʼʻ′"], ['"', "“”„‟"], ["-", "‐‒–—―−"]]) {
  for (const other of others) ALIKE[other] = plain;
}
const UNLIKE = new RegExp(`[${Object.keys(ALIKE).join("")}]`, "g");

/** Return a text in lower case without accents, full-width forms and typographic quotes. */
export function foldForSearch(text) {
  const small = text.normalize("NFKD").replace(MARKS, "").toLowerCase();
  return small.replace(UNLIKE, (character) => ALIKE[character]).replace(SPACES, " ");
}

export class Tracks extends EventTarget {
  version = null; // of the newest message; null before the first
  #known = new Map();
  #searchable = new WeakMap(); // track -> its name and tags after foldForSearch

  get = (id) => this.#known.get(id);
  get size() {
    return this.#known.size;
  }

  /** Take in a message {version, tracks, removed, whole}; a whole one replaces everything. */
  apply(message) {
    if (!message.whole && this.version !== null && message.version <= this.version) return;
    this.version = message.version;
    if (message.whole) this.#known.clear();
    for (const id of message.removed) this.#known.delete(id);
    for (const track of message.tracks) this.#put(track);
    this.dispatchEvent(new Event("change"));
  }

  /** Take in one track from an answer, unless the stream was faster. */
  put(track) {
    this.#put(track);
    this.dispatchEvent(new Event("change"));
  }

  #put(track) {
    const before = this.#known.get(track.id);
    if (before && before.version > track.version) return;
    this.#known.set(track.id, track);
    if (before && before.state !== track.state) {
      this.dispatchEvent(new CustomEvent("state", { detail: track }));
    }
  }

  /** Forget a track that was deleted here. */
  drop(id) {
    this.#known.delete(id);
    this.dispatchEvent(new Event("change"));
  }

  #text(track) {
    if (!this.#searchable.has(track)) {
      const { name, title, artist, album } = track;
      this.#searchable.set(track, foldForSearch([name, title, artist, album].join(" ")));
    }
    return this.#searchable.get(track);
  }

  /** Return those at work (in queue order) and the others (newest first) that match the search. */
  sorted(search) {
    const words = foldForSearch(search).split(" ").filter(Boolean);
    const matches = [...this.#known.values()].filter((track) =>
      words.every((word) => this.#text(track).includes(word)),
    );
    const working = matches.filter((track) => WORKING.has(track.state));
    const place = (track) => (track.state === "separating" ? 0 : (track.position ?? 1e9));
    working.sort((a, b) => place(a) - place(b) || a.created.localeCompare(b.created));
    const others = matches.filter((track) => !WORKING.has(track.state));
    others.sort((a, b) => b.created.localeCompare(a.created) || a.name.localeCompare(b.name));
    return { working, others };
  }
}

/** Return the name that people know a track by. */
export const titleOf = (track) => track.title || track.name.replace(/\.[^.]+$/, "");

/** Return a track's length in frames, as far as it is known. */
export function lengthOf(track) {
  if (track.frames) return track.frames;
  const heard = Math.max(0, ...track.ranges.map(([, to]) => to));
  return Math.max(heard, Math.round((track.duration ?? 0) * (track.sample_rate ?? 44_100)));
}

/** Return how many frames can be heard from `frame` on. */
export function hearable(track, frame) {
  const range = track.ranges.find(([from, to]) => from <= frame && frame < to);
  return range ? range[1] - frame : 0;
}
