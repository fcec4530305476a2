/** The settings dialog: the stems' format, the use of the disk, and a button that deletes previews. */

import * as api from "./api.js";
import { announce, element } from "./dom.js";
import { bindText, formatBytes, formatDescription, text } from "./i18n/index.js";
import { showErrors } from "./show-errors.js";

const SIZES = ["library", "uploads", "previews", "free"];

/** Open the dialog; `info` is what the server supports. */
export async function openSettings(info) {
  const dialog = document.getElementById("settings-dialog");
  const body = document.getElementById("settings-body");
  body.replaceChildren(bindText(element("p", { class: "note" }), "readingDisk"));
  dialog.showModal();
  const storage = await attempt(() => api.storage());
  body.replaceChildren(...(storage ? [createFormats(storage, info), createSizes(storage)] : []));
}

/** Return the result of a request; if it fails, show why in the dialog and return null. */
function attempt(request) {
  const node = document.getElementById("settings-error");
  node.hidden = true;
  return showErrors(request, (message) => {
    node.textContent = message;
    node.hidden = false;
  });
}

function createFormats({ format, formats, fixed }, info) {
  const inputs = formats.map((name) =>
    element("input", { type: "radio", name: "stem-format", value: name, checked: name === format, disabled: fixed }),
  );
  for (const input of inputs) {
    input.addEventListener("change", async () => {
      const storage = await attempt(() => api.changeStorage(input.value));
      format = storage?.format ?? format;
      for (const other of inputs) other.checked = other.value === format;
    });
  }
  const cards = inputs.map((input) => {
    const lines = [
      element("b", {}, info.formats[input.value].label),
      element("small", {}, formatDescription(input.value) ?? ""),
    ];
    return element("label", { class: "card" }, input, element("span", {}, ...lines));
  });
  const legend = bindText(element("legend"), "stemFormat");
  const note = bindText(element("p", { class: "note" }), fixed ? "stemFormatFixed" : "stemFormatNew");
  return element("fieldset", { class: "cards" }, legend, ...cards, note);
}

function createSizes({ bytes }) {
  const values = SIZES.map(() => element("dd"));
  const button = bindText(element("button", { type: "button", class: "secondary" }), "deletePreviews");
  const update = (latest) => SIZES.forEach((name, i) => (values[i].textContent = formatBytes(latest[name])));
  update(bytes);
  button.addEventListener("click", async () => {
    const storage = await attempt(() => api.deletePreviews());
    if (!storage) return;
    update(storage.bytes);
    announce(text("previewsDeleted"));
  });
  const rows = SIZES.flatMap((name, i) => [bindText(element("dt"), `disk_${name}`), values[i]]);
  const note = bindText(element("span"), "deletePreviewsMore");
  return element(
    "fieldset",
    {},
    bindText(element("legend"), "disk"),
    element("dl", { class: "sizes" }, ...rows),
    element("p", { class: "note" }, button, note),
  );
}
