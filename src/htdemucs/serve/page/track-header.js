/** The head of a track's view: its title, its state, and the buttons for what can be done with it. */

import * as api from "./api.js";
import { announce, element, icon, setText, showToast } from "./dom.js";
import { bindLabel, bindText, button, formatNumber, formatTime, text } from "./i18n/index.js";
import { keyText } from "./musical-key.js";
import { requestPermission, shouldOffer } from "./notifications.js";
import { showErrors } from "./show-errors.js";
import { trackDetail } from "./track-list.js";
import { progressOf, titleOf } from "./tracks.js";

const EDITED = ["title", "artist", "album"];
const COPIED_TIME = 2000; // milliseconds for which the button says so

export class TrackHeader {
  #tracks;
  #track;
  #pickModel;

  /** `pickModel()` asks for a model and stems, `onDownload()` opens the dialog, `link()` returns a URL. */
  constructor(tracks, { pickModel, onDownload, onDelete, link }) {
    this.#tracks = tracks;
    this.#pickModel = pickModel;
    const back = bindLabel(element("a", { class: "ghost icon back", href: "#" }, icon("back")), "back");
    this.title = element("h1", { id: "title" });
    this.facts = element("p", { class: "track-facts" });
    this.separate = button("primary", "separate", null, () => this.#separate());
    this.retry = button("primary", "retry", null, () => this.#runAction("retry"));
    this.cancel = button("secondary", "cancel", null, () => this.#runAction("cancel"));
    this.again = button("secondary", "again", null, () => this.#separate());
    this.delete = button("ghost icon", "delete", "trash", onDelete);
    this.download = button("primary", "download", "down", onDownload);
    this.copy = button("ghost icon", "copyLink", "link", () => this.#copyLink(link()));
    const actions = [this.again, this.separate, this.retry, this.cancel, this.download];
    this.edit = button("ghost icon", "edit", "pencil", () => this.#showForm(true));
    this.form = this.#createForm();
    this.status = element("p", { class: "status" });
    this.progress = element("progress", { max: 1, "aria-labelledby": "title" });
    this.offer = button("link", "notifyMe", null, async () => {
      await requestPermission();
      this.offer.hidden = true;
    });
    const status = element("div", { class: "status-line" }, this.status, this.offer);
    this.state = element("div", { class: "track-state" }, status, this.progress);
    const line = element("div", { class: "heading-line" }, this.title, this.edit);
    const heading = element("div", { class: "track-title" }, line, this.facts, this.form);
    const buttons = element("div", { class: "actions" }, ...actions, this.copy, this.delete);
    this.boxes = [element("header", { class: "track-header" }, back, heading, buttons), this.state];
  }

  /**
   * Show a track that is transposed by `pitch` semitones; if it is not `playable` yet, its state takes
   * the place of the lanes.
   */
  render(track, playable, pitch) {
    this.#track = track;
    const { state, sample_rate: rate, duration } = track;
    setText(this.title, titleOf(track));
    this.title.title = titleOf(track);
    const facts = [
      track.artist,
      track.album,
      duration && formatTime(duration),
      track.key && keyText(track.key, pitch),
      track.model,
      rate && text("kilohertz", { value: formatNumber(rate / 1000, 1) }),
    ];
    setText(this.facts, facts.filter(Boolean).join(" · "));
    const finished = state === "finished";
    setText(this.status, finished ? track.warnings.join(" ") || text("finished") : trackDetail(track));
    this.status.title = this.status.textContent;
    this.offer.hidden = !shouldOffer(track);
    this.progress.hidden = state !== "separating";
    this.progress.value = progressOf(track);
    this.separate.hidden = state !== "unseparated";
    const stopped = ["failed", "cancelled"].includes(state);
    this.again.hidden = !finished && !stopped;
    this.download.hidden = !finished;
    this.retry.hidden = !stopped;
    this.cancel.hidden = !["queued", "separating"].includes(state);
    this.delete.hidden = !this.cancel.hidden;
    this.copy.hidden = !playable;
    this.state.classList.toggle("alone", !playable);
    this.state.dataset.state = state;
  }

  #createForm() {
    this.fields = Object.fromEntries(EDITED.map((name) => [name, element("input", { type: "text", maxlength: 500 })]));
    const labels = EDITED.map((name) =>
      element("label", {}, bindText(element("span"), `field_${name}`), this.fields[name]),
    );
    const save = bindText(element("button", { class: "primary" }), "save");
    const cancel = button("secondary", "cancel", null, () => this.#showForm(false));
    const form = element("form", { class: "track-edit", hidden: true }, ...labels, element("p", {}, save, cancel));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#saveTexts();
    });
    form.addEventListener("keydown", (event) => event.key === "Escape" && this.#showForm(false));
    return form;
  }

  /** Show the form instead of the title, or the title again. */
  #showForm(shown) {
    this.form.hidden = !shown;
    this.edit.hidden = this.facts.hidden = shown;
    this.title.classList.toggle("visually-hidden", shown); // it stays the page's heading
    if (!shown) {
      this.edit.focus();
      return;
    }
    for (const name of EDITED) this.fields[name].value = this.#textOf(name);
    this.fields.title.select();
  }

  #textOf(name) {
    return name === "title" ? titleOf(this.#track) : (this.#track[name] ?? "");
  }

  /** Send the texts that were changed. Without a title, the file's own is shown again. */
  async #saveTexts() {
    const texts = EDITED.map((name) => [name, this.fields[name].value.trim()]);
    const changed = texts.filter(([name, value]) => value !== this.#textOf(name));
    if (changed.length > 0) {
      const values = changed.map(([name, value]) => [name, name === "title" ? value || null : value]);
      const track = await showErrors(() => api.edit(this.#track.id, Object.fromEntries(values)));
      if (!track) return;
      this.#tracks.put(track);
      announce(text("saved"));
    }
    this.#showForm(false);
  }

  async #copyLink(url) {
    try {
      await navigator.clipboard.writeText(url);
    } catch {
      showToast(url); // browsers allow copying over HTTPS and on this machine only
      return;
    }
    this.#showCopied(true);
    announce(text("linkCopied"));
    setTimeout(() => this.#showCopied(false), COPIED_TIME);
  }

  #showCopied(copied) {
    bindLabel(this.copy, copied ? "linkCopied" : "copyLink");
    this.copy.querySelector("use").setAttribute("href", copied ? "#i-check" : "#i-link");
  }

  async #runAction(action) {
    const track = await showErrors(() => api.runAction(this.#track.id, action));
    if (track) this.#tracks.put(track);
  }

  async #separate() {
    const selection = await this.#pickModel();
    const track = selection && (await showErrors(() => api.separate(this.#track.id, selection)));
    if (!track) return;
    this.#tracks.put(track);
    location.hash = track.id;
  }
}
