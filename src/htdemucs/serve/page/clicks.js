/** Clicks on the beat, before the music and with it. */

const PITCH = { accent: 1600, beat: 1000 }; // Hz
const LENGTH = 0.05; // seconds of a click
const LOUDNESS = 0.5; // gain of a click

/**
 * Schedule clicks [{time, accent}] from a time of the context's clock on; `tempo` shortens their
 * distances. Returns a function that stops them.
 */
export function scheduleClicks(context, destination, clicks, start, tempo) {
  const output = new GainNode(context);
  output.connect(destination);
  for (const { time, accent } of clicks) {
    const at = start + time / tempo;
    const gain = new GainNode(context, { gain: 0 });
    gain.gain.setValueAtTime(LOUDNESS, at);
    gain.gain.exponentialRampToValueAtTime(0.001, at + LENGTH);
    const tone = new OscillatorNode(context, { frequency: accent ? PITCH.accent : PITCH.beat });
    tone.connect(gain).connect(output);
    tone.start(at);
    tone.stop(at + LENGTH);
  }
  return () => output.disconnect();
}
