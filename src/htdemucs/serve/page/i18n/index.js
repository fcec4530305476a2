/**
 * The page's texts in the current language.
 *
 * To add a language: copy en.js, translate its messages, and add a row to LANGUAGES. Elements get
 * their texts by `bindText` and `bindLabel`, or in HTML by `data-i18n`, `data-i18n-label` and
 * `data-i18n-placeholder`, and follow when the language changes.
 */

import { readSettings, saveSettings } from "../storage.js";
import { element, icon, setText } from "../dom.js";
import * as english from "./en.js";
import * as chinese from "./zh.js";

const LANGUAGES = {
  en: { tag: "en", next: "zh", ...english },
  zh: { tag: "zh-Hans", next: "en", ...chinese },
};
const bindings = new WeakMap(); // element -> {text, label}: the values of its messages' placeholders

let language =
  readSettings().language ??
  (navigator.languages.find((name) => /^(en|zh)/.test(name)) ?? "en").slice(0, 2);

/** Return a message with its {placeholders} replaced by values. */
export function text(key, values = {}) {
  return LANGUAGES[language].messages[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** Return the translated name of a stem, or the name itself if it has no translation. */
export const stemName = (stem) => LANGUAGES[language].messages[`stem_${stem}`] ?? stem;

/** Return a short description of a published model; undefined for any other. */
export const modelDescription = (model) => LANGUAGES[language].messages[`model_${model}`];

/** Return a short description of a format of stems; undefined for any that has none. */
export const formatDescription = (format) => LANGUAGES[language].messages[`format_${format}`];

/** Set an element's text, now and whenever the language changes. */
export function bindText(target, key, values = {}) {
  target.dataset.i18n = key;
  bindings.set(target, { ...bindings.get(target), text: values });
  setText(target, text(key, values));
  return target;
}

/** Set an element's accessible name and tooltip, now and whenever the language changes. */
export function bindLabel(target, key, values = {}) {
  target.dataset.i18nLabel = key;
  bindings.set(target, { ...bindings.get(target), label: values });
  const label = text(key, values);
  if (target.getAttribute("aria-label") !== label) target.setAttribute("aria-label", label);
  if (target.matches("button, a")) target.title = label;
  return target;
}

/** Create a button with a text and perhaps an icon; if its class contains "icon", the icon alone. */
export function button(className, key, iconName, onClick) {
  const node = element("button", { type: "button", class: className, on: { click: onClick } });
  if (iconName) node.append(icon(iconName));
  if (className.includes("icon")) return bindLabel(node, key);
  node.append(bindText(element("span"), key));
  return node;
}

/** Translate the document and every element with a bound text. */
export function translate() {
  const { tag, next } = LANGUAGES[language];
  document.documentElement.lang = tag;
  document.getElementById("language").lang = LANGUAGES[next].tag;
  for (const node of document.querySelectorAll("[data-i18n]")) {
    bindText(node, node.dataset.i18n, bindings.get(node)?.text);
  }
  for (const node of document.querySelectorAll("[data-i18n-label]")) {
    bindLabel(node, node.dataset.i18nLabel, bindings.get(node)?.label);
  }
  for (const node of document.querySelectorAll("[data-i18n-placeholder]")) {
    node.placeholder = text(node.dataset.i18nPlaceholder);
  }
}

/** Change to the other language and store the choice. */
export function toggleLanguage() {
  language = LANGUAGES[language].next;
  saveSettings({ language });
  translate();
}

/** Return a number with the language's decimal mark. */
export const formatNumber = (value, digits = 0) =>
  new Intl.NumberFormat(language, {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  }).format(value);

/** Return a fraction as a percentage: 0.25 as 25%. */
export const formatPercent = (fraction) =>
  new Intl.NumberFormat(language, { style: "percent" }).format(fraction);

/** Return seconds as 1:23 or 1:02:03, with 1 digit as 1:23.4. */
export function formatTime(seconds, digits = 0) {
  const tenths = Math.max(0, digits ? Math.round(10 * seconds) : 10 * Math.floor(seconds));
  const whole = Math.floor(tenths / 10);
  const pad = (value) => String(value).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  const time = `${hours ? `${hours}:${pad(minutes)}` : minutes}:${pad(whole % 60)}`;
  return digits ? `${time}.${tenths % 10}` : time;
}

/** Return a number of bytes in kB, MB or GB. */
export function formatBytes(bytes) {
  if (bytes < 1e6) return `${formatNumber(bytes / 1e3)} kB`;
  const [unit, name] = bytes < 1e9 ? [1e6, "MB"] : [1e9, "GB"];
  return `${formatNumber(bytes / unit, bytes < 10 * unit ? 1 : 0)} ${name}`;
}

/** Return the message of an API error. */
export function errorText({ status, message, code }) {
  if (status === 0) return text("unreachable");
  if (status === 401) return text("token");
  return localizedError(message, code, text("refused", { status }));
}

/** Return why a track could not be separated. */
export const trackErrorText = ({ error, code }) => localizedError(error, code, text("failed"));

/** Return the server's English message, or the translation of its code, or a general message. */
function localizedError(message, code, general) {
  if (language === "en") return message || general;
  return LANGUAGES[language].errors[code] ?? [general, message].filter(Boolean).join(" ");
}
