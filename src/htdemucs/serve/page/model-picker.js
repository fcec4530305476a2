/** The dialog that picks the model and the stems, for new songs or for one song. */

import { element } from "./dom.js";
import { bindText, formatBytes, modelDescription, stemName, text } from "./i18n/index.js";
import { readSettings, saveSettings } from "./storage.js";

export const SMALL = "mini"; // comes with the server
const SHIFTS = [1, 2, 5]; // runs to average
const CURRENT = ["mini", "htdemucs", "htdemucs_ft", "htdemucs_6s"]; // the other published ones are older

export class ModelPicker {
  #info;

  constructor(info) {
    this.#info = info;
    const quality = document.getElementById("quality");
    quality.append(...SHIFTS.map((shifts) => bindText(element("option", { value: shifts }), `shifts_${shifts}`)));
    quality.addEventListener("change", () => saveSettings({ shifts: Number(quality.value) }));
    document.getElementById("use-mini").addEventListener("click", () => {
      saveSettings({ model: SMALL, stems: null });
      this.showSelection();
    });
  }

  /** Take the server's info again: a model may have been downloaded. */
  update(info) {
    this.#info = info;
    this.showSelection();
  }

  /** The selected {model, stems, shifts}; `stems` is null for all. */
  get selection() {
    const { model: name, stems, shifts } = readSettings();
    const model = this.#model(name);
    const known = stems?.filter((stem) => model.stems.includes(stem));
    const some = known?.length && known.length < model.stems.length;
    const runs = SHIFTS.includes(shifts) ? shifts : 1;
    return { model: model.name, stems: some ? known : null, shifts: runs };
  }

  /** The server's facts on the selected model: {name, stems, ready, bytes, about, licence}. */
  get selected() {
    return this.#model(this.selection.model);
  }

  /** Return the model of this name, or the server's default. */
  #model(name) {
    const { models, default_model } = this.#info;
    const find = (wanted) => models.find((model) => model.name === wanted);
    return find(name) ?? find(default_model) ?? models[0];
  }

  /** Show the selection on the page's buttons. */
  showSelection() {
    const { model, stems } = this.selection;
    const names = stems ? stems.map(stemName).join(text("comma")) : text("allStems");
    for (const node of document.querySelectorAll(".model-selection")) {
      node.textContent = `${model} · ${names}`;
    }
    const { ready, bytes } = this.#model(model);
    document.getElementById("model-note").hidden = ready;
    const key = bytes ? "firstDownload" : "firstDownloadUnknown";
    bindText(document.getElementById("model-note-text"), key, { model, size: formatBytes(bytes) });
  }

  /** Open the dialog; returns the selection when it is confirmed, null if it is dismissed. */
  open({ title = "newSongs", done = "done" } = {}) {
    const dialog = document.getElementById("model-dialog");
    bindText(document.getElementById("model-title"), title);
    bindText(document.getElementById("model-done"), done);
    const { model: selected, shifts } = this.selection;
    document.getElementById("quality").value = shifts;
    this.#renderModels(selected);
    this.#renderStems();
    dialog.returnValue = "";
    dialog.querySelector("form").onsubmit = (event) => {
      if (event.submitter) dialog.returnValue = "done";
    };
    dialog.showModal();
    return new Promise((resolve) => {
      const onClose = () => resolve(dialog.returnValue === "done" ? this.selection : null);
      dialog.addEventListener("close", onClose, { once: true });
    });
  }

  /** List the models; the older ones are folded away, unless one of them is selected. */
  #renderModels(selected) {
    const { models, default_model } = this.#info;
    const isOlder = ({ name }) => !CURRENT.includes(name) && name !== default_model;
    const createCards = (list) => list.map((model) => this.#createCard(model, model.name === selected));
    const older = models.filter(isOlder);
    const summary = bindText(element("summary", {}), "olderModels", { count: older.length });
    const cards = element("div", { class: "model-cards" }, ...createCards(older));
    const folded = element("details", { hidden: older.length === 0 }, summary, cards);
    folded.open = older.some(({ name }) => name === selected);
    const shown = createCards(models.filter((model) => !isOlder(model)));
    document.getElementById("models").replaceChildren(...shown, folded);
    const unstated = models.some(({ name, licence }) => !licence && modelDescription(name));
    document.getElementById("licence-note").hidden = !unstated;
  }

  #createCard({ name, stems, ready, bytes, about, licence }, checked) {
    const download = text(bytes ? "modelDownload" : "modelDownloadUnknown", { size: formatBytes(bytes) });
    const facts = [
      stems.length && text("stemCount", { count: stems.length }),
      ready ? text("modelReady") : download,
      stems.length && (licence ? text("licence", { licence: licence.toUpperCase() }) : text("noLicence")),
    ];
    const description = modelDescription(name) ?? about;
    const change = () => {
      saveSettings({ model: name, stems: null });
      this.#renderStems();
      this.showSelection();
    };
    return element(
      "label",
      { class: "card" },
      element("input", { type: "radio", name: "model", value: name, checked, on: { change } }),
      element(
        "span",
        {},
        element("span", {}, element("b", {}, name), " ", element("small", {}, description)),
        element("small", {}, facts.filter(Boolean).join(" · ")),
      ),
    );
  }

  #renderStems() {
    const { model, stems: selected } = this.selection;
    const { stems } = this.#model(model);
    const boxes = stems.map((stem) => {
      const checked = !selected || selected.includes(stem);
      return element("input", { type: "checkbox", value: stem, checked });
    });
    const onChange = (event) => {
      const checked = boxes.filter((box) => box.checked).map((box) => box.value);
      if (checked.length === 0) event.target.checked = true; // at least one is required
      else saveSettings({ stems: checked });
      this.showSelection();
    };
    const chips = boxes.map((box) => {
      box.addEventListener("change", onChange);
      return element("label", { class: "chip" }, box, element("span", {}, stemName(box.value)));
    });
    const list = document.getElementById("stems");
    list.replaceChildren(...chips);
    list.closest("fieldset").hidden = stems.length === 0;
  }
}
