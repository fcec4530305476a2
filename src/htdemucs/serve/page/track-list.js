/** The list of songs: uploads, the queue with progress, speed and time left, and the library. */

import * as api from "./api.js";
import { announce, element, icon, setText, showToast } from "./dom.js";
import { openSelectionDownloadDialog } from "./download-dialog.js";
import {
  bindLabel, bindText, button, errorText, formatNumber, formatPercent, formatTime, text, trackErrorText,
} from "./i18n/index.js";
import { showErrors } from "./show-errors.js";
import { readSettings, saveSettings } from "./storage.js";
import { compareTexts, isSeparable, progressOf, SORTS, titleOf } from "./tracks.js";
import { VirtualList } from "./virtual-list.js";

const GROUPS = ["none", "album", "folder"];
const HEADING_HEIGHT = 2.75; // rem
const ROW_HEIGHT = 3.75; // rem
const ERROR_HEIGHT = 5.5; // rem: an error has up to three lines

/** Return the line below a track's title. */
export function trackDetail(track) {
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
      return track.error ? trackErrorText(track) : text("unseparated"); // why it cannot be played
    default:
      return track.model;
  }
}

/** Return the length and state of a track, as its row shows them. */
function rowStatus(track) {
  const showsLength = track.duration && !track.error && ["unseparated", "finished"].includes(track.state);
  return [showsLength && formatTime(track.duration), trackDetail(track)].filter(Boolean).join(" · ");
}

function progressText({ done, duration, speed, left, sample_rate: rate }) {
  if (!rate) return text("loadingModel"); // it is known when the first segment is computed
  const parts = [duration ? formatPercent(done / duration) : text("starting")];
  if (left !== null && left !== undefined) parts.push(text("timeLeft", { time: formatTime(left + 0.5) }));
  if (speed) parts.push(text("speed", { speed: formatNumber(speed, speed < 10 ? 1 : 0) }));
  return parts.join(" · ");
}

const createSelect = (key, values, selected) => {
  const options = values.map((value) =>
    bindText(element("option", { value, selected: value === selected }), `${key}_${value}`),
  );
  return bindLabel(element("select", { id: key }, ...options), key);
};

export class TrackList {
  #tracks;
  #uploads;
  #deletions;
  #info;
  #options; // () => {model, stems}
  #list;
  #listed = []; // tracks, in the order of their rows
  #settings = []; // that #sections and #others were made from
  #sections = []; // of the tracks that are not being processed
  #others = []; // these tracks
  #search = "";
  #sort = SORTS.find((name) => name === readSettings().sort) ?? "added";
  #group = GROUPS.find((name) => name === readSettings().group) ?? "none";
  #chosen = null; // ids of the chosen tracks, while they are being chosen
  #anchor = null; // id of the track from which a range is chosen
  selected = null; // the id of the open track

  /** `options()` returns the model and stems for tracks that are separated. */
  constructor(root, { tracks, uploads, deletions, info, options }) {
    Object.assign(this, { root });
    this.#tracks = tracks;
    this.#uploads = uploads;
    this.#deletions = deletions;
    this.#info = info;
    this.#options = options;
    this.noMatches = bindText(element("p", { class: "no-matches", hidden: true }), "noMatches");
    root.append(this.noMatches);
    this.#list = new VirtualList(root, (item) => this.#createRow(item));
    this.#buildTools();
    this.#buildBar();
    root.addEventListener("keydown", (event) => this.#onKey(event));
    document.addEventListener("keydown", ({ key }) => {
      if (key === "Escape" && this.#chosen && !document.querySelector("dialog[open]")) this.#setChosen(null);
    });
    const search = document.getElementById("search");
    search.addEventListener("input", () => {
      this.#search = search.value;
      this.root.scrollTop = 0;
      this.render();
    });
  }

  #buildTools() {
    const sort = createSelect("sort", SORTS, this.#sort);
    const group = createSelect("group", GROUPS, this.#group);
    this.choose = button("ghost icon", "chooseSeveral", "select", () => this.#setChosen(this.#chosen ? null : []));
    sort.addEventListener("change", () => {
      this.#sort = sort.value;
      saveSettings({ sort: this.#sort });
      this.render();
    });
    group.addEventListener("change", () => {
      this.#group = group.value;
      saveSettings({ group: this.#group });
      this.render();
    });
    document.getElementById("list-tools").append(sort, group, this.choose);
  }

  /** Build the bar with the actions for the chosen tracks. */
  #buildBar() {
    this.count = element("p", { role: "status" });
    const all = button("ghost", "selectAll", null, () => this.#setChosen(this.#listed.map(({ id }) => id)));
    const close = button("ghost icon", "endSelection", "close", () => this.#setChosen(null));
    this.separate = button("secondary", "separate", null, () => this.#separate(this.#chosenTracks));
    this.download = button("secondary", "download", null, () => this.#download(this.#chosenTracks));
    this.album = button("secondary", "setAlbum", null, () => this.#setAlbum(this.#chosenTracks));
    this.delete = button("secondary", "delete", null, () => this.#delete(this.#chosenTracks));
    this.bar = element(
      "div",
      { class: "selection-bar", role: "group", hidden: true },
      element("div", {}, this.count, all, close),
      element("div", {}, this.separate, this.download, this.album, this.delete),
    );
    bindLabel(this.bar, "selection");
    this.root.after(this.bar);
  }

  // Choosing several

  get #chosenTracks() {
    return this.#listed.filter(({ id }) => this.#chosen.has(id));
  }

  /** Choose these tracks; with null, end the choosing. */
  #setChosen(ids) {
    this.#chosen = ids && new Set(ids);
    if (!ids) this.#anchor = null;
    this.render();
  }

  #toggle(id) {
    const chosen = new Set(this.#chosen);
    if (!chosen.delete(id)) chosen.add(id);
    this.#anchor = id;
    this.#setChosen(chosen);
  }

  /** Choose all tracks between the last one that was chosen and this one. */
  #chooseRange(id) {
    const ids = this.#listed.map((track) => track.id);
    const [from, to] = [ids.indexOf(this.#anchor ?? this.selected), ids.indexOf(id)].sort((a, b) => a - b);
    this.#anchor ??= this.selected ?? id;
    this.#setChosen([...(this.#chosen ?? []), ...(from < 0 ? [id] : ids.slice(from, to + 1))]);
  }

  /** Choose a track if a modifier key is held or others are being chosen; else let its link open it. */
  #onClick(event, id) {
    if (event.shiftKey) this.#chooseRange(id);
    else if (event.ctrlKey || event.metaKey || this.#chosen) this.#toggle(id);
    else return;
    if (event.currentTarget.matches("a")) event.preventDefault();
  }

  #onKey(event) {
    const key = event.key.toLowerCase();
    const link = event.target.closest(".row-link");
    if ((event.ctrlKey || event.metaKey) && key === "a") this.#setChosen(this.#listed.map(({ id }) => id));
    else if (key === " " && link && this.#chosen) this.#onClick(event, link.closest("[data-key]").dataset.key);
    else return;
    event.preventDefault();
  }

  // Actions on several tracks

  async #separate(tracks) {
    const ids = tracks.filter(isSeparable).map(({ id }) => id);
    const result = await showErrors(() => api.separateAll(ids, this.#options()));
    if (!result) return;
    const [queued, refused] = [result.queued.length, result.refused.length];
    announce(text("queuedMany", { count: queued }));
    if (refused > 0) showToast(text("queueFull", { queued, refused }));
    this.#setChosen(null);
  }

  #download(tracks) {
    const ready = tracks.filter(isReady);
    openSelectionDownloadDialog(ready, this.#info);
  }

  /** Ask for an album and put the tracks into it; the user's own albums are set lists. */
  async #setAlbum(tracks) {
    const dialog = document.getElementById("album-dialog");
    const input = document.getElementById("album");
    const albums = [...new Set(this.#tracks.all.map(({ album }) => album).filter(Boolean))].sort(compareTexts);
    document.getElementById("albums").replaceChildren(...albums.map((value) => element("option", { value })));
    input.value = tracks.every(({ album }) => album === tracks[0].album) ? (tracks[0].album ?? "") : "";
    dialog.returnValue = "";
    dialog.showModal();
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    if (dialog.returnValue !== "done") return;
    const album = input.value.trim();
    for (const { id } of tracks) {
      const changed = await showErrors(() => api.edit(id, { album }));
      if (!changed) return;
      this.#tracks.put(changed);
    }
    this.#setChosen(null);
  }

  #delete(tracks) {
    this.#deletions.add(tracks);
    this.#setChosen(null);
  }

  // Showing

  render() {
    const { processing, others } = this.#tracks.sorted(this.#search, this.#sort);
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const height = (error) => rem * (error ? ERROR_HEIGHT : ROW_HEIGHT);
    const toSection = ({ key, name, tracks, uploads = [] }) => {
      const isGroup = key.startsWith("group-");
      const focusable = isGroup && tracks.some((track) => isSeparable(track) || isReady(track));
      const heading = { key: `heading-${key}`, height: rem * HEADING_HEIGHT, name, tracks: isGroup ? tracks : null, focusable };
      const items = [
        ...uploads.map((upload) => ({ key: upload.key, upload, height: height(upload.error) })),
        ...tracks.map((track) => ({ key: track.id, track, height: height(track.error) })),
      ];
      return { key, name, heading, items };
    };
    // Most events change tracks that are being processed: the sections of the others stay.
    const settings = [this.#group, rem, text("library"), ...others];
    if (settings.length !== this.#settings.length || settings.some((each, i) => each !== this.#settings[i])) {
      const groups = this.#groups(others);
      this.#settings = settings;
      this.#sections = groups.map(toSection);
      this.#others = groups.flatMap(({ tracks }) => tracks);
    }
    this.#listed = [...processing, ...this.#others];
    const uploads = this.#uploads.items;
    const first = { key: "processing", name: text("processing"), tracks: processing, uploads };
    const sections = uploads.length + processing.length > 0 ? [toSection(first)] : [];
    if (this.#chosen) {
      const listed = new Set(this.#listed.map(({ id }) => id));
      for (const id of this.#chosen) if (!listed.has(id)) this.#chosen.delete(id);
    }
    this.noMatches.hidden = !this.#search || processing.length + others.length > 0;
    this.#list.show([...sections, ...this.#sections]);
    this.#renderBar();
  }

  /** Return the groups {key, name, tracks} in the order of their names; those without come last. */
  #groups(tracks) {
    if (this.#group === "none") {
      return tracks.length > 0 ? [{ key: "library", name: text("library"), tracks }] : [];
    }
    const groups = new Map();
    for (const track of tracks) {
      const { album, folder } = track;
      const name = this.#group === "album" ? album : folder;
      const key = name ?? "";
      if (!groups.has(key)) groups.set(key, { key: `group-${key}`, name, tracks: [] });
      groups.get(key).tracks.push(track);
    }
    const sorted = [...groups.values()].sort((a, b) => compareTexts(a.name, b.name));
    for (const group of sorted) group.name ||= text(this.#group === "album" ? "noAlbum" : "noFolder");
    return sorted;
  }

  #renderBar() {
    this.bar.hidden = !this.#chosen;
    this.choose.setAttribute("aria-pressed", Boolean(this.#chosen));
    if (!this.#chosen) return;
    const tracks = this.#chosenTracks;
    setText(this.count, text("selected", { count: tracks.length }));
    this.separate.disabled = !tracks.some(isSeparable);
    this.download.disabled = !tracks.some(isReady);
    this.album.disabled = this.delete.disabled = tracks.length === 0;
  }

  #createRow(item) {
    if (item.isHeading) {
      return new Heading((tracks) => this.#separate(tracks), (tracks) => this.#download(tracks));
    }
    const row = new Row((event, id) => this.#onClick(event, id));
    row.show = ({ upload, track }) => {
      if (upload) row.showUpload(upload, this.#uploads);
      else this.#showTrack(row, track);
    };
    return row;
  }

  #showTrack(row, track) {
    const chosen = this.#chosen && this.#chosen.has(track.id);
    row.showTrack(track, { tracks: this.#tracks, deletions: this.#deletions, chosen });
    row.setCurrent(track.id === this.selected);
  }
}

const isReady = ({ state, stems }) => state === "finished" && stems.length > 0;

/** The heading of a section: its name and, for an album or a folder, its size and actions. */
class Heading {
  constructor(onSeparate, onDownload) {
    this.name = element("h2");
    this.count = element("span", { class: "count" });
    const create = (iconName, click) =>
      element("button", { type: "button", class: "ghost icon", on: { click } }, icon(iconName));
    this.separate = create("split", () => onSeparate(this.tracks));
    this.download = create("down", () => onDownload(this.tracks));
    this.box = element("div", { class: "list-heading" }, this.name, this.count, this.separate, this.download);
  }

  show({ key, name, tracks }) {
    this.tracks = tracks ?? [];
    this.box.dataset.key = key;
    setText(this.name, name);
    this.name.title = name;
    setText(this.count, tracks ? formatNumber(tracks.length) : "");
    bindLabel(this.separate, "separateAll", { name });
    bindLabel(this.download, "downloadAll", { name });
    this.separate.hidden = !this.tracks.some(isSeparable);
    this.download.hidden = !this.tracks.some(isReady);
  }
}

/** One row. Its elements are reused, so that the focus and the screen reader's position stay. */
class Row {
  #actions = ""; // the names of its buttons

  /** `onClick(event, id)` is called for clicks on a track. */
  constructor(onClick) {
    this.check = element("input", { type: "checkbox", hidden: true });
    this.title = element("span", { class: "title" });
    this.artist = element("span", { class: "artist" });
    this.status = element("span", { class: "row-status" });
    this.detail = element("span", { class: "detail" }, this.artist, this.status);
    this.link = element("a", { class: "row-link" }, this.title, this.detail);
    this.buttons = element("div", { class: "buttons" });
    this.progress = element("progress", { max: 1 });
    this.box = element("li", { class: "row" }, this.check, this.link, this.buttons, this.progress);
    for (const target of [this.link, this.check]) {
      target.addEventListener("click", (event) => {
        if (this.id) onClick(event, this.id);
      });
    }
  }

  /** `progress` is a fraction or null, `actions` a list of [name, icon, onClick]. */
  #render({ key, state, title, artist = "", status, progress, actions }) {
    this.box.dataset.key = key;
    this.box.dataset.state = state;
    setText(this.title, title);
    setText(this.artist, artist);
    setText(this.status, status);
    this.title.title = title;
    this.detail.title = state === "failed" ? status : "";
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
    const { key, file, sent, error } = item;
    const sending = !error && uploads.isSending(item);
    const cancel = ["cancel", "close", () => uploads.cancel(item)];
    const retry = ["retry", "retry", () => uploads.retry(item)];
    this.#render({
      key,
      state: error ? "failed" : "uploading",
      title: file.name,
      status: error ? errorText(error) : sending ? text("uploading", { sent: formatPercent(sent) }) : text("waiting"),
      progress: sending ? sent : null,
      actions: error ? [retry, cancel] : [cancel],
    });
  }

  /** `chosen` is null unless tracks are being chosen. */
  showTrack(track, { tracks, deletions, chosen }) {
    this.id = track.id;
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
      delete: ["delete", "trash", () => deletions.add([track])],
    };
    const separating = track.state === "separating";
    const title = titleOf(track);
    this.#render({
      key: track.id,
      state: track.state,
      title,
      artist: track.artist ?? "",
      status: rowStatus(track),
      progress: separating ? progressOf(track) : null,
      actions: actions.map((name) => buttons[name]),
    });
    this.link.href = `#${track.id}`;
    this.check.hidden = chosen === null;
    this.buttons.hidden = chosen !== null;
    this.check.checked = Boolean(chosen);
    this.check.setAttribute("aria-label", title);
    this.box.classList.toggle("chosen", Boolean(chosen));
  }

  /** Mark the row of the open track. */
  setCurrent(current) {
    if (current) this.link.setAttribute("aria-current", "true");
    else this.link.removeAttribute("aria-current");
  }
}
