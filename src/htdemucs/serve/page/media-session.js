/** The page outside of its window: media keys, headphones' buttons, the lock screen. */

import { lengthOf, titleOf } from "./tracks.js";

const SECONDS = 10; // of silence; browsers show nothing for less than five
const RATE = 8000;
const STEP = 10; // seconds of a jump, where the system names none

/** Return a WAV file of silence: 8 bits, mono. */
function silence() {
  const header = new DataView(new ArrayBuffer(44));
  const words = { 0: "RIFF", 8: "WAVE", 12: "fmt ", 36: "data" };
  for (const [at, word] of Object.entries(words)) {
    [...word].forEach((letter, i) => header.setUint8(Number(at) + i, letter.charCodeAt(0)));
  }
  const frames = SECONDS * RATE;
  const numbers = { 4: frames + 36, 16: 16, 24: RATE, 28: RATE, 40: frames };
  for (const [at, number] of Object.entries(numbers)) header.setUint32(Number(at), number, true);
  for (const [at, number] of [[20, 1], [22, 1], [32, 1], [34, 8]]) header.setUint16(at, number, true);
  return new Blob([header, new Uint8Array(frames).fill(128)], { type: "audio/wav" });
}

/**
 * Let the system show and control a player.
 *
 * Browsers give their media keys to media elements only, and all sound here is Web Audio: so an
 * element plays silence as long as the player plays.
 */
export function showOutside(player) {
  const session = navigator.mediaSession;
  if (!session) return;
  const rate = () => player.track.sample_rate ?? 44_100;
  const jump = (sign) => (details) =>
    player.seek(player.position + sign * (details.seekOffset || STEP) * rate());
  const acts = {
    play: () => player.play(),
    pause: () => player.pause(),
    stop: () => player.pause(),
    seekto: ({ seekTime }) => player.seek(seekTime * rate()),
    seekbackward: jump(-1),
    seekforward: jump(1),
    previoustrack: () => player.seek(0),
  };
  for (const [action, act] of Object.entries(acts)) {
    try {
      session.setActionHandler(action, (details) => player.track && act(details));
    } catch {
      // this browser does not know the action
    }
  }
  let element = null;
  const open = () => {
    element = Object.assign(new Audio(URL.createObjectURL(silence())), { loop: true });
    // The system pauses it when a call comes, or when the headphones are unplugged.
    element.addEventListener("pause", () => element.paused && player.pause());
  };
  player.addEventListener("change", () => {
    const { track, playing, tempo } = player;
    session.playbackState = playing ? "playing" : "paused";
    if (playing) {
      if (!element) open();
      element.play().catch(() => {}); // then there are no media keys
      const { artist, album } = track;
      session.metadata = new MediaMetadata({ title: titleOf(track), artist: artist ?? "", album: album ?? "" });
    } else {
      element?.pause();
    }
    const duration = lengthOf(track) / rate();
    if (duration) session.setPositionState?.({ duration, playbackRate: tempo, position: player.position / rate() });
  });
}
