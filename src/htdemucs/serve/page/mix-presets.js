/** Presets of the mix: karaoke, a cappella and others, and the menu that chooses one. */

import { element } from "./dom.js";
import { bindLabel, bindText, button } from "./i18n/index.js";
import { stemGains } from "./mixer.js";

const QUIET = 0.25; // gain of the other stems while one is loud
const SAME = 0.005; // gains that differ by less sound the same

// name -> {needs: a stem, settings(stem): what differs from the defaults}
const PRESETS = {
  full: { settings: () => ({}) },
  karaoke: { needs: "vocals", settings: (stem) => ({ mute: stem === "vocals" }) },
  acappella: { needs: "vocals", settings: (stem) => ({ mute: stem !== "vocals" }) },
  noDrums: { needs: "drums", settings: (stem) => ({ mute: stem === "drums" }) },
  loudBass: { needs: "bass", settings: (stem) => ({ gain: stem === "bass" ? 1 : QUIET }) },
};

const presetsOf = (stems) =>
  Object.keys(PRESETS).filter((name) => !PRESETS[name].needs || stems.includes(PRESETS[name].needs));

const presetMix = (name, stems) =>
  Object.fromEntries(stems.map((stem) => [stem, PRESETS[name].settings(stem)]));

/** Return the name of the preset that sounds like a mix; undefined if none does. */
function matchingPreset(mix, stems) {
  const gains = stemGains(mix, stems).flat();
  return presetsOf(stems).find((name) => {
    const others = stemGains(presetMix(name, stems), stems).flat();
    return gains.every((gain, i) => Math.abs(gain - others[i]) < SAME);
  });
}

export class PresetMenu {
  #stems;
  #select;
  #reset;

  /** `onChange(mix)` is called with the mix of the chosen preset. */
  constructor(stems, onChange) {
    this.#stems = stems;
    const option = (name) => bindText(element("option", { value: name }), `preset_${name}`);
    this.#select = element("select", {}, ...[...presetsOf(stems), "custom"].map(option));
    this.#select.lastChild.disabled = true; // it is only shown
    this.#select.addEventListener("change", () => onChange(presetMix(this.#select.value, stems)));
    this.#reset = button("ghost icon", "resetMix", "undo", () => onChange({}));
    this.box = element("div", { class: "presets" }, this.#select, this.#reset);
    bindLabel(this.#select, "preset");
  }

  /** Show which preset a mix equals. */
  render(mix) {
    const name = matchingPreset(mix, this.#stems) ?? "custom";
    if (this.#select.value !== name) this.#select.value = name;
    this.#select.lastChild.hidden = name !== "custom";
    this.#reset.disabled = name === "full";
  }
}
