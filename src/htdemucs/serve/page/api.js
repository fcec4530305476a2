/** The server's API: requests, uploads with progress, and the one stream of changes. */

const LONGEST_WAIT = 15_000; // milliseconds between attempts to reach the server again

/** A request that the server refused (status, its sentence, a code) or never got (status 0). */
export class Refusal extends Error {
  constructor(message, status, code = null) {
    super(message);
    Object.assign(this, { status, code });
  }
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(`api/${path}`, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("", 0);
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new Refusal(body.error ?? response.statusText, response.status, body.code);
}

const post = (path, body) =>
  request(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body ?? {}),
  });

/** Write query parameters, leaving out what is null, undefined or empty. */
export function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined);
  return new URLSearchParams(given.filter(([, value]) => value !== "")).toString();
}

export const info = async () => (await request("info")).json();
export const act = async (id, action) => (await post(`tracks/${id}/${action}`)).json();
export const remove = (id) => request(`tracks/${id}`, { method: "DELETE" });
export const seek = (id, frame) => post(`tracks/${id}/seek`, { frame });

/** Separate a known track (again), with this model and these stems. */
export const separate = async (track, { model, stems }) =>
  (await post("tracks", { track, model, stems })).json();

/** Return {frames, samples} from a frame on, as far as can be heard; null where nothing can yet. */
export async function pcm(track, { from, frames, tempo = 1, pitch = 0, signal }) {
  const stretch = tempo === 1 && pitch === 0 ? {} : { tempo, pitch };
  const stems = [...track.stems, "original"].join(",");
  const path = `tracks/${track.id}/pcm?${query({ from, frames, stems, ...stretch })}`;
  const response = await request(path, { signal });
  if (response.status === 204) return null;
  const samples = new Int16Array(await response.arrayBuffer());
  return { frames: samples.length / (2 * (track.stems.length + 1)), samples };
}

const bytes = async (path) => (await request(path)).arrayBuffer();

/** Return min and max of every stem and the original, for columns of 1024 frames. */
export const peaks = async (id, from, columns) =>
  new Int8Array(await bytes(`tracks/${id}/peaks?${query({ from, columns })}`));

/** Return levels of 96 mel bands for columns of `step` times 1024 frames. */
export const spectrogram = async (id, stem, from, columns, step) =>
  new Uint8Array(await bytes(`tracks/${id}/spectrogram?${query({ stem, from, columns, step })}`));

/** Return the address of a file that the server makes for a download. */
export const exportAddress = (id, parameters) => `api/tracks/${id}/export?${query(parameters)}`;

/** Send a file. Returns {done: promise of the track, abort}; tells the sent fraction meanwhile. */
export function upload(file, { model, stems }, tell) {
  const sending = new XMLHttpRequest();
  const done = new Promise((resolve, reject) => {
    sending.open("POST", `api/tracks?${query({ name: file.name, model, stems: stems?.join(",") })}`);
    sending.responseType = "json";
    sending.setRequestHeader("Content-Type", "application/octet-stream");
    sending.upload.onprogress = (event) => tell(event.total ? event.loaded / event.total : 0);
    sending.onerror = () => reject(new Refusal("", 0));
    sending.onabort = () => reject(new DOMException("", "AbortError"));
    sending.onload = () => {
      if (sending.status === 201) resolve(sending.response);
      else {
        const { error = sending.statusText, code } = sending.response ?? {};
        reject(new Refusal(error, sending.status, code));
      }
    };
    sending.send(file);
  });
  return { done, abort: () => sending.abort() };
}

/**
 * Keep `tracks` as the server's are; tells `connected` whether the stream stands.
 *
 * The browser reconnects by itself, naming the last version it saw, unless the server refused.
 * Returns a function that ends the stream (true) and opens it again where it ended (false): a
 * browser has six connections to a server, and each open stream takes one.
 */
export function follow(tracks, connected) {
  let wait = 500;
  let source;
  let timer;
  let resting = false;
  const open = () => {
    source = new EventSource(`api/events?${query({ since: tracks.version })}`);
    source.addEventListener("tracks", (event) => tracks.apply(JSON.parse(event.data)));
    source.onopen = () => {
      wait = 500;
      connected(true);
    };
    source.onerror = () => {
      connected(false);
      if (source.readyState !== EventSource.CLOSED) return;
      timer = setTimeout(open, wait);
      wait = Math.min(2 * wait, LONGEST_WAIT);
    };
  };
  open();
  return (rest) => {
    if (rest === resting) return;
    resting = rest;
    clearTimeout(timer);
    source.close();
    if (!rest) open();
  };
}
