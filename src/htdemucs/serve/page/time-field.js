/** A text field for a time, such as 1:23.4. */

import { element } from "./dom.js";
import { bindLabel, formatTime } from "./i18n/index.js";

/** Return the seconds of 83.4, 1:23.4 or 0:01:23.4; null if it is not a time. */
function parseTime(input) {
  const parts = input.trim().replace(",", ".").replaceAll("：", ":").split(":");
  if (parts.length > 3 || !parts.every((part) => /^\d+(\.\d*)?$/.test(part))) return null;
  return parts.reduce((seconds, part) => 60 * seconds + Number(part), 0);
}

/** Create a field; `onChange(seconds)` returns whether it takes the time. `show(null)` empties it. */
export function createTimeField(key, onChange) {
  const input = element("input", { type: "text", class: "time-field", placeholder: "0:00.0" });
  input.autocomplete = "off";
  let shown = "";
  input.addEventListener("change", () => {
    const seconds = parseTime(input.value);
    if (seconds === null || !onChange(seconds)) input.value = shown;
  });
  const show = (seconds) => {
    const time = seconds === null ? "" : formatTime(seconds, 1);
    if (time === shown && document.activeElement === input) return; // it may be edited
    input.value = shown = time;
  };
  return { input: bindLabel(input, key), show };
}
