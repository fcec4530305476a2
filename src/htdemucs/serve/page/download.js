/** The dialog of downloads: what, in which format, which part. */

import { element } from "./dom.js";
import { gainsOf, settingsOf } from "./mixer.js";
import { exportAddress } from "./api.js";
import { clock, number, say, stemName, text } from "./text.js";

const FOUR = "bass,drums,other,vocals"; // what a stem file holds

const option = (value, words, selected) => element("option", { value, selected }, words);

function field(key, control) {
  control.id = `download-${key}`;
  return element("div", { class: "field" }, say(element("label", { for: control.id }), key), control);
}

function check(name, key, filling) {
  const box = element("input", { type: "checkbox", name });
  return element("label", { class: "check" }, box, say(element("span"), key, filling));
}

/** Return the mixer's settings as the server writes them. */
export function mixParameters(mix, stems) {
  const gains = gainsOf(mix, stems);
  const each = stems.map((stem, i) => {
    const { gain, pan } = settingsOf(mix, stem);
    return { stem, pan, gain: gains[i][0] || gains[i][1] ? gain : 0 };
  });
  const round = (value) => Number(value.toFixed(4));
  const pans = each.filter(({ pan }) => pan !== 0).map(({ stem, pan }) => `${stem}:${round(pan)}`);
  return {
    gains: each.map(({ stem, gain }) => `${stem}:${round(gain)}`).join(","),
    pans: pans.join(",") || null,
  };
}

/** Show the dialog for a track, as the player has it. */
export function openDownloads({ track, mix, loop, tempo, pitch }, info) {
  const body = document.getElementById("download-body");
  const go = document.getElementById("download-go");
  const kinds = ["mix", "stem", "zip"];
  if ([...track.stems].sort().join() === FOUR) kinds.push("stem-file");
  const radio = (kind, i) =>
    element(
      "label",
      { class: "card" },
      element("input", { type: "radio", name: "kind", value: kind, checked: i === 0 }),
      element("span", {}, say(element("b"), `get_${kind}`), say(element("small"), `get_${kind}_more`)),
    );
  const what = element("fieldset", { class: "cards" }, say(element("legend"), "what"), ...kinds.map(radio));
  const stem = element("select", { name: "stem" }, ...track.stems.map((s) => option(s, stemName(s))));
  const format = element("select", { name: "format" }, ...Object.entries(info.formats).map(([name, { label }]) => option(name, label)));
  const quality = element("select", { name: "quality" });
  const checks = [
    ...(loop ? [check("region", "onlyLoop", { from: clock(loop.from / track.sample_rate), to: clock(loop.to / track.sample_rate) })] : []),
    ...(tempo !== 1 || pitch !== 0 ? [check("stretch", "stretched", { tempo: `${number(100 * tempo)} %`, pitch: pitch > 0 ? `+${pitch}` : pitch })] : []),
    check("residual", "residual"),
  ];
  const stemField = field("stem", stem);
  const fields = element("div", { class: "fields" }, stemField, field("format", format), field("quality", quality));
  body.replaceChildren(what, fields, ...checks);
  const form = body.closest("form");

  const qualities = () => {
    const { bit_depths: depths, bitrates, default_bitrate: usual } = info.formats[format.value];
    const choices = depths.length
      ? depths.map((v) => option(v, text("bits", { value: v })))
      : bitrates.map((v) => option(v, text("kbits", { value: v }), v === usual));
    quality.replaceChildren(...choices);
    quality.parentElement.hidden = choices.length === 0;
  };
  const update = () => {
    const kind = form.elements.kind.value;
    const on = (name) => form.elements[name]?.checked;
    stemField.hidden = kind !== "stem";
    format.parentElement.hidden = kind === "stem-file";
    quality.parentElement.hidden = kind === "stem-file" || quality.options.length === 0;
    form.elements.residual.parentElement.hidden = kind !== "zip";
    if (form.elements.stretch) form.elements.stretch.parentElement.hidden = kind === "stem-file";
    const seconds = (frame) => Number((frame / track.sample_rate).toFixed(6));
    const name = info.formats[format.value].bit_depths.length ? "bit_depth" : "bitrate";
    go.href = exportAddress(track.id, {
      kind,
      stem: kind === "stem" ? stem.value : null,
      ...(kind === "mix" ? mixParameters(mix, track.stems) : {}),
      ...(kind === "stem-file" ? {} : { format: format.value, [name]: quality.value || null }),
      ...(on("region") ? { from: seconds(loop.from), to: seconds(loop.to) } : {}),
      ...(on("stretch") && kind !== "stem-file" ? { tempo, pitch } : {}),
      residual: kind === "zip" && on("residual") ? 1 : null,
    });
  };
  format.onchange = qualities;
  form.onchange = update;
  qualities();
  update();
  document.getElementById("download").showModal();
}
