/** The tracks as the server last told them. */

const WORKING = new Set(["queued", "separating"]);

export class Tracks extends EventTarget {
  version = null; // of the newest message; null before the first
  #known = new Map();

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

  /** Return those at work (in queue order) and the others (newest first) that match the search. */
  sorted(search) {
    const words = search.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = [...this.#known.values()].filter((track) => {
      const text = [track.name, track.title, track.artist, track.album].join(" ").toLowerCase();
      return words.every((word) => text.includes(word));
    });
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
