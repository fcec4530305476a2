/** Keyboard shortcuts, and the list of them in the help dialog. */

import { element } from "./dom.js";
import { bindText } from "./i18n/index.js";

const TEXT_FIELDS = "input:not([type=range]):not([type=checkbox]):not([type=radio]), select, textarea";
const HELP = [
  [["Space"], "keyPlay"],
  [["←", "→"], "keySeek"],
  [["Home"], "toStart"],
  [["1", "…", "9"], "keyMute"],
  [["Shift", "1", "…", "9"], "keySolo"],
  [["I"], "setLoopStart"],
  [["O"], "setLoopEnd"],
  [["L"], "keyLoop"],
  [["M"], "addMarker"],
  [["T"], "keyTap"],
  [["[", "]"], "keyTempo"],
  [["\\"], "keyResetTempo"],
  [["B"], "keyCompare"],
  [["+", "−", "0"], "keyZoom"],
  [["↑", "↓"], "keyList"],
  [["?"], "keyHelp"],
];

/** Return the action of a key, [name, argument], or null. */
function actionOf(event) {
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code)?.[1];
  if (digit) return [event.shiftKey ? "solo" : "mute", Number(digit) - 1];
  const seconds = event.shiftKey ? 1 : 5;
  const actions = {
    " ": ["play"],
    ArrowLeft: ["skip", -seconds],
    ArrowRight: ["skip", seconds],
    Home: ["toStart"],
    i: ["loop", "start"],
    o: ["loop", "end"],
    l: ["loop", "toggle"],
    m: ["marker"],
    t: ["tap"],
    "[": ["tempo", 0.5],
    "]": ["tempo", 2],
    "\\": ["tempo", 0],
    Backspace: ["tempo", 0],
    b: ["compare"],
    "+": ["zoom", 2],
    "=": ["zoom", 2],
    "-": ["zoom", 0.5],
    0: ["zoom", 0],
    "?": ["help"],
  };
  return actions[event.key.length === 1 ? event.key.toLowerCase() : event.key] ?? null;
}

/** Call `runAction(name, argument)` for shortcuts, unless the focused element uses the key itself. */
export function listenForShortcuts(runAction) {
  document.addEventListener("keydown", (event) => {
    const { target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (target.matches(TEXT_FIELDS) || document.querySelector("dialog[open]")) return;
    const usesSpace = target.matches("button, summary, input[type=checkbox], input[type=radio]");
    if (event.key === " " && usesSpace) return;
    if (target.matches("[type=range], [role=slider]") && /^(Arrow|Home)/.test(event.key)) return;
    const action = actionOf(event);
    if (action && runAction(...action)) event.preventDefault();
  });
  // A control used by mouse or finger loses the focus, so that Space plays again. A button loses it
  // before its own click handler runs: a dialog that it opens returns the focus to where it was.
  const blurControl = ({ detail, target }) => {
    const control = detail > 0 && target.closest("button, summary, input[type=checkbox]"); // 0: by key
    if (control && !control.closest("dialog")) control.blur();
  };
  document.addEventListener("click", blurControl, true);
  document.addEventListener("pointerup", ({ target }) => {
    if (target.matches("input[type=range]")) setTimeout(() => target.blur(), 0);
  });
}

/** Fill the help dialog's list. */
export function renderShortcuts(list) {
  const rows = HELP.flatMap(([keys, description]) => [
    element("dt", {}, ...keys.map((key) => (key === "…" ? "…" : element("kbd", {}, key)))),
    bindText(element("dd"), description),
  ]);
  list.replaceChildren(...rows);
}
