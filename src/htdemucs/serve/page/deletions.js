/** Deletions that can be undone: tracks disappear immediately, and the server deletes them later. */

import * as api from "./api.js";
import { announce } from "./dom.js";
import { bindText, text } from "./i18n/index.js";
import { showErrors } from "./show-errors.js";
import { deleteTrackState } from "./storage.js";
import { titleOf } from "./tracks.js";

const DELAY = 10_000; // milliseconds in which a deletion can be undone

export class Deletions {
  #tracks;
  #pending = []; // tracks
  #timer = null;
  #toast = document.getElementById("undo");

  constructor(tracks) {
    this.#tracks = tracks;
    document.getElementById("undo-button").addEventListener("click", () => this.undo());
    addEventListener("pagehide", () => this.#send({ keepalive: true }));
    document.addEventListener("keydown", (event) => {
      const isUndo = (event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "z";
      if (!isUndo || this.#pending.length === 0 || event.target.matches("input, textarea")) return;
      event.preventDefault();
      this.undo();
    });
    // The countdown pauses while the pointer or the focus is on the message.
    const wait = () => clearTimeout(this.#timer);
    for (const type of ["pointerenter", "focusin"]) this.#toast.addEventListener(type, wait);
    for (const type of ["pointerleave", "focusout"]) this.#toast.addEventListener(type, () => this.#restart());
  }

  /** Delete tracks, and offer to undo it, together with deletions that are not sent yet. */
  add(tracks) {
    this.#pending.push(...tracks);
    this.#show();
    this.#restart();
    this.#tracks.setHidden(tracks.map(({ id }) => id), true);
  }

  undo() {
    const ids = this.#take();
    this.#tracks.setHidden(ids, false);
    announce(text("restored"));
  }

  #show() {
    const [first] = this.#pending;
    const uploads = this.#pending.some(({ kind }) => kind === "upload") ? "Upload" : "Library";
    const target = document.getElementById("undo-text");
    if (this.#pending.length === 1) bindText(target, `deleted${uploads}`, { title: titleOf(first) });
    else bindText(target, `deletedMany${uploads}`, { count: this.#pending.length });
    this.#toast.hidden = false;
  }

  #restart() {
    clearTimeout(this.#timer);
    if (this.#pending.length > 0) this.#timer = setTimeout(() => this.#send(), DELAY);
  }

  /** Return the ids of the pending tracks, which are no longer pending. */
  #take() {
    clearTimeout(this.#timer);
    const ids = this.#pending.map(({ id }) => id);
    this.#pending = [];
    this.#toast.hidden = true;
    return ids;
  }

  async #send(options) {
    const ids = this.#take();
    if (ids.length === 0) return;
    if (!(await showErrors(() => api.deleteTracks(ids, options)))) {
      this.#tracks.setHidden(ids, false);
      return;
    }
    ids.forEach(deleteTrackState);
    this.#tracks.remove(ids);
  }
}
