/** Notifications of the system when a long separation has finished while the page is hidden. */

import { text } from "./i18n/index.js";
import { readSettings, saveSettings } from "./storage.js";
import { titleOf } from "./tracks.js";

const LONG = 60; // seconds that a separation has left, from which a notification is offered

/** Whether to offer notifications for a track: once, while it will take long. */
export const shouldOffer = ({ state, left }) =>
  state === "separating" &&
  left > LONG &&
  globalThis.Notification?.permission === "default" &&
  isSecureContext &&
  !readSettings().notificationsOffered;

/** Have the browser ask for the permission; it is not offered again, whatever the answer. */
export async function requestPermission() {
  saveSettings({ notificationsOffered: true });
  await Notification.requestPermission();
}

/** Notify of a track that has finished or failed, if the page is hidden; a click shows the track. */
export function notify(track) {
  if (!document.hidden || globalThis.Notification?.permission !== "granted") return;
  const options = { icon: "page/icon-192.png", tag: track.id };
  try {
    const notification = new Notification(text(`${track.state}Track`, { title: titleOf(track) }), options);
    notification.onclick = () => {
      window.focus();
      location.hash = track.id;
    };
  } catch {
    // Chrome on Android offers notifications to service workers only
  }
}
