/** Songs from outside: dropped, pasted or chosen files and folders, sent one after the other. */

import { Refusal, upload } from "./api.js";

const SOUND = /\.(aac|aiff?|alac|ape|flac|m4[abv]|mk[av]|mov|mp[234]|oga|ogg|opus|wav|webm|wma|wv|avi|caf)$/i;

const isSound = (file) => /^(audio|video)\//.test(file.type) || SOUND.test(file.name);

/** Return the files below a dropped entry, in the order of names. */
async function filesBelow(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const entries = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) break;
    entries.push(...some);
  }
  entries.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  return (await Promise.all(entries.map(filesBelow))).flat();
}

/** Return the songs of a drop or a paste: any single file, and what sounds in folders. */
export async function songsOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (entries.length === 0) return [...transfer.files];
  const found = await Promise.all(
    entries.map(async (entry) => {
      const files = await filesBelow(entry);
      return entry.isFile ? files : files.filter(isSound);
    }),
  );
  return found.flat();
}

/** Songs on their way to the server; a "change" event tells that something moved. */
export class Uploads extends EventTarget {
  waiting = []; // {key, file, sent: 0..1, error: Refusal or null}, the first one being sent

  #options;
  #arrived;
  #current = null;
  #count = 0;

  /** `options()` gives model and stems; `arrived(track)` takes the track that the server made. */
  constructor(options, arrived) {
    super();
    this.#options = options;
    this.#arrived = arrived;
  }

  add(files) {
    for (const file of files) this.waiting.push({ key: `upload-${++this.#count}`, file, sent: 0, error: null });
    this.#changed();
    this.#next();
  }

  retry(item) {
    Object.assign(item, { error: null, sent: 0 });
    this.#changed();
    this.#next();
  }

  cancel(item) {
    if (this.#current?.item === item) this.#current.sending.abort();
    this.waiting = this.waiting.filter((other) => other !== item);
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }

  async #next() {
    const item = this.waiting.find(({ error }) => !error);
    if (this.#current || !item) return;
    const sending = upload(item.file, this.#options(), (sent) => {
      item.sent = sent;
      this.#changed();
    });
    this.#current = { item, sending };
    try {
      const track = await sending.done;
      this.waiting = this.waiting.filter((other) => other !== item);
      this.#arrived(track);
    } catch (error) {
      if (error.name !== "AbortError") item.error = error instanceof Refusal ? error : new Refusal(String(error), 500);
    }
    this.#current = null;
    this.#changed();
    this.#next();
  }
}

/** Bring files into `uploads`: by dropping anywhere, pasting, and the page's two buttons. */
export function collect(uploads) {
  const veil = document.getElementById("dropping");
  const carries = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    veil.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) veil.hidden = true;
  });
  document.addEventListener("drop", async (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    veil.hidden = true;
    uploads.add(await songsOf(event.dataTransfer));
  });
  document.addEventListener("paste", async (event) => {
    if (event.clipboardData?.files.length) uploads.add(await songsOf(event.clipboardData));
  });
  for (const kind of ["files", "folder"]) {
    const input = document.getElementById(kind);
    input.addEventListener("change", () => {
      uploads.add([...input.files].filter((file) => kind === "files" || isSound(file)));
      input.value = "";
    });
    for (const button of document.querySelectorAll(`[data-add=${kind}]`)) {
      button.addEventListener("click", () => input.click());
    }
  }
}
