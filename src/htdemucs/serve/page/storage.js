/** What this browser stores: settings for new songs, and the mix, loop and zoom of each track. */

const PREFIX = "htdemucs:";
const MAX_TRACKS = 300; // the least recently changed are deleted first

function read(key) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + key)) ?? {};
  } catch {
    return {}; // storage is disabled, or the value is not ours
  }
}

function write(key, value) {
  try {
    localStorage.setItem(PREFIX + key, JSON.stringify(value));
  } catch {
    // storage is full or disabled: the page works without it
  }
}

/** Return the settings {language, model, stems, shifts, volume, sort, group}, as far as they are stored. */
export const readSettings = () => read("settings");

/** Change some of the settings. */
export const saveSettings = (changes) => write("settings", { ...readSettings(), ...changes });

/** Return the stored state of a track: {mix, loop, zoom, tempo, pitch, view, markers, beat}. */
export const readTrackState = (id) => read(`track:${id}`);

/** Change some of a track's stored state. */
export function saveTrackState(id, changes) {
  write(`track:${id}`, { ...readTrackState(id), ...changes });
  const order = Object.values(read("order")).filter((other) => other !== id);
  order.push(id);
  while (order.length > MAX_TRACKS) deleteTrackState(order.shift());
  write("order", order);
}

/** Delete a track's stored state. */
export function deleteTrackState(id) {
  try {
    localStorage.removeItem(`${PREFIX}track:${id}`);
  } catch {
    // storage is disabled, so nothing was stored
  }
}
