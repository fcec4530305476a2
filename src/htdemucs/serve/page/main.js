/** Puts the page together: tracks, uploads, the list, the open track, keys and languages. */

import * as server from "./api.js";
import { Choices } from "./choices.js";
import { announce, toast } from "./dom.js";
import { listen, showKeys } from "./keys.js";
import { showOutside } from "./outside.js";
import { Player } from "./player.js";
import { Queue } from "./queue.js";
import { problem, switchLanguage, text, translate } from "./text.js";
import { TrackView } from "./track.js";
import { titleOf, Tracks } from "./tracks.js";
import { collect, Uploads } from "./upload.js";

const RETRY = 2000; // milliseconds until the server is asked again what it can do

const at = (id) => document.getElementById(id);

export const tracks = new Tracks();
export const player = new Player(server);
let choices;
let view = null; // the TrackView that is open
let context;
let queue;

/** Open the track that the address names, or the list. */
function route() {
  const id = location.hash.slice(1);
  const track = tracks.get(id);
  if (view && view.id === id && track) return;
  view?.close();
  view = null;
  at("track").hidden = !track;
  at("invitation").hidden = Boolean(track);
  document.body.dataset.view = track ? "track" : "list";
  if (track) {
    view = new TrackView(at("track"), track, { tracks, player, context });
    scrollTo(0, 0);
  } else {
    player.pause();
    document.title = "htdemucs";
  }
  queue.selected = track ? id : null;
  queue.draw();
}

/** Take in what changed on the server. */
function refresh() {
  document.body.dataset.tracks = tracks.size + uploads.waiting.length ? "some" : "none";
  const track = view && tracks.get(view.id);
  if (view && (!track || track.stems.join() !== view.stems)) {
    view.close();
    view = null;
  }
  if (track && view) view.update(track);
  route();
  queue.draw();
}

const uploads = new Uploads(
  () => choices?.current ?? {}, // the server's own, until it has said what there is
  (track) => {
    tracks.put(track);
    if (!view) location.hash = track.id;
  },
);

function act(action, argument) {
  if (action === "help") {
    at("help").showModal();
    return true;
  }
  return view?.act(action, argument) ?? false;
}

function wire() {
  tracks.addEventListener("change", refresh);
  tracks.addEventListener("state", ({ detail }) => {
    if (["finished", "failed"].includes(detail.state)) {
      announce(text(`${detail.state}Track`, { title: titleOf(detail) }));
    }
  });
  uploads.addEventListener("change", refresh);
  player.addEventListener("change", () => view?.show());
  player.addEventListener("failure", ({ detail }) => toast(problem(detail)));
  addEventListener("hashchange", () => {
    route();
    at("main").focus({ preventScroll: true });
  });
  addEventListener("beforeunload", (event) => {
    if (uploads.waiting.some(({ error }) => !error)) event.preventDefault();
  });
  at("language").addEventListener("click", () => {
    switchLanguage();
    choices.show();
    queue.draw();
    view?.show();
  });
  at("help-open").addEventListener("click", () => at("help").showModal());
  at("toast-close").addEventListener("click", () => (at("toast").hidden = true));
  for (const button of document.querySelectorAll("[data-choose]")) {
    button.addEventListener("click", () => choices.ask());
  }
  listen(act);
  showOutside(player);
}

/** Ask the server what it can do, until it answers. */
async function greet() {
  for (;;) {
    try {
      return await server.info();
    } catch (refusal) {
      at("offline").hidden = refusal.status !== 0;
      if (refusal.status !== 0) toast(problem(refusal));
      await new Promise((resolve) => setTimeout(resolve, RETRY));
    }
  }
}

async function begin() {
  showKeys(at("keys"));
  translate();
  collect(uploads); // nobody's song waits for the answer
  const info = await greet();
  choices = new Choices(info);
  context = { info, choose: () => choices.ask({ title: "againTitle", done: "separate" }) };
  queue = new Queue(at("lists"), tracks, uploads);
  choices.show();
  wire();
  refresh();
  const rest = server.follow(tracks, (connected) => {
    at("offline").hidden = connected;
  });
  const look = () => rest(document.hidden && !player.playing); // nobody sees or hears it
  document.addEventListener("visibilitychange", look);
  player.addEventListener("change", look);
  look();
  document.body.dataset.ready = "yes";
}

begin();
