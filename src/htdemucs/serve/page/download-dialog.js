/** The download dialog: what to download, in which format, and which part; and its preparation. */

import * as api from "./api.js";
import { element } from "./dom.js";
import { bindText, errorText, formatPercent, formatTime, stemName, text } from "./i18n/index.js";
import { stemGains, stemSettings } from "./mixer.js";

const POLL_INTERVAL = 300; // milliseconds between looks at the progress
const STEM_FILE_STEMS = "bass,drums,other,vocals"; // sorted; a stem file needs exactly these

const createOption = (value, label, selected) => element("option", { value, selected }, label);

function createField(key, control) {
  control.id = `download-${key}`;
  return element("div", { class: "field" }, bindText(element("label", { for: control.id }), key), control);
}

function createCheckbox(name, key, values) {
  const box = element("input", { type: "checkbox", name });
  return element("label", { class: "check" }, box, bindText(element("span"), key, values));
}

/** Return a mix as the API's parameters `gains` and `pans`. */
function mixParameters(mix, stems) {
  const audible = stemGains(mix, stems).map(([left, right]) => left || right);
  const round = (value) => Number(value.toFixed(4));
  const gains = stems.map((stem, i) => `${stem}:${round(audible[i] ? stemSettings(mix, stem).gain : 0)}`);
  const pans = stems
    .map((stem) => [stem, stemSettings(mix, stem).pan])
    .filter(([, pan]) => pan !== 0)
    .map(([stem, pan]) => `${stem}:${round(pan)}`);
  return { gains: gains.join(","), pans: pans.join(",") || null };
}

/** Create the fields for the format and its quality; with `asStored` the stems may stay as they are. */
function createFormatFields(info, { asStored = false } = {}) {
  const stored = asStored ? [bindText(createOption("", ""), "asStored")] : [];
  const formats = Object.entries(info.formats).map(([name, { label }]) => createOption(name, label));
  const format = element("select", { name: "format" }, ...stored, ...formats);
  const quality = element("select", { name: "quality" });
  const updateQualities = () => {
    const { bit_depths: depths = [], bitrates = [], default_bitrate: usual } = info.formats[format.value] ?? {};
    const options = depths.length
      ? depths.map((value) => createOption(value, text("bits", { value })))
      : bitrates.map((value) => createOption(value, text("kbits", { value }), value === usual));
    quality.replaceChildren(...options);
  };
  const formatChoices = () => {
    if (!format.value) return {};
    const qualityName = info.formats[format.value].bit_depths.length ? "bit_depth" : "bitrate";
    return { format: format.value, [qualityName]: Number(quality.value) || null };
  };
  const formatField = createField("format", format);
  const qualityField = createField("quality", quality);
  return { format, quality, formatField, qualityField, updateQualities, formatChoices };
}

/** Open the dialog for the stems of several tracks, in one zip file. */
export function openSelectionDownloadDialog(tracks, info) {
  const { format, quality, formatField, qualityField, updateQualities, formatChoices } = createFormatFields(
    info,
    { asStored: true },
  );
  const note = bindText(element("p"), "downloadMany", { count: tracks.length });
  const fields = element("div", { class: "fields" }, formatField, qualityField);
  const body = document.getElementById("download-body");
  body.replaceChildren(note, fields);
  body.closest("form").onchange = null;
  format.onchange = () => {
    updateQualities();
    qualityField.hidden = quality.options.length === 0;
  };
  format.onchange();
  const dialog = document.getElementById("download-dialog");
  const ids = tracks.map(({ id }) => id);
  new Preparation(dialog, () => api.prepareExports(ids, formatChoices()));
  dialog.showModal();
}

/** Open the dialog for the track, mix, loop, tempo and pitch of a player. */
export function openDownloadDialog({ track, mix, loop, tempo, pitch }, info) {
  const body = document.getElementById("download-body");
  const form = body.closest("form");
  let choices; // what the server is asked for

  const kinds = ["mix", "stem", "zip"];
  if ([...track.stems].sort().join() === STEM_FILE_STEMS) kinds.push("stem-file");
  const createCard = (kind, i) =>
    element(
      "label",
      { class: "card" },
      element("input", { type: "radio", name: "kind", value: kind, checked: i === 0 }),
      element(
        "span",
        {},
        bindText(element("b"), `download_${kind}`),
        bindText(element("small"), `download_${kind}_more`),
      ),
    );
  const legend = bindText(element("legend"), "downloadKind");
  const cards = element("fieldset", { class: "cards" }, legend, ...kinds.map(createCard));

  const stems = track.stems.map((name) => createOption(name, stemName(name)));
  const stem = element("select", { name: "stem" }, ...stems);
  const stemField = createField("stem", stem);
  const { format, quality, formatField, qualityField, updateQualities, formatChoices } = createFormatFields(info);
  const fields = element("div", { class: "fields" }, stemField, formatField, qualityField);

  const checkboxes = [];
  if (loop) {
    const [from, to] = [loop.from, loop.to].map((frame) => formatTime(frame / track.sample_rate, 1));
    const region = createCheckbox("region", "loopOnly", { from, to });
    region.querySelector("input").checked = loop.on;
    checkboxes.push(region);
  }
  if (tempo !== 1 || pitch !== 0) {
    const values = { tempo: formatPercent(tempo), pitch: pitch > 0 ? `+${pitch}` : pitch };
    checkboxes.push(createCheckbox("stretch", "applyStretch", values));
  }
  checkboxes.push(createCheckbox("residual", "residual"));
  body.replaceChildren(cards, fields, ...checkboxes);

  const update = () => {
    const kind = form.elements.kind.value;
    const isChecked = (name) => form.elements[name]?.checked;
    stemField.hidden = kind !== "stem";
    formatField.hidden = kind === "stem-file";
    qualityField.hidden = kind === "stem-file" || quality.options.length === 0;
    form.elements.residual.parentElement.hidden = kind !== "zip";
    const asksForStretch = kind === "stem" || kind === "zip"; // a mix is as it sounds
    if (form.elements.stretch) form.elements.stretch.parentElement.hidden = !asksForStretch;
    const stretched = kind === "mix" || (asksForStretch && isChecked("stretch"));
    const seconds = (frame) => Number((frame / track.sample_rate).toFixed(6));
    choices = {
      kind,
      stem: kind === "stem" ? stem.value : null,
      ...(kind === "mix" ? mixParameters(mix, track.stems) : {}),
      ...(kind === "stem-file" ? {} : formatChoices()),
      ...(isChecked("region") ? { from: seconds(loop.from), to: seconds(loop.to) } : {}),
      ...(stretched ? { tempo, pitch } : {}),
      residual: kind === "zip" && isChecked("residual") ? true : null,
    };
  };
  format.onchange = updateQualities; // before the event reaches the form
  form.onchange = update;
  updateQualities();
  update();
  const dialog = document.getElementById("download-dialog");
  new Preparation(dialog, () => api.prepareExport(track.id, choices));
  dialog.showModal();
}

/** Prepares a download while the dialog shows its progress, and gives it to the browser. */
class Preparation {
  #dialog;
  #button = document.getElementById("download-start");
  #status = document.getElementById("download-status");
  #progress = document.getElementById("download-progress");
  #error = document.getElementById("download-error");
  #job = null; // while it is being prepared
  #closed = false;

  /** `prepare()` asks the server for the download. */
  constructor(dialog, prepare) {
    this.#dialog = dialog;
    this.#showPreparing(false);
    this.#error.hidden = true;
    this.#button.onclick = () => this.#start(prepare);
    dialog.addEventListener("close", () => this.#close(), { once: true });
  }

  #showPreparing(preparing) {
    this.#button.disabled = preparing;
    this.#status.hidden = !preparing;
    this.#progress.removeAttribute("value");
  }

  async #start(prepare) {
    if (this.#button.disabled) return;
    this.#error.hidden = true;
    this.#showPreparing(true);
    try {
      this.#job = await prepare();
      while (!this.#closed && this.#job.state === "preparing") {
        if (this.#job.progress) this.#progress.value = this.#job.progress;
        await new Promise((resolve) => setTimeout(resolve, POLL_INTERVAL));
        if (!this.#closed) this.#job = await api.exportState(this.#job.id);
      }
      if (this.#closed) {
        this.#cancel();
        return;
      }
      if (this.#job.state === "failed") {
        const { error, code } = this.#job;
        throw new api.ApiError(error, 400, code);
      }
      const { id, filename } = this.#job;
      this.#job = null;
      element("a", { href: api.exportUrl(id), download: filename }).click();
      this.#dialog.close();
    } catch (error) {
      if (!(error instanceof api.ApiError)) throw error;
      this.#job = null;
      this.#error.textContent = errorText(error);
      this.#error.hidden = false;
      this.#showPreparing(false);
    }
  }

  #close() {
    this.#closed = true;
    this.#cancel();
  }

  #cancel() {
    if (this.#job) api.cancelExport(this.#job.id).catch(() => {}); // it may have ended by now
    this.#job = null;
  }
}
