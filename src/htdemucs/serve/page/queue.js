/** The list: songs being sent, the queue with progress, speed and time left, and the library. */

import { act, remove } from "./api.js";
import { announce, arrange, element, icon, setText, toast } from "./dom.js";
import { forget } from "./store.js";
import { titleOf } from "./tracks.js";
import { clock, failure, label, number, problem, say, text } from "./text.js";

const PAGE = 100; // rows shown at first, and with each "more"

/** Return what a track's row says beside its title. */
export function detailOf(track) {
  const length = track.duration ? clock(track.duration) : null;
  switch (track.state) {
    case "queued":
      return text("queued", { position: track.position ?? 1 });
    case "separating":
      return progressOf(track);
    case "failed":
      return failure(track);
    case "cancelled":
      return text("cancelled");
    case "unseparated":
      return [text("unseparated"), length].filter(Boolean).join(" · ");
    default:
      return [track.artist, length, track.model].filter(Boolean).join(" · ");
  }
}

function progressOf({ done, duration, speed, left }) {
  const parts = [duration ? `${number((100 * done) / duration)} %` : text("starting")];
  if (left !== null && left !== undefined) parts.push(text("left", { time: clock(left + 0.5) }));
  if (speed) parts.push(text("speed", { speed: number(speed, speed < 10 ? 1 : 0) }));
  return parts.join(" · ");
}

/** Ask before something is deleted; returns whether it may. */
export function confirmDelete(track) {
  const dialog = document.getElementById("confirm");
  say(document.getElementById("confirm-title"), "deleteTitle", { title: titleOf(track) });
  say(document.getElementById("confirm-more"), track.kind === "upload" ? "deleteUpload" : "deleteLibrary");
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

/** Do something with a track on the server, and say why it could not be done. */
export async function attempt(work) {
  try {
    return await work();
  } catch (refusal) {
    toast(problem(refusal));
    return null;
  }
}

export async function deleteTrack(track, tracks) {
  if (!(await confirmDelete(track))) return;
  if (!(await attempt(() => remove(track.id)))) return;
  forget(track.id);
  tracks.drop(track.id);
  announce(text("deleted", { title: titleOf(track) }));
}

export class Queue {
  #tracks;
  #uploads;
  #rows = new Map(); // key -> Row
  #limit = PAGE;
  #search = "";
  selected = null; // the id of the open track

  constructor(root, tracks, uploads) {
    this.#tracks = tracks;
    this.#uploads = uploads;
    const section = (key) => {
      const list = element("ul", { class: "rows" });
      const heading = say(element("h2"), key);
      return { list, box: element("section", {}, heading, list) };
    };
    this.working = section("working");
    this.library = section("library");
    this.more = say(element("button", { type: "button", class: "plain wide", hidden: true }), "more");
    this.more.addEventListener("click", () => {
      this.#limit += PAGE;
      this.draw();
    });
    this.nothing = say(element("p", { class: "nothing", hidden: true }), "nothing");
    root.replaceChildren(this.working.box, this.library.box, this.nothing, this.more);
    const search = document.getElementById("search");
    search.addEventListener("input", () => {
      this.#search = search.value;
      this.#limit = PAGE;
      this.draw();
    });
  }

  draw() {
    const { working, others } = this.#tracks.sorted(this.#search);
    const shown = others.slice(0, this.#limit);
    const keep = new Set();
    const row = (key, fill) => {
      keep.add(key);
      if (!this.#rows.has(key)) this.#rows.set(key, new Row());
      const made = this.#rows.get(key);
      fill(made);
      return made.box;
    };
    const uploads = this.#uploads.waiting.map((item) =>
      row(item.key, (made) => made.showUpload(item, this.#uploads)),
    );
    const rows = (list) =>
      list.map((track) =>
        row(track.id, (made) => made.showTrack(track, this.#tracks, track.id === this.selected)),
      );
    arrange(this.working.list, [...uploads, ...rows(working)]);
    arrange(this.library.list, rows(shown));
    for (const key of this.#rows.keys()) if (!keep.has(key)) this.#rows.delete(key);
    this.working.box.hidden = uploads.length + working.length === 0;
    this.library.box.hidden = shown.length === 0;
    this.more.hidden = shown.length === others.length;
    this.nothing.hidden = !this.#search || working.length + others.length > 0;
  }
}

/** One row: it keeps its elements, so that focus and screen readers stay where they are. */
class Row {
  #actions = ""; // the names of the buttons there are

  constructor() {
    this.title = element("span", { class: "title" });
    this.detail = element("span", { class: "detail" });
    this.link = element("a", { class: "open" }, this.title, this.detail);
    this.buttons = element("div", { class: "buttons" });
    this.progress = element("progress", { max: 1 });
    this.box = element("li", { class: "row" }, this.link, this.buttons, this.progress);
  }

  #show(state, title, detail, fraction, actions) {
    this.box.dataset.state = state;
    setText(this.title, title);
    setText(this.detail, detail);
    this.title.title = title;
    this.progress.hidden = fraction === null;
    if (fraction !== null) this.progress.value = fraction;
    this.progress.setAttribute("aria-label", title);
    const names = actions.map(([name]) => name).join();
    if (names !== this.#actions) {
      this.#actions = names;
      this.buttons.replaceChildren(
        ...actions.map(([name, picture]) =>
          element("button", { type: "button", class: "quiet icon", data: { action: name } }, icon(picture)),
        ),
      );
    }
    actions.forEach(([name, , click], i) => {
      label(this.buttons.children[i], `${name}Track`, { title });
      this.buttons.children[i].onclick = click;
    });
  }

  showUpload(item, uploads) {
    const cancel = ["cancel", "close", () => uploads.cancel(item)];
    const retry = ["retry", "retry", () => uploads.retry(item)];
    const detail = item.error ? problem(item.error) : text("sending", { sent: number(100 * item.sent) });
    const actions = item.error ? [retry, cancel] : [cancel];
    this.#show(item.error ? "failed" : "sending", item.file.name, detail, item.error ? null : item.sent, actions);
  }

  showTrack(track, tracks, selected) {
    const run = (action) => async () => {
      const changed = await attempt(() => act(track.id, action));
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
    const known = {
      first: ["first", "first", run("first")],
      cancel: ["cancel", "close", run("cancel")],
      retry: ["retry", "retry", run("retry")],
      delete: ["delete", "trash", () => deleteTrack(track, tracks)],
    };
    const working = track.state === "separating";
    const fraction = working ? Math.min(1, track.done / (track.duration || Infinity)) : null;
    this.#show(track.state, titleOf(track), detailOf(track), fraction, actions.map((name) => known[name]));
    this.link.href = `#${track.id}`;
    if (selected) this.link.setAttribute("aria-current", "true");
    else this.link.removeAttribute("aria-current");
  }
}
