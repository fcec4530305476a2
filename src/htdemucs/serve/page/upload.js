/** Uploads: files and folders that are dropped, pasted or chosen, sent one after the other. */

import { ApiError, upload } from "./api.js";

const MEDIA = /\.(aac|aiff?|alac|ape|flac|m4[abv]|mk[av]|mov|mp[234]|oga|ogg|opus|wav|webm|wma|wv|avi|caf)$/i;

const isMedia = (file) => /^(audio|video)\//.test(file.type) || MEDIA.test(file.name);

/** Return a dropped entry's file, or all files in its folder in the order of their names. */
async function filesIn(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const entries = [];
  for (;;) {
    const batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (batch.length === 0) break;
    entries.push(...batch);
  }
  entries.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  return (await Promise.all(entries.map(filesIn))).flat();
}

/** Return the files of a drop or a paste: any single file, and the media files in folders. */
export async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (entries.length === 0) return [...transfer.files];
  const lists = await Promise.all(
    entries.map(async (entry) => {
      const files = await filesIn(entry);
      return entry.isFile ? files : files.filter(isMedia);
    }),
  );
  return lists.flat();
}

/** Return 32 random hexadecimal digits. (Over plain http, browsers have no crypto.randomUUID.) */
function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The files that are being uploaded; dispatches "change" when one of them has changed. */
export class Uploads extends EventTarget {
  // {key: of its row and of the request, file, options, sent: 0 to 1, error: ApiError or null}
  items = []; // sent in this order

  #options;
  #onUploaded;
  #current = null; // {item, request}

  /** `options()` returns the model and stems; `onUploaded(track)` is called with the new track. */
  constructor(options, onUploaded) {
    super();
    this.#options = options;
    this.#onUploaded = onUploaded;
  }

  /** Send files; `options` are the model and stems, instead of those selected when they are sent. */
  add(files, options = null) {
    for (const file of files) {
      this.items.push({ key: randomKey(), file, options, sent: 0, error: null });
    }
    this.#notify();
    this.#sendNext();
  }

  /** Whether an item is the one that is being sent. */
  isSending(item) {
    return this.#current?.item === item;
  }

  retry(item) {
    Object.assign(item, { error: null, sent: 0 });
    this.#notify();
    this.#sendNext();
  }

  cancel(item) {
    if (this.#current?.item === item) this.#current.request.abort();
    this.#remove(item);
    this.#notify();
  }

  #remove(item) {
    this.items = this.items.filter((other) => other !== item);
  }

  #notify() {
    this.dispatchEvent(new Event("change"));
  }

  async #sendNext() {
    const item = this.items.find(({ error }) => !error);
    if (this.#current || !item) return;
    const request = upload(item.file, item.key, item.options ?? this.#options(), (sent) => {
      item.sent = sent;
      this.#notify();
    });
    this.#current = { item, request };
    this.#notify();
    try {
      const track = await request.done;
      this.#remove(item);
      this.#onUploaded(track);
    } catch (error) {
      if (error instanceof ApiError) item.error = error;
      else if (error.name !== "AbortError") item.error = new ApiError(String(error), 500);
    }
    this.#current = null;
    this.#notify();
    this.#sendNext();
  }
}

/** Add to `uploads` what is dropped anywhere, pasted, or chosen by the page's buttons. */
export function acceptFiles(uploads) {
  const overlay = document.getElementById("drop-overlay");
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    overlay.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) overlay.hidden = true;
  });
  document.addEventListener("drop", async (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    overlay.hidden = true;
    uploads.add(await filesOf(event.dataTransfer));
  });
  document.addEventListener("paste", async (event) => {
    if (event.clipboardData?.files.length) uploads.add(await filesOf(event.clipboardData));
  });
  for (const kind of ["files", "folder"]) {
    const input = document.getElementById(`${kind}-input`);
    input.addEventListener("change", () => {
      uploads.add([...input.files].filter((file) => kind === "files" || isMedia(file)));
      input.value = "";
    });
    for (const button of document.querySelectorAll(`[data-add=${kind}]`)) {
      button.addEventListener("click", () => input.click());
    }
  }
}
