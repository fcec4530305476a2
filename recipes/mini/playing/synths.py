"""Synthesizers: lines with glide, and chords of cached notes.

Frequencies are Hz, one value a sample; signals are float32 near ±1.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.ndimage import gaussian_filter1d

from recipes.mini.composing.notes import to_hz
from recipes.mini.mixing.audio import SAMPLE_RATE, add_at, band, seconds_to_samples

ChordVoice = Callable[[float, float], np.ndarray]
"""`voice(pitch, duration)`: MIDI pitch and seconds to (L, 2)."""
SWEEP_STEPS = (180.0, 500.0, 1400.0, 4000.0, 11_000.0)  # Hz, the fixed filters of `sweep`


def saw(frequency: np.ndarray, phase: float = 0.0) -> np.ndarray:
    """Return a sawtooth with little aliasing: the differentiated parabola (DPW, Välimäki 2005)."""
    step = frequency / SAMPLE_RATE
    ramp = 2 * np.mod(phase + np.cumsum(step, dtype=np.float64), 1.0) - 1
    parabola = ramp * ramp
    return (np.diff(parabola, prepend=parabola[0]) / (4 * step)).astype(np.float32)


def square(frequency: np.ndarray, width: float = 0.5, phase: float = 0.0) -> np.ndarray:
    """Return a pulse wave as the difference of two sawtooths `width` of a period apart."""
    return saw(frequency, phase) - saw(frequency, phase + width)


def sine(frequency: np.ndarray) -> np.ndarray:
    """Return a sine wave."""
    phase = np.mod(np.cumsum(frequency / SAMPLE_RATE, dtype=np.float64), 1.0)
    return np.sin(2 * np.pi * phase.astype(np.float32))


def fm(frequency: np.ndarray, ratio: float, index: np.ndarray | float) -> np.ndarray:
    """Return a sine whose phase is moved by another sine at `ratio` times its frequency."""
    phase = np.mod(np.cumsum(frequency / SAMPLE_RATE, dtype=np.float64), 1e6)
    modulator = np.sin(2 * np.pi * np.mod(ratio * phase, 1.0))
    return np.sin(2 * np.pi * np.mod(phase, 1.0) + index * modulator).astype(np.float32)


def sweep(sound: np.ndarray, cutoff: np.ndarray) -> np.ndarray:
    """Low-pass with a moving cutoff (Hz, one a sample): a cross-fade between fixed ones."""
    position = np.interp(np.log(cutoff), np.log(SWEEP_STEPS), np.arange(len(SWEEP_STEPS)))
    result = np.zeros_like(sound)
    for index, step in enumerate(SWEEP_STEPS):
        weight = np.maximum(0, 1 - np.abs(position - index)).astype(np.float32)
        if weight.any():
            weight = weight if sound.ndim == 1 else weight[:, None]
            result += weight * band(sound, None, step)
    return result


def line(
    notes: np.ndarray, seconds: float, glide: float, release: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return pitch (Hz) and loudness of a one-voice line, one value a sample.

    `glide` is the time (s) a pitch takes to the next one, `release` the fade after a note (s).
    """
    length = seconds_to_samples(seconds)
    control = 64  # samples a control value
    frames = -(-length // control)
    pitch = np.full(frames, notes["pitch"][0])
    loudness = np.zeros(frames)
    rate = SAMPLE_RATE / control
    for start, duration, key, velocity in notes.tolist():
        first, last = round(start * rate), round((start + duration) * rate)
        pitch[first:] = key
        loudness[first:last] = velocity
        loudness[last : last + 1] = 0.0
    pitch = gaussian_filter1d(pitch, max(glide * rate / 2, 1e-3)) if glide else pitch
    loudness = _release(loudness, release * rate)
    loudness = gaussian_filter1d(loudness, 1.2)
    at = np.arange(length) / control
    frequency = to_hz(np.interp(at, np.arange(frames), pitch))
    return frequency.astype(np.float32), np.interp(at, np.arange(frames), loudness).astype(
        np.float32
    )


def _release(loudness: np.ndarray, frames: float) -> np.ndarray:
    """Let every fall of the curve take about `frames`: the running maximum of decayed values."""
    decay = np.exp(-3 / max(frames, 1))
    log = np.log(np.maximum(loudness, 1e-6))
    slope = -np.log(decay) * np.arange(len(log))
    return np.exp(np.maximum.accumulate(log + slope) - slope)


def gate_envelope(
    notes: np.ndarray, seconds: float, decay: float, floor: float = 0.0
) -> np.ndarray:
    """Return a curve that jumps to 1 at every note and falls towards `floor` in `decay` seconds."""
    length = seconds_to_samples(seconds)
    times = np.arange(length) / SAMPLE_RATE
    index = np.maximum(np.searchsorted(notes["start"], times, side="right") - 1, 0)
    since = np.maximum(times - notes["start"][index], 0)
    return (floor + (1 - floor) * np.exp(-3 * since / decay)).astype(np.float32)


def chords(notes: np.ndarray, seconds: float, voice: ChordVoice) -> np.ndarray:
    """Play every note with `voice(pitch, duration) -> (L, 2)`; equal notes are computed once."""
    target = np.zeros((seconds_to_samples(seconds), 2), dtype=np.float32)
    cache: dict[tuple[float, float], np.ndarray] = {}
    for start, duration, pitch, velocity in notes.tolist():
        key = (pitch, round(duration, 2))
        if key not in cache:
            cache[key] = voice(*key)
        add_at(target, cache[key], seconds_to_samples(start), velocity)
    return target


def envelope(
    duration: float, attack: float, decay: float, sustain: float, release: float
) -> np.ndarray:
    """Return attack, decay to `sustain`, and release after `duration`; times in seconds."""
    times = np.arange(seconds_to_samples(duration + release)) / SAMPLE_RATE
    held = np.interp(times, [0, attack, attack + decay], [0, 1, sustain])
    at_end = np.interp(duration, [0, attack, attack + decay], [0, 1, sustain])
    released = at_end * np.maximum(0, 1 - (times - duration) / max(release, 1e-3)) ** 2
    return np.where(times < duration, held, released).astype(np.float32)


def _steady(pitch: float, length: int) -> np.ndarray:
    return np.full(length, to_hz(pitch), dtype=np.float32)


def supersaw(
    rng: np.random.Generator, shape: tuple[float, float, float, float], bright: float
) -> ChordVoice:
    """Return a voice of seven detuned sawtooths, low-passed at `bright` Hz."""
    detune = rng.uniform(0.05, 0.25) * np.linspace(-1, 1, 7)  # semitones
    phases = rng.random(7)
    sides = rng.permutation(np.linspace(-0.9, 0.9, 7))

    def voice(pitch: float, duration: float) -> np.ndarray:
        loudness = envelope(duration, *shape)
        sound = np.zeros((len(loudness), 2), dtype=np.float32)
        for offset, phase, side in zip(detune, phases, sides, strict=True):
            wave = saw(_steady(pitch + offset, len(loudness)), phase)
            sound += wave[:, None] * np.array([1 - side, 1 + side], dtype=np.float32) / 2
        return band(sound, None, bright) * loudness[:, None] / 3

    return voice


def pluck(rng: np.random.Generator, decay: float) -> ChordVoice:
    """Return a voice whose upper harmonics die first; falls by 60 dB in about `decay` seconds."""
    width = rng.uniform(0.2, 0.5)
    wave = saw if rng.random() < 0.5 else partial(square, width=width)
    dark = rng.uniform(500, 1200)

    def voice(pitch: float, duration: float) -> np.ndarray:
        length = seconds_to_samples(min(1.2 * decay, duration + 0.5 * decay))
        times = np.arange(length) / SAMPLE_RATE
        sound = wave(_steady(pitch, length))
        low = band(sound, None, dark)
        tail = np.exp(-5 * times / decay) * np.minimum(1, times / 0.002)
        mixed = low * tail + (sound - low) * tail * np.exp(-8 * times / decay)
        mixed *= np.clip((length / SAMPLE_RATE - times) / 0.01, 0, 1)
        return np.repeat(mixed[:, None], 2, axis=1).astype(np.float32)

    return voice


def bell(rng: np.random.Generator, decay: float) -> ChordVoice:
    """Return a voice of frequency modulation with a falling index: bells and electric pianos."""
    ratio = float(rng.choice([1, 2, 3, 3.5, 4, 7, 14]))
    depth = rng.uniform(0.5, 4)

    def voice(pitch: float, duration: float) -> np.ndarray:
        length = seconds_to_samples(min(decay, duration + 0.6 * decay))
        times = np.arange(length) / SAMPLE_RATE
        tail = np.exp(-5 * times / decay) * np.minimum(1, times / 0.003)
        tail *= np.clip((length / SAMPLE_RATE - times) / 0.01, 0, 1)
        sound = fm(_steady(pitch, length), ratio, depth * np.exp(-6 * times / decay)) * tail
        return np.repeat(sound[:, None], 2, axis=1).astype(np.float32)

    return voice


def pulse_keys(
    rng: np.random.Generator, shape: tuple[float, float, float, float], bright: float
) -> ChordVoice:
    """Return a voice of two pulse waves, one to each side: organs and stabs below `bright` Hz."""
    width, detune = rng.uniform(0.1, 0.5), rng.uniform(0.02, 0.12)

    def voice(pitch: float, duration: float) -> np.ndarray:
        loudness = envelope(duration, *shape)
        left = square(_steady(pitch - detune, len(loudness)), width)
        right = square(_steady(pitch + detune, len(loudness)), width, 0.3)
        sound = np.stack([left, right], axis=1)
        return band(sound, None, bright) * loudness[:, None] / 2

    return voice
