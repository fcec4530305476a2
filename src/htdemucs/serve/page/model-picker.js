/** The dialog that chooses a model and stems for the next songs. */

import { element } from "./dom.js";
import { choices, choose } from "./store.js";
import { modelWords, say, size, stemName, text } from "./text.js";

const ALL = null; // stems: all that the model has

export class Choices {
  #info;

  constructor(info) {
    this.#info = info;
  }

  /** Return {model, stems} for the next song; `stems` is null for all. */
  get current() {
    const { model, stems } = choices();
    const known = this.#model(model);
    const some = stems?.filter((stem) => known.stems.includes(stem));
    return { model: known.name, stems: some?.length && some.length < known.stems.length ? some : ALL };
  }

  #model(name) {
    const { models, default_model } = this.#info;
    const named = (wanted) => models.find((model) => model.name === wanted);
    return named(name) ?? named(default_model) ?? models[0];
  }

  /** Say on the page's buttons what is chosen. */
  show() {
    const { model, stems } = this.current;
    const what = stems ? stems.map(stemName).join(text("comma")) : text("allStems");
    for (const each of document.querySelectorAll(".choice")) {
      each.textContent = `${model} · ${what}`;
    }
  }

  /** Show the dialog; returns the choice once it is closed, or null if it was left by Escape. */
  ask({ title = "choicesTitle", done = "done" } = {}) {
    const dialog = document.getElementById("choices");
    say(document.getElementById("choices-title"), title);
    say(document.getElementById("choices-done"), done);
    const { model } = this.current;
    document.getElementById("models").replaceChildren(...this.#info.models.map((each) => this.#card(each, model)));
    this.#showStems();
    dialog.returnValue = "";
    dialog.querySelector("form").onsubmit = (event) => {
      if (event.submitter) dialog.returnValue = "done";
    };
    dialog.showModal();
    return new Promise((resolve) => {
      const closed = () => resolve(dialog.returnValue === "done" ? this.current : null);
      dialog.addEventListener("close", closed, { once: true });
    });
  }

  #card(model, chosen) {
    const state = model.ready ? text("ready") : text(model.bytes ? "downloads" : "downloadsSome", { size: size(model.bytes) });
    const words = modelWords(model.name) ?? model.about;
    const facts = [model.stems.length && text("stemCount", { count: model.stems.length }), state];
    const lines = [words, facts.filter(Boolean).join(" · ")].filter(Boolean).map((line) => element("small", {}, line));
    const pick = () => {
      choose({ model: model.name, stems: null });
      this.#showStems();
      this.show();
    };
    const radio = { type: "radio", name: "model", value: model.name, checked: model.name === chosen, on: { change: pick } };
    return element(
      "label",
      { class: "card" },
      element("input", radio),
      element("span", {}, element("b", {}, model.name), ...lines),
    );
  }

  #showStems() {
    const { model, stems } = this.current;
    const all = this.#model(model).stems;
    const boxes = all.map((stem) => {
      const checked = !stems || stems.includes(stem);
      return element("input", { type: "checkbox", value: stem, checked });
    });
    const pick = (event) => {
      const picked = boxes.filter((box) => box.checked).map((box) => box.value);
      if (picked.length === 0) event.target.checked = true; // one must stay
      else choose({ stems: picked });
      this.show();
    };
    const chips = boxes.map((box) => {
      box.addEventListener("change", pick);
      return element("label", { class: "chip" }, box, element("span", {}, stemName(box.value)));
    });
    const list = document.getElementById("stems");
    list.replaceChildren(...chips);
    list.closest("fieldset").hidden = all.length === 0;
  }
}
