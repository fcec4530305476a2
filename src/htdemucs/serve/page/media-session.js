/** Media keys, headphone buttons and the lock screen, through the Media Session API. */

import { lengthOf, titleOf } from "./tracks.js";

const SILENCE = 10; // seconds; browsers show nothing for media shorter than five
const SILENCE_RATE = 8000; // Hz
const DEFAULT_SKIP = 10; // seconds, if the system does not specify how far

/** Return a WAV file of silence: 8 bits, mono. */
function createSilence() {
  const header = new DataView(new ArrayBuffer(44));
  const chunkIds = { 0: "RIFF", 8: "WAVE", 12: "fmt ", 36: "data" };
  for (const [offset, id] of Object.entries(chunkIds)) {
    [...id].forEach((letter, i) => header.setUint8(Number(offset) + i, letter.charCodeAt(0)));
  }
  const frames = SILENCE * SILENCE_RATE;
  const uint32 = { 4: frames + 36, 16: 16, 24: SILENCE_RATE, 28: SILENCE_RATE, 40: frames };
  for (const [offset, value] of Object.entries(uint32)) header.setUint32(Number(offset), value, true);
  for (const [offset, value] of [[20, 1], [22, 1], [32, 1], [34, 8]]) header.setUint16(offset, value, true);
  return new Blob([header, new Uint8Array(frames).fill(128)], { type: "audio/wav" });
}

/**
 * Let the system show and control a player.
 *
 * Browsers assign the media keys to media elements only, and the player uses Web Audio. An audio
 * element therefore plays silence while the player plays.
 */
export function connectMediaSession(player) {
  const session = navigator.mediaSession;
  if (!session) return;
  const sampleRate = () => player.track.sample_rate ?? 44_100;
  const skip = (sign) => (details) =>
    player.seek(player.position + sign * (details.seekOffset || DEFAULT_SKIP) * sampleRate());
  const handlers = {
    play: () => player.play(),
    pause: () => player.pause(),
    stop: () => player.pause(),
    seekto: ({ seekTime }) => player.seek(seekTime * sampleRate()),
    seekbackward: skip(-1),
    seekforward: skip(1),
    previoustrack: () => player.seek(0),
  };
  for (const [action, handler] of Object.entries(handlers)) {
    try {
      session.setActionHandler(action, (details) => player.track && handler(details));
    } catch {
      // this browser does not support the action
    }
  }
  let silence = null;
  player.addEventListener("change", () => {
    const { track, playing, tempo } = player;
    session.playbackState = playing ? "playing" : "paused";
    if (playing) {
      if (!silence) {
        silence = Object.assign(new Audio(URL.createObjectURL(createSilence())), { loop: true });
        // The system pauses the element on a phone call, or when headphones are unplugged.
        silence.addEventListener("pause", () => silence.paused && player.pause());
      }
      silence.play().catch(() => {}); // without it the media keys do not work, but the page does
      const { artist, album } = track;
      session.metadata = new MediaMetadata({ title: titleOf(track), artist: artist ?? "", album: album ?? "" });
    } else {
      silence?.pause();
    }
    const duration = lengthOf(track) / sampleRate();
    if (!duration) return;
    session.setPositionState?.({ duration, playbackRate: tempo, position: player.position / sampleRate() });
  });
}
