/** The mixer's graph: stems in, sound out. It runs in an OfflineAudioContext just as well. */

const SMOOTH = 0.02; // seconds in which a gain reaches its new value
const PLAIN = { gain: 1, pan: 0, mute: false, solo: false };

/** Return a stem's settings, with the defaults for what was never touched. */
export const settingsOf = (mix, stem) => ({ ...PLAIN, ...mix[stem] });

/** Return the left and right gain of each stem: volume, balance, mute and solo in one. */
export function gainsOf(mix, stems) {
  const settings = stems.map((stem) => settingsOf(mix, stem));
  const soloed = settings.some(({ solo }) => solo);
  return settings.map(({ gain, pan, mute, solo }) => {
    const heard = soloed ? solo : !mute;
    return heard ? [gain * Math.min(1, 1 - pan), gain * Math.min(1, 1 + pan)] : [0, 0];
  });
}

/** Split interleaved 16-bit samples, the stems and then the original, into an AudioBuffer. */
export function toBuffer(context, samples, channels, sampleRate) {
  const frames = samples.length / channels;
  const buffer = context.createBuffer(channels, frames, sampleRate);
  for (let channel = 0; channel < channels; channel++) {
    const data = buffer.getChannelData(channel);
    for (let i = 0, j = channel; i < frames; i++, j += channels) data[i] = samples[j] / 32768;
  }
  return buffer;
}

/** Make a gain node that leaves any number of channels as they are. */
export function wideGain(context, channels) {
  const options = { channelCount: channels, channelCountMode: "explicit" };
  return new GainNode(context, { ...options, channelInterpretation: "discrete" });
}

/**
 * `input` takes a signal of 2 (stems + 1) channels, stem by stem, the original last.
 *
 * All stems come in one signal, so nothing can bring them out of step.
 */
export class Mixer {
  #context;
  #stems;
  #gains = []; // [left, right] GainNode of each stem
  #meters = [];
  #mix; // everything but the original
  #original;
  #samples = new Float32Array(1024); // what a meter looks at

  constructor(context, stems, destination = context.destination) {
    this.#context = context;
    this.#stems = stems;
    this.channels = 2 * (stems.length + 1);
    this.input = wideGain(context, this.channels);
    const split = new ChannelSplitterNode(context, { numberOfOutputs: this.channels });
    this.input.connect(split);
    this.output = new GainNode(context);
    this.#mix = new GainNode(context);
    this.#original = new GainNode(context, { gain: 0 });
    for (let stem = 0; stem <= stems.length; stem++) {
      const pair = new ChannelMergerNode(context, { numberOfInputs: 2 });
      const gains = [0, 1].map((side) => {
        const gain = new GainNode(context);
        split.connect(gain, 2 * stem + side);
        return gain.connect(pair, 0, side) && gain;
      });
      if (stem === stems.length) {
        pair.connect(this.#original);
      } else {
        const meter = new AnalyserNode(context, { fftSize: 2048 });
        pair.connect(this.#mix);
        pair.connect(meter);
        this.#gains.push(gains);
        this.#meters.push(meter);
      }
    }
    this.#mix.connect(this.output);
    this.#original.connect(this.output);
    this.output.connect(destination);
  }

  /** Take new settings: at once before anything plays, else without a click. */
  set(mix, { original = null, smooth = true } = {}) {
    const turn = ({ gain }, value) => {
      const now = this.#context.currentTime;
      gain.cancelScheduledValues(now);
      if (smooth) gain.setTargetAtTime(value, now, SMOOTH / 3);
      else gain.setValueAtTime(value, now);
    };
    gainsOf(mix, this.#stems).forEach((pair, stem) => {
      pair.forEach((value, side) => turn(this.#gains[stem][side], value));
    });
    turn(this.#mix, original === null ? 1 : 0);
    turn(this.#original, original ?? 0);
  }

  /** Return the peak that a stem's meter shows now. */
  level(stem) {
    this.#meters[stem].getFloatTimeDomainData(this.#samples);
    let peak = 0;
    for (const sample of this.#samples) peak = Math.max(peak, Math.abs(sample));
    return peak;
  }
}
