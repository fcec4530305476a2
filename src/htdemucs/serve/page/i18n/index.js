/** Every word of the page, in English and Chinese. */

import { choices, choose } from "./store.js";
import { element, icon, setText } from "./dom.js";
import { english } from "./english.js";
import { chinese, problems } from "./chinese.js";

const LANGUAGES = { en: english, zh: chinese };
const PROBLEMS = { zh: problems }; // English sentences are the server's own
const TAGS = { en: "en", zh: "zh-Hans" };
const OTHER = { en: "zh", zh: "en" };
const values = new WeakMap(); // element -> {say, label}: what its texts were filled with

let language =
  choices().language ??
  (navigator.languages.find((name) => /^(en|zh)/.test(name)) ?? "en").slice(0, 2);

/** Return a text, with its {names} filled in. */
export function text(key, filling = {}) {
  return LANGUAGES[language][key].replace(/\{(\w+)\}/g, (_, name) => filling[name]);
}

/** Return the name of a stem, translated where we know it. */
export const stemName = (stem) => LANGUAGES[language][`stem_${stem}`] ?? stem;

/** Return a few words on a model, where we have some. */
export const modelWords = (model) => LANGUAGES[language][`model_${model}`];

/** Give an element a text that follows the language. */
export function say(target, key, filling = {}) {
  target.dataset.say = key;
  values.set(target, { ...values.get(target), say: filling });
  setText(target, text(key, filling));
  return target;
}

/** Give an element an accessible name and a tooltip that follow the language. */
export function label(target, key, filling = {}) {
  target.dataset.label = key;
  values.set(target, { ...values.get(target), label: filling });
  const words = text(key, filling);
  if (target.getAttribute("aria-label") !== words) target.setAttribute("aria-label", words);
  if (target.matches("button, a")) target.title = words;
  return target;
}

/** Make a button with a text, or of an icon alone (its `kind` says "icon"). */
export function button(kind, key, picture, click) {
  const made = element("button", { type: "button", class: kind, on: { click } });
  if (picture) made.append(icon(picture));
  if (kind.includes("icon")) return label(made, key);
  made.append(say(element("span"), key));
  return made;
}

/** Translate everything below `root` that was given a text. */
export function translate(root = document) {
  document.documentElement.lang = TAGS[language];
  document.getElementById("language").lang = TAGS[OTHER[language]];
  for (const each of root.querySelectorAll("[data-say]")) {
    say(each, each.dataset.say, values.get(each)?.say);
  }
  for (const each of root.querySelectorAll("[data-label]")) {
    label(each, each.dataset.label, values.get(each)?.label);
  }
  for (const each of root.querySelectorAll("[data-placeholder]")) {
    each.placeholder = text(each.dataset.placeholder);
  }
}

/** Change between the languages, and remember it. */
export function switchLanguage() {
  language = OTHER[language];
  choose({ language });
  translate();
}

/** Return a number in the language's way. */
export const number = (value, digits = 0) =>
  new Intl.NumberFormat(language, {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  }).format(value);

/** Return seconds as 1:23, or 1:02:03. */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const pad = (value) => String(value).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  return `${hours ? `${hours}:${pad(minutes)}` : minutes}:${pad(whole % 60)}`;
}

/** Return a number of bytes as people read it. */
export function size(bytes) {
  return bytes < 1e6 ? `${number(bytes / 1e3)} kB` : `${number(bytes / 1e6, bytes < 1e7 ? 1 : 0)} MB`;
}

/** Return the server's English sentence in the page's language, as far as its code is known. */
function translated(sentence, code, start) {
  if (language === "en") return sentence || start;
  return PROBLEMS[language][code] ?? [start, sentence].filter(Boolean).join(" ");
}

/** Return the sentence for a request that failed. */
export function problem({ status, message, code }) {
  if (status === 0) return text("unreachable");
  if (status === 401) return text("token");
  return translated(message, code, text("refused", { status }));
}

/** Return the sentence for a track that could not be separated. */
export const failure = ({ error, code }) => translated(error, code, text("failed"));
