/** Starts the page: connects tracks, uploads, the list, the open track, shortcuts and language. */

import * as api from "./api.js";
import { Deletions } from "./deletions.js";
import { announce, showToast } from "./dom.js";
import { errorText, formatPercent, text, toggleLanguage, translate } from "./i18n/index.js";
import { listenForShortcuts, renderShortcuts } from "./keyboard.js";
import { parseHash } from "./link.js";
import { connectMediaSession } from "./media-session.js";
import { ModelPicker, SMALL } from "./model-picker.js";
import { notify } from "./notifications.js";
import { Player } from "./player.js";
import { openSettings } from "./settings-dialog.js";
import { readSettings } from "./storage.js";
import { TrackList } from "./track-list.js";
import { TrackView } from "./track-view.js";
import { progressOf, titleOf, Tracks } from "./tracks.js";
import { acceptFiles, Uploads } from "./upload.js";

const RETRY_DELAY = 2000; // milliseconds between attempts to reach the server at the start

const byId = (id) => document.getElementById(id);

export const tracks = new Tracks();
export const player = new Player(api);
const uploads = new Uploads(
  () => modelPicker?.selection ?? {}, // before the server has listed its models: its default
  (track) => {
    tracks.put(track);
    if (!view) location.hash = track.id;
  },
);
const deletions = new Deletions(tracks);
let info; // what the server supports
let modelPicker;
let trackList;
let view = null; // the open TrackView

/** Open the track that the URL's hash names, or the list. */
function route() {
  const { id, seconds, mix } = parseHash(location.hash);
  const track = tracks.get(id);
  if (!view || view.id !== id || !track) openView(id, track);
  if (!track || (seconds === null && mix === null)) return;
  history.replaceState(null, "", `#${id}`); // or a reload would go back there
  view.show(seconds, mix);
}

/** Open a track, or the list if it is undefined. */
function openView(id, track) {
  view?.close();
  view = null;
  byId("track").hidden = !track;
  byId("welcome").hidden = Boolean(track);
  document.body.dataset.view = track ? "track" : "list";
  if (track) {
    const pickModel = () => modelPicker.open({ title: "thisSong", done: "separate" });
    view = new TrackView(byId("track"), track, { tracks, player, info, pickModel, deletions });
    scrollTo(0, 0);
  } else {
    player.pause();
  }
  showTitle();
  trackList.selected = track ? id : null;
  trackList.render();
}

/** Whether the open track is being separated. */
const isSeparating = () => view !== null && tracks.get(view.id)?.state === "separating";

/** Show the open track in the tab's title, with its progress while it is separated. */
function showTitle() {
  const track = view && tracks.get(view.id);
  if (!track) {
    document.title = "htdemucs";
  } else if (isSeparating()) {
    document.title = `${formatPercent(progressOf(track))} – ${titleOf(track)}`;
  } else {
    document.title = `${titleOf(track)} – htdemucs`;
  }
}

/** Upload the example song; if the selected model has to be downloaded first, use the small one. */
async function tryExample() {
  const { ready } = modelPicker.selected;
  try {
    const file = await api.exampleSong();
    uploads.add([file], ready ? null : { model: SMALL, stems: null });
  } catch (error) {
    showToast(errorText(error));
  }
}

/** Show changed tracks and uploads. */
function refresh() {
  document.body.dataset.tracks = tracks.size + uploads.items.length ? "some" : "none";
  const track = view && tracks.get(view.id);
  if (view && (!track || track.stems.join() !== view.stems)) {
    view.close();
    view = null;
  }
  if (track && view) view.update(track);
  route();
  showTitle();
  trackList.render();
}

/** Run a shortcut's action; returns whether it did anything. */
function runAction(action, argument) {
  if (action === "help") {
    byId("shortcuts-dialog").showModal();
    return true;
  }
  return view?.runAction(action, argument) ?? false;
}

function addListeners() {
  tracks.addEventListener("change", refresh);
  tracks.addEventListener("state", ({ detail }) => {
    if (detail.state === "finished") api.info().then((latest) => modelPicker.update(latest), () => {});
    if (["finished", "failed"].includes(detail.state)) {
      announce(text(`${detail.state}Track`, { title: titleOf(detail) }));
      notify(detail);
    }
  });
  uploads.addEventListener("change", refresh);
  player.addEventListener("change", () => view?.render());
  player.addEventListener("failure", ({ detail }) => showToast(errorText(detail)));
  addEventListener("hashchange", () => {
    route();
    byId("main").focus({ preventScroll: true });
  });
  addEventListener("beforeunload", (event) => {
    if (uploads.items.some(({ error }) => !error)) event.preventDefault();
  });
  byId("language").addEventListener("click", () => {
    toggleLanguage();
    modelPicker.showSelection();
    trackList.render();
    view?.render();
  });
  byId("settings-open").addEventListener("click", () => openSettings(info));
  byId("shortcuts-open").addEventListener("click", () => byId("shortcuts-dialog").showModal());
  byId("toast-close").addEventListener("click", () => (byId("toast").hidden = true));
  for (const button of document.querySelectorAll("[data-pick-model]")) {
    button.addEventListener("click", () => modelPicker.open());
  }
  byId("try-example").addEventListener("click", tryExample);
  listenForShortcuts(runAction);
  player.setVolume(readSettings().volume ?? 1);
  connectMediaSession(player);
}

/** Return the server's info; try until the server responds. */
async function fetchInfo() {
  for (;;) {
    try {
      return await api.info();
    } catch (error) {
      byId("offline").hidden = error.status !== 0;
      if (error.status !== 0) showToast(errorText(error));
      await new Promise((resolve) => setTimeout(resolve, RETRY_DELAY));
    }
  }
}

/** Follow the server's changes; a hidden tab does so only while it plays or its title has a progress. */
function subscribe() {
  const setPaused = api.subscribe(tracks, (connected) => {
    byId("offline").hidden = connected;
  });
  const update = () => setPaused(document.hidden && !player.playing && !isSeparating());
  document.addEventListener("visibilitychange", update);
  player.addEventListener("change", update);
  tracks.addEventListener("change", update);
  update();
}

async function start() {
  renderShortcuts(byId("shortcuts"));
  translate();
  acceptFiles(uploads); // before the first response: a file may be dropped at once
  info = await fetchInfo();
  modelPicker = new ModelPicker(info);
  const options = () => modelPicker.selection;
  trackList = new TrackList(byId("lists"), { tracks, uploads, deletions, info, options });
  modelPicker.showSelection();
  addListeners();
  refresh();
  subscribe();
  document.body.dataset.ready = "yes";
  navigator.serviceWorker?.register("service-worker.js").catch(() => {}); // over HTTPS, and on this machine
}

start();
