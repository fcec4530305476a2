/** The text of a song's musical key, also when the song is transposed. */

import { text } from "./i18n/index.js";

// Of each pitch class from C on, as keys are usually spelt. serve/musical_key.py has the same table.
const MAJOR = ["C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"];
const MINOR = ["C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B"];

/** Return a key such as "F#m", moved by the nearest whole number of semitones, in words. */
export function keyText(key, semitones) {
  const minor = key.endsWith("m");
  const tonics = minor ? MINOR : MAJOR;
  const index = tonics.indexOf(key.replace("m", "")) + Math.round(semitones);
  const tonic = tonics[(index + 12) % 12].replace("#", "♯").replace("b", "♭");
  return text(minor ? "minorKey" : "majorKey", { tonic });
}
