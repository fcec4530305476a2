/**
 * The server's HTTP API: requests, uploads with progress, and the event stream.
 *
 * This is the only module that calls the API. Another source of tracks, such as one inside the
 * browser, needs the same exports; tests/page/test_api.py states what they do.
 */

const RECONNECT_DELAY = 500; // milliseconds before the first attempt to reconnect; doubled each time
const MAX_RECONNECT_DELAY = 15_000; // milliseconds

/** A request that the server refused (HTTP status, message, error code) or never received (status 0). */
export class ApiError extends Error {
  constructor(message, status, code = null) {
    super(message);
    Object.assign(this, { status, code });
  }
}

const request = (path, options) => fetchChecked(`api/${path}`, options);

async function fetchChecked(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("", 0);
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new ApiError(body.error ?? response.statusText, response.status, body.code);
}

const send = (method, path, body, options) =>
  request(path, {
    method,
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body ?? {}),
    ...options,
  });

const post = (path, body, options) => send("POST", path, body, options);

const fetchBytes = async (path) => (await request(path)).arrayBuffer();

/** Return an object without the values that are null, undefined or empty. */
const withoutEmpty = (values) =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => ![null, undefined, ""].includes(value)));

const query = (parameters) => new URLSearchParams(withoutEmpty(parameters)).toString();

/** Return the server's version, models, formats and limits. */
export const info = async () => (await request("info")).json();

/** Return the example song that comes with the page, as a File. */
export async function exampleSong() {
  const response = await fetchChecked("page/example.opus");
  return new File([await response.blob()], "Example song.opus", { type: "audio/ogg" });
}

/** Run `cancel`, `retry` or `first` (move to the front of the queue) on a track; returns the track. */
export const runAction = async (id, action) => (await post(`tracks/${id}/${action}`)).json();

/** Delete tracks. With `keepalive` the browser completes the request when the page is closed. */
export const deleteTracks = (ids, { keepalive = false } = {}) => post("tracks/delete", { tracks: ids }, { keepalive });

/** Set the title, artist or album of a track; null restores the file's own. Returns the track. */
export const edit = async (id, texts) => (await send("PATCH", `tracks/${id}`, texts)).json();

/** Ask the server to separate from this frame next. */
export const seek = (id, frame) => post(`tracks/${id}/seek`, { frame });

/** Separate an existing track (again), averaging `shifts` runs of the model; returns the new track. */
export const separate = async (track, { model, stems, shifts }) =>
  (await post("tracks", { track, model, stems, shifts })).json();

/** Queue tracks that have no stems; returns the ids {queued, refused: those without room}. */
export const separateAll = async (tracks, { model, stems, shifts }) =>
  (await post("tracks/separate", { tracks, model, stems, shifts })).json();

/**
 * Return {frames, samples} from a frame up to the first part that is not separated yet; null if
 * the frame itself is not. The samples are interleaved: the stems, then the original, all stereo.
 */
export async function pcm(track, { from, frames, tempo = 1, pitch = 0, signal }) {
  const stretch = tempo === 1 && pitch === 0 ? {} : { tempo, pitch };
  const stems = [...track.stems, "original"].join(",");
  const path = `tracks/${track.id}/pcm?${query({ from, frames, stems, ...stretch })}`;
  const response = await request(path, { signal });
  if (response.status === 204) return null;
  const samples = new Int16Array(await response.arrayBuffer());
  return { frames: samples.length / (2 * (track.stems.length + 1)), samples };
}

/** Return the minimum and maximum of every stem and the original, for columns of 1024 frames. */
export const peaks = async (id, from, columns) =>
  new Int8Array(await fetchBytes(`tracks/${id}/peaks?${query({ from, columns })}`));

/** Return the levels of 96 mel bands, for columns of `step` times 1024 frames. */
export const spectrogram = async (id, stem, from, columns, step) =>
  new Uint8Array(await fetchBytes(`tracks/${id}/spectrogram?${query({ stem, from, columns, step })}`));

/** Prepare a download; returns {id, state, progress, filename, error, code}. */
export const prepareExport = async (id, choices) => (await post(`tracks/${id}/exports`, withoutEmpty(choices))).json();

/** Prepare one zip file with the stems of several tracks. */
export const prepareExports = async (tracks, choices) =>
  (await post("exports", { tracks, ...withoutEmpty(choices) })).json();

/** Return the state of a download: "preparing", "ready" or "failed". */
export const exportState = async (id) => (await request(`exports/${id}`)).json();

/** Cancel a download that is being prepared. */
export const cancelExport = (id) => request(`exports/${id}`, { method: "DELETE" });

/** Return the URL of a download that is ready. */
export const exportUrl = (id) => `api/exports/${id}/file`;

/** Return the URL of a track's file, {name, bytes, url}, relative to the page, which a proxy may serve below a prefix. */
export const fileUrl = ({ url }) => url.replace(/^\//, "");

/** Return the stems' format, the formats to choose from, and the use of the disk in bytes. */
export const storage = async () => (await request("storage")).json();

/** Set the format of stems that are written from now on; returns what `storage` does. */
export const changeStorage = async (format) => (await send("PATCH", "storage", { format })).json();

/** Delete the previews, which are built again when they are played; returns what `storage` does. */
export const deletePreviews = async () => (await request("storage/previews", { method: "DELETE" })).json();

/**
 * Upload a file. Returns {done: promise of the track, abort}; calls onProgress(sent fraction).
 * Repeated with the same key, it adds no second track.
 */
export function upload(file, key, { model, stems, shifts }, onProgress) {
  const xhr = new XMLHttpRequest();
  const done = new Promise((resolve, reject) => {
    xhr.open("POST", `api/tracks?${query({ name: file.name, model, stems: stems?.join(","), shifts })}`);
    xhr.responseType = "json";
    xhr.setRequestHeader("Content-Type", "application/octet-stream");
    xhr.setRequestHeader("Idempotency-Key", key);
    xhr.upload.onprogress = (event) => onProgress(event.total ? event.loaded / event.total : 0);
    xhr.onerror = () => reject(new ApiError("", 0));
    xhr.onabort = () => reject(new DOMException("", "AbortError"));
    xhr.onload = () => {
      if (xhr.status === 201 || xhr.status === 200) {
        resolve(xhr.response);
      } else {
        const { error = xhr.statusText, code } = xhr.response ?? {};
        reject(new ApiError(error, xhr.status, code));
      }
    };
    xhr.send(file);
  });
  return { done, abort: () => xhr.abort() };
}

/**
 * Keep `tracks` equal to the server's; calls onConnection(whether the event stream is open).
 *
 * The browser reconnects by itself and sends the last version that it received, unless the server
 * refused the connection. Returns a function that closes the stream (true) or resumes it (false):
 * over HTTP/1.1 a browser opens only six connections to a server, and each stream takes one.
 */
export function subscribe(tracks, onConnection) {
  let delay = RECONNECT_DELAY;
  let source;
  let timer;
  let paused = false;
  const open = () => {
    source = new EventSource(`api/events?${query({ since: tracks.version })}`);
    source.addEventListener("tracks", (event) => tracks.apply(JSON.parse(event.data)));
    source.onopen = () => {
      delay = RECONNECT_DELAY;
      onConnection(true);
    };
    source.onerror = () => {
      onConnection(false);
      if (source.readyState !== EventSource.CLOSED) return;
      timer = setTimeout(open, delay);
      delay = Math.min(2 * delay, MAX_RECONNECT_DELAY);
    };
  };
  open();
  return (pause) => {
    if (pause === paused) return;
    paused = pause;
    clearTimeout(timer);
    source.close();
    if (!paused) open();
  };
}
