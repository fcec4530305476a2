/** The mixer: a Web Audio graph from the stems to the loudspeaker; it also runs offline. */

const SMOOTHING = 0.02; // seconds in which a gain reaches its new value
const DEFAULTS = { gain: 1, pan: 0, mute: false, solo: false };

/** Return a stem's settings in a mix {stem: settings}, with defaults for those never changed. */
export const stemSettings = (mix, stem) => ({ ...DEFAULTS, ...mix[stem] });

/** Return the [left, right] gain of each stem: volume, pan, mute and solo combined. */
export function stemGains(mix, stems) {
  const settings = stems.map((stem) => stemSettings(mix, stem));
  const anySolo = settings.some(({ solo }) => solo);
  return settings.map(({ gain, pan, mute, solo }) => {
    const audible = anySolo ? solo : !mute;
    return audible ? [gain * Math.min(1, 1 - pan), gain * Math.min(1, 1 + pan)] : [0, 0];
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

/** Create a gain node that keeps any number of channels as they are. */
export function createMultichannelGain(context, channels) {
  const options = { channelCount: channels, channelCountMode: "explicit" };
  return new GainNode(context, { ...options, channelInterpretation: "discrete" });
}

/**
 * `input` takes one signal of 2 (stems + 1) channels: each stem in stereo, then the original.
 *
 * Since all stems are one signal, they cannot drift apart.
 */
export class Mixer {
  #context;
  #stems;
  #gains = []; // [left, right] GainNode of each stem
  #meters = []; // AnalyserNode of each stem
  #mix; // gain of the sum of the stems
  #original; // gain of the original
  #samples = new Float32Array(1024); // that a meter measures

  constructor(context, stems, destination = context.destination) {
    this.#context = context;
    this.#stems = stems;
    this.channels = 2 * (stems.length + 1);
    this.input = createMultichannelGain(context, this.channels);
    const splitter = new ChannelSplitterNode(context, { numberOfOutputs: this.channels });
    this.input.connect(splitter);
    this.output = new GainNode(context);
    this.#mix = new GainNode(context);
    this.#original = new GainNode(context, { gain: 0 });
    for (let stem = 0; stem <= stems.length; stem++) {
      const merger = new ChannelMergerNode(context, { numberOfInputs: 2 });
      const gains = [0, 1].map((side) => {
        const gain = new GainNode(context);
        splitter.connect(gain, 2 * stem + side);
        gain.connect(merger, 0, side);
        return gain;
      });
      if (stem === stems.length) {
        merger.connect(this.#original);
      } else {
        const meter = new AnalyserNode(context, { fftSize: 2048 });
        merger.connect(this.#mix);
        merger.connect(meter);
        this.#gains.push(gains);
        this.#meters.push(meter);
      }
    }
    this.#mix.connect(this.output);
    this.#original.connect(this.output);
    this.output.connect(destination);
  }

  /** Apply a mix, smoothly or immediately; with `original`, a gain, play the original instead. */
  set(mix, { original = null, smooth = true } = {}) {
    const setGain = (node, value) => this.#setGain(node, value, smooth);
    stemGains(mix, this.#stems).forEach((pair, stem) => {
      pair.forEach((value, side) => setGain(this.#gains[stem][side], value));
    });
    setGain(this.#mix, original === null ? 1 : 0);
    setGain(this.#original, original ?? 0);
  }

  /** Set the gain of everything that is heard. */
  setVolume(gain, { smooth = true } = {}) {
    this.#setGain(this.output, gain, smooth);
  }

  #setGain({ gain }, value, smooth) {
    const now = this.#context.currentTime;
    gain.cancelScheduledValues(now);
    if (smooth) gain.setTargetAtTime(value, now, SMOOTHING / 3);
    else gain.setValueAtTime(value, now);
  }

  /** Return the current peak of a stem, before the sum. */
  level(stem) {
    this.#meters[stem].getFloatTimeDomainData(this.#samples);
    let peak = 0;
    for (const sample of this.#samples) peak = Math.max(peak, Math.abs(sample));
    return peak;
  }
}
