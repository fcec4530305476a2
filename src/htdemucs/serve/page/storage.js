/** What this browser remembers: choices for new songs, and mix, loop and zoom of each track. */

const PREFIX = "htdemucs:";
const KEPT = 300; // tracks; the ones unused for longest are forgotten

function read(key) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + key)) ?? {};
  } catch {
    return {}; // private windows, or something else wrote there
  }
}

function write(key, value) {
  try {
    localStorage.setItem(PREFIX + key, JSON.stringify(value));
  } catch {
    // full or forbidden: the page works without a memory
  }
}

/** Return the page's own choices: language, model, stems. */
export const choices = () => read("choices");

/** Change some of the page's choices. */
export const choose = (changes) => write("choices", { ...choices(), ...changes });

/** Return what is remembered of a track: {mix, loop, zoom, tempo, pitch, picture}. */
export const recall = (id) => read(`track:${id}`);

/** Remember something of a track. */
export function remember(id, changes) {
  write(`track:${id}`, { ...recall(id), ...changes });
  const order = Object.values(read("order")).filter((other) => other !== id);
  order.push(id);
  while (order.length > KEPT) forget(order.shift());
  write("order", order);
}

/** Forget a track. */
export function forget(id) {
  try {
    localStorage.removeItem(`${PREFIX}track:${id}`);
  } catch {
    // nothing was remembered
  }
}
