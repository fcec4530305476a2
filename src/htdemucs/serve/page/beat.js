/**
 * The beat of a song: {bpm, first, perBar}, where `first` is the start of bar 1 in seconds.
 *
 * It is tapped or typed; the page does not look for beats in the sound.
 */

const MIN_TAPS = 4; // from which the beat is taken
export const MAX_PAUSE = 2; // seconds between taps; after a longer pause, tapping starts anew
const NEAR = 0.06; // seconds; a bar that starts this close to the song's start, starts there

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Return the seconds of a beat. */
export const beatLength = ({ bpm }) => 60 / bpm;

/** Return the second at which a bar starts. */
export const barStart = (beat, bar) => beat.first + (bar - 1) * beat.perBar * beatLength(beat);

/** Return the bar, with a fraction, at a time in seconds. */
export const barAt = (beat, seconds) => 1 + (seconds - beat.first) / (beat.perBar * beatLength(beat));

/**
 * Fit a beat to the seconds of taps, of which the first is on the first beat of a bar.
 *
 * The length of a beat is the slope of a linear regression; missed beats are allowed. If a whole number
 * of beats per minute is within twice the standard error, it is taken. Returns null for fewer than four taps.
 */
export function fitBeat(taps, perBar) {
  if (taps.length < MIN_TAPS) return null;
  const intervals = taps.slice(1).map((tap, i) => tap - taps[i]);
  const median = intervals.toSorted((a, b) => a - b)[Math.floor(intervals.length / 2)];
  const beats = [0]; // number of each tap's beat, counted from tap to tap, so that errors do not add up
  for (const interval of intervals) beats.push(beats.at(-1) + Math.max(1, Math.round(interval / median)));
  const [meanBeat, meanTap] = [mean(beats), mean(taps)];
  const deviations = beats.map((beat) => beat - meanBeat);
  const sumOfSquares = deviations.reduce((sum, each) => sum + each ** 2, 0);
  let length = deviations.reduce((sum, each, i) => sum + each * taps[i], 0) / sumOfSquares;
  const squares = deviations.map((each, i) => (taps[i] - meanTap - each * length) ** 2);
  const standardError = Math.sqrt(squares.reduce((a, b) => a + b, 0) / (taps.length - 2) / sumOfSquares);
  const whole = Math.round(60 / length);
  if (Math.abs(60 / whole - length) < 2 * standardError) length = 60 / whole;
  const bpm = Math.round(600 / length) / 10;
  return { bpm, first: firstBar(meanTap - meanBeat * length, { bpm, perBar }), perBar };
}

/** Return the start of the song's first bar, if another bar starts at `seconds`. */
function firstBar(seconds, { bpm, perBar }) {
  const bar = perBar * beatLength({ bpm });
  const first = seconds - Math.floor((seconds + NEAR) / bar) * bar;
  return Math.abs(first) < NEAR ? 0 : first;
}

const isAccent = (beat, index) => index % beat.perBar === 0;

/** Return the clicks [{time, accent}] between two times in seconds; `time` counts from the first. */
export function clicksBetween(beat, from, to) {
  const length = beatLength(beat);
  const clicks = [];
  for (let index = Math.ceil((from - beat.first) / length); beat.first + index * length < to; index++) {
    clicks.push({ time: beat.first + index * length - from, accent: isAccent(beat, index) });
  }
  return clicks;
}

/**
 * Return the clicks before playback starts at a time in seconds: a bar, in time with the song.
 *
 * Returns {clicks: [{time, accent}], length}, in seconds of the song; the song starts at `length`.
 */
export function countIn(beat, seconds) {
  const length = beatLength(beat);
  const position = (seconds - beat.first) / length; // in beats
  const last = Math.ceil(position - 1e-3) - 1; // the last beat before the start
  const beats = Array.from({ length: beat.perBar }, (_, i) => last - beat.perBar + 1 + i);
  const clicks = beats.map((each) => ({
    time: (each - beats[0]) * length,
    accent: isAccent(beat, each),
  }));
  return { clicks, length: (position - beats[0]) * length };
}
