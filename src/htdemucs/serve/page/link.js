/** Links to a moment and a mix of a track, in the URL's hash: #ID?t=83.2&mix=vocals:0.5:-0.3,bass:1:0:m */

import { stemSettings } from "./mixer.js";

const MAX_GAIN = 2;
const FLAGS = { m: "mute", s: "solo" };

const round = (value) => Number(value.toFixed(3));
const clamp = (value, min, max) => Math.max(min, Math.min(max, value));

/** Return a stem's part of a link; empty if its settings are the defaults. */
function formatStem(stem, mix) {
  const settings = stemSettings(mix, stem);
  const { gain, pan } = settings;
  const flags = Object.keys(FLAGS).filter((flag) => settings[FLAGS[flag]]);
  if (gain === 1 && pan === 0 && flags.length === 0) return "";
  const values = [encodeURIComponent(stem), round(gain), round(pan), flags.join("")];
  return values.join(":").replace(/:$/, "");
}

/** Return the URL of a track at a time in seconds, with a mix. */
export function formatLink({ id, stems }, seconds, mix) {
  const changed = stems.map((stem) => formatStem(stem, mix)).filter(Boolean);
  return `${location.origin}${location.pathname}#${id}?t=${round(seconds)}&mix=${changed.join(",")}`;
}

function parseStem(part) {
  const [stem, gain, pan, flags = ""] = part.split(":");
  const number = (value, otherwise, min, max) =>
    value && Number.isFinite(Number(value)) ? clamp(Number(value), min, max) : otherwise;
  const toggles = Object.entries(FLAGS).map(([flag, name]) => [name, flags.includes(flag)]);
  const settings = { gain: number(gain, 1, 0, MAX_GAIN), pan: number(pan, 0, -1, 1) };
  return [stem, { ...settings, ...Object.fromEntries(toggles) }];
}

/** Return {id, seconds, mix} of a URL's hash; seconds and mix are null if the link has none. */
export function parseHash(hash) {
  const [, id, rest] = /^#?([^?]*)\??(.*)$/.exec(hash);
  const parameters = new URLSearchParams(rest);
  const time = parseFloat(parameters.get("t"));
  const parts = parameters.get("mix")?.split(",").filter(Boolean);
  return {
    id,
    seconds: time >= 0 ? time : null,
    mix: parts ? Object.fromEntries(parts.map(parseStem)) : null,
  };
}
