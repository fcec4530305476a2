/** The keyboard, and the list of its keys for people. */

import { element } from "./dom.js";
import { say } from "./text.js";

const TYPING = "input:not([type=range]):not([type=checkbox]):not([type=radio]), select, textarea";
const LIST = [
  [["Space"], "keyPlay"],
  [["←", "→"], "keySeek"],
  [["Home"], "keyHome"],
  [["1", "…", "9"], "keyMute"],
  [["Shift", "1", "…", "9"], "keySolo"],
  [["I"], "keyIn"],
  [["O"], "keyOut"],
  [["L"], "keyLoop"],
  [["B"], "keyCompare"],
  [["+", "−", "0"], "keyZoom"],
  [["?"], "keyHelp"],
];

/** Return the action of a key: [name, number], or null. */
function actionOf(event) {
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code)?.[1];
  if (digit) return [event.shiftKey ? "solo" : "mute", Number(digit) - 1];
  const step = event.shiftKey ? 1 : 5;
  const actions = {
    " ": ["play"],
    ArrowLeft: ["move", -step],
    ArrowRight: ["move", step],
    Home: ["home"],
    i: ["loop", "from"],
    o: ["loop", "to"],
    l: ["loop", "toggle"],
    b: ["compare"],
    "+": ["zoom", 2],
    "=": ["zoom", 2],
    "-": ["zoom", 0.5],
    0: ["zoom", 0],
    "?": ["help"],
  };
  return actions[event.key.length === 1 ? event.key.toLowerCase() : event.key] ?? null;
}

/** Call `act(name, argument)` for the keys that mean something where the focus is. */
export function listen(act) {
  document.addEventListener("keydown", (event) => {
    const { target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (target.matches(TYPING) || document.querySelector("dialog[open]")) return;
    const own = target.matches("button, summary, input[type=checkbox], input[type=radio]");
    if (event.key === " " && own) return;
    if (target.matches("[type=range], [role=slider]") && /^(Arrow|Home)/.test(event.key)) return;
    const action = actionOf(event);
    if (action && act(...action)) event.preventDefault();
  });
  // What was used by hand gives the focus back, so that Space plays again. A button does so before
  // its click acts: a dialog that it opens will return the focus to where it was.
  const letGo = ({ detail, target }) => {
    const used = detail > 0 && target.closest("button"); // 0: by key
    if (used && !used.closest("dialog")) used.blur();
  };
  document.addEventListener("click", letGo, true);
  document.addEventListener("pointerup", ({ target }) => {
    if (target.matches("input[type=range]")) setTimeout(() => target.blur(), 0);
  });
}

/** Fill the list of keys. */
export function showKeys(list) {
  const rows = LIST.flatMap(([keys, words]) => [
    element("dt", {}, ...keys.map((key) => (key === "…" ? "…" : element("kbd", {}, key)))),
    say(element("dd"), words),
  ]);
  list.replaceChildren(...rows);
}
