/** The list of songs: uploads, the queue with progress, speed and time left, and the library. */

import * as api from "./api.js";
import { announce, element, icon, reorderChildren, setText, showToast } from "./dom.js";
import {
  bindLabel, bindText, errorText, formatNumber, formatPercent, formatTime, text, trackErrorText,
} from "./i18n/index.js";
import { deleteTrackState } from "./storage.js";
import { titleOf } from "./tracks.js";

const PAGE_SIZE = 100; // rows shown at first, and added by "Show more"

/** Return the line below a track's title. */
export function trackDetail(track) {
  const length = track.duration ? formatTime(track.duration) : null;
  switch (track.state) {
    case "queued":
      if (track.error) return trackErrorText(track); // why it has to wait
      return text("queued", { position: track.position ?? 1 });
    case "separating":
      return progressText(track);
    case "failed":
      return trackErrorText(track);
    case "cancelled":
      return text("cancelled");
    case "unseparated":
      return [text("unseparated"), length].filter(Boolean).join(" · ");
    default:
      return [track.artist, length, track.model].filter(Boolean).join(" · ");
  }
}

function progressText({ done, duration, speed, left, sample_rate: rate }) {
  if (!rate) return text("loadingModel"); // it is known when the first segment is computed
  const parts = [duration ? formatPercent(done / duration) : text("starting")];
  if (left !== null && left !== undefined) parts.push(text("timeLeft", { time: formatTime(left + 0.5) }));
  if (speed) parts.push(text("speed", { speed: formatNumber(speed, speed < 10 ? 1 : 0) }));
  return parts.join(" · ");
}

/** Return the result of a request; if it fails, show why and return null. */
export async function showErrors(request) {
  try {
    return await request();
  } catch (error) {
    showToast(errorText(error));
    return null;
  }
}

/** Delete a track from the server, after the user has confirmed it. */
export async function confirmAndDelete(track, tracks) {
  if (!(await confirmDelete(track))) return;
  if (!(await showErrors(() => api.deleteTrack(track.id)))) return;
  deleteTrackState(track.id);
  tracks.remove(track.id);
  announce(text("deleted", { title: titleOf(track) }));
}

function confirmDelete(track) {
  const dialog = document.getElementById("delete-dialog");
  bindText(document.getElementById("delete-title"), "deleteTitle", { title: titleOf(track) });
  const consequence = track.kind === "upload" ? "deleteUpload" : "deleteLibrary";
  bindText(document.getElementById("delete-text"), consequence);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "delete"), { once: true });
  });
}

export class TrackList {
  #tracks;
  #uploads;
  #rows = new Map(); // key of an upload or id of a track -> Row
  #limit = PAGE_SIZE;
  #search = "";
  selected = null; // the id of the open track

  constructor(root, tracks, uploads) {
    this.#tracks = tracks;
    this.#uploads = uploads;
    const createSection = (key) => {
      const list = element("ul", { class: "rows" });
      return { list, box: element("section", {}, bindText(element("h2"), key), list) };
    };
    this.processing = createSection("processing");
    this.library = createSection("library");
    this.more = bindText(element("button", { type: "button", class: "secondary wide", hidden: true }), "more");
    this.more.addEventListener("click", () => {
      this.#limit += PAGE_SIZE;
      this.render();
    });
    this.noMatches = bindText(element("p", { class: "no-matches", hidden: true }), "noMatches");
    root.replaceChildren(this.processing.box, this.library.box, this.noMatches, this.more);
    const search = document.getElementById("search");
    search.addEventListener("input", () => {
      this.#search = search.value;
      this.#limit = PAGE_SIZE;
      this.render();
    });
  }

  render() {
    const { processing, others } = this.#tracks.sorted(this.#search);
    const library = others.slice(0, this.#limit);
    const keys = new Set(); // of the rows that are still in the list
    const rowOf = (key, show) => {
      keys.add(key);
      if (!this.#rows.has(key)) this.#rows.set(key, new Row());
      const row = this.#rows.get(key);
      show(row);
      return row.box;
    };
    const uploadRows = this.#uploads.items.map((item) =>
      rowOf(item.key, (row) => row.showUpload(item, this.#uploads)),
    );
    const trackRows = (list) =>
      list.map((track) =>
        rowOf(track.id, (row) => row.showTrack(track, this.#tracks, track.id === this.selected)),
      );
    reorderChildren(this.processing.list, [...uploadRows, ...trackRows(processing)]);
    reorderChildren(this.library.list, trackRows(library));
    for (const key of this.#rows.keys()) if (!keys.has(key)) this.#rows.delete(key);
    this.processing.box.hidden = uploadRows.length + processing.length === 0;
    this.library.box.hidden = library.length === 0;
    this.more.hidden = library.length === others.length;
    this.noMatches.hidden = !this.#search || processing.length + others.length > 0;
  }
}

/** One row. Its elements are reused, so that the focus and the screen reader's position stay. */
class Row {
  #actions = ""; // the names of its buttons

  constructor() {
    this.title = element("span", { class: "title" });
    this.detail = element("span", { class: "detail" });
    this.link = element("a", { class: "row-link" }, this.title, this.detail);
    this.buttons = element("div", { class: "buttons" });
    this.progress = element("progress", { max: 1 });
    this.box = element("li", { class: "row" }, this.link, this.buttons, this.progress);
  }

  /** `progress` is a fraction or null, `actions` a list of [name, icon, onClick]. */
  #render({ state, title, detail, progress, actions }) {
    this.box.dataset.state = state;
    setText(this.title, title);
    setText(this.detail, detail);
    this.title.title = title;
    this.progress.hidden = progress === null;
    if (progress !== null) this.progress.value = progress;
    this.progress.setAttribute("aria-label", title);
    const names = actions.map(([name]) => name).join();
    if (names !== this.#actions) {
      this.#actions = names;
      this.buttons.replaceChildren(
        ...actions.map(([name, iconName]) =>
          element("button", { type: "button", class: "ghost icon", data: { action: name } }, icon(iconName)),
        ),
      );
    }
    actions.forEach(([name, , onClick], i) => {
      bindLabel(this.buttons.children[i], `${name}Track`, { title });
      this.buttons.children[i].onclick = onClick;
    });
  }

  showUpload(item, uploads) {
    const { file, sent, error } = item;
    const sending = !error && uploads.isSending(item);
    const cancel = ["cancel", "close", () => uploads.cancel(item)];
    const retry = ["retry", "retry", () => uploads.retry(item)];
    this.#render({
      state: error ? "failed" : "uploading",
      title: file.name,
      detail: error ? errorText(error) : sending ? text("uploading", { sent: formatPercent(sent) }) : text("waiting"),
      progress: sending ? sent : null,
      actions: error ? [retry, cancel] : [cancel],
    });
  }

  showTrack(track, tracks, selected) {
    const run = (action) => async () => {
      const changed = await showErrors(() => api.runAction(track.id, action));
      if (changed) tracks.put(changed);
    };
    const actions = {
      queued: track.position > 1 ? ["first", "cancel"] : ["cancel"],
      separating: ["cancel"],
      failed: ["delete", "retry"],
      cancelled: ["delete", "retry"],
      finished: ["delete"],
      unseparated: ["delete"],
    }[track.state];
    const buttons = {
      first: ["first", "first", run("first")],
      cancel: ["cancel", "close", run("cancel")],
      retry: ["retry", "retry", run("retry")],
      delete: ["delete", "trash", () => confirmAndDelete(track, tracks)],
    };
    const separating = track.state === "separating";
    this.#render({
      state: track.state,
      title: titleOf(track),
      detail: trackDetail(track),
      progress: separating ? Math.min(1, track.done / (track.duration || Infinity)) : null,
      actions: actions.map((name) => buttons[name]),
    });
    this.link.href = `#${track.id}`;
    if (selected) this.link.setAttribute("aria-current", "true");
    else this.link.removeAttribute("aria-current");
  }
}
