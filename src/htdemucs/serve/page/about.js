/** The head of a track's view: its name, how far it is, and what can be done with it. */

import * as server from "./api.js";
import { element, icon, setText } from "./dom.js";
import { attempt, deleteTrack, detailOf } from "./queue.js";
import { titleOf } from "./tracks.js";
import { button, clock, label, number, text } from "./text.js";

export class About {
  #tracks;
  #track;
  #choose;

  /** `choose()` asks for a model and stems, `download()` shows the dialog of downloads. */
  constructor(tracks, { choose, download }) {
    this.#tracks = tracks;
    this.#choose = choose;
    const back = label(element("a", { class: "quiet icon back", href: "#" }, icon("back")), "back");
    this.title = element("h1", { id: "title" });
    this.facts = element("p", { class: "facts" });
    this.separate = button("primary", "separate", null, () => this.#separate());
    this.retry = button("primary", "retry", null, () => this.#act("retry"));
    this.cancel = button("plain", "cancel", null, () => this.#act("cancel"));
    this.again = button("plain", "again", null, () => this.#separate());
    this.delete = button("quiet icon", "delete", "trash", () => deleteTrack(this.#track, tracks));
    this.download = button("primary", "download", "down", download);
    const actions = [this.again, this.separate, this.retry, this.cancel, this.download, this.delete];
    this.status = element("p", { class: "status" });
    this.progress = element("progress", { max: 1, "aria-labelledby": "title" });
    this.state = element("div", { class: "state" }, this.status, this.progress);
    const naming = element("div", { class: "naming" }, this.title, this.facts);
    const buttons = element("div", { class: "actions" }, ...actions);
    this.boxes = [element("header", { class: "about" }, back, naming, buttons), this.state];
  }

  /** Show a track; one that has no `sounds` yet leaves the room to its state. */
  show(track, sounds) {
    this.#track = track;
    const { state, sample_rate: rate, duration } = track;
    setText(this.title, titleOf(track));
    this.title.title = titleOf(track);
    const facts = [
      track.artist,
      track.album,
      duration && clock(duration),
      track.model,
      rate && text("kilohertz", { value: number(rate / 1000, 1) }),
    ];
    setText(this.facts, facts.filter(Boolean).join(" · "));
    const finished = state === "finished";
    setText(this.status, finished ? track.warnings.join(" ") || text("finished") : detailOf(track));
    this.status.title = this.status.textContent;
    this.progress.hidden = state !== "separating";
    this.progress.value = duration ? Math.min(1, track.done / duration) : 0;
    this.separate.hidden = state !== "unseparated";
    this.again.hidden = this.download.hidden = !finished;
    this.retry.hidden = !["failed", "cancelled"].includes(state);
    this.cancel.hidden = !["queued", "separating"].includes(state);
    this.delete.hidden = !this.cancel.hidden;
    this.state.classList.toggle("alone", !sounds);
    this.state.dataset.state = state;
  }

  async #act(action) {
    const track = await attempt(() => server.act(this.#track.id, action));
    if (track) this.#tracks.put(track);
  }

  async #separate() {
    const choice = await this.#choose();
    const track = choice && (await attempt(() => server.separate(this.#track.id, choice)));
    if (!track) return;
    this.#tracks.put(track);
    location.hash = track.id;
  }
}
