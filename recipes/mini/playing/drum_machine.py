"""An electronic drum machine: hits computed from sines and noise.

Hits are (L,) float32 with peaks near 1. Keys are General MIDI's drum keys, so that a pattern can
also be played by a sampled kit or a soundfont.
"""

import numpy as np

from recipes.mini.composing import drum_keys as dk
from recipes.mini.mixing.audio import SAMPLE_RATE, add_at, band, pan, seconds_to_samples


def _times(seconds: float) -> np.ndarray:
    return np.arange(seconds_to_samples(seconds), dtype=np.float32) / SAMPLE_RATE


def _decay(times: np.ndarray, seconds: float) -> np.ndarray:
    """Return an exponential that falls by 60 dB in `seconds`."""
    return np.exp(-6.9 * times / seconds)


def _swept_sine(times: np.ndarray, high: float, low: float, sweep: float) -> np.ndarray:
    """Return a sine falling from `high` to `low` Hz with time constant `sweep` (s)."""
    phase = low * times + (high - low) * sweep * (1 - np.exp(-times / sweep))
    return np.sin(2 * np.pi * phase)


def _normalise(sound: np.ndarray) -> np.ndarray:
    """Scale to a peak of 1, and end without a click."""
    ending = np.minimum(1, np.arange(len(sound), 0, -1) / (0.02 * SAMPLE_RATE))
    return (ending * sound / np.abs(sound).max()).astype(np.float32)


def _noise(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    return rng.standard_normal(len(times), dtype=np.float32)


def kick(rng: np.random.Generator) -> np.ndarray:
    """Return a falling sine with a click, from short and hard to long and booming."""
    length = rng.uniform(0.18, 0.9) if rng.random() < 0.75 else rng.uniform(0.9, 1.6)
    times = _times(length)
    low = rng.uniform(38, 62)
    body = _swept_sine(times, rng.uniform(120, 420), low, rng.uniform(0.008, 0.05))
    body *= _decay(times, length)
    click = band(_noise(rng, times), rng.uniform(800, 3000), None) * _decay(times, 0.02)
    drive = rng.uniform(1, 5)
    return _normalise(np.tanh(drive * body) + rng.uniform(0, 0.25) * click)


def snare(rng: np.random.Generator) -> np.ndarray:
    """Return two short tones under band-passed noise."""
    times = _times(rng.uniform(0.12, 0.45))
    base = rng.uniform(150, 260)
    tone = _swept_sine(times, 1.6 * base, base, 0.01) + 0.6 * np.sin(
        2 * np.pi * 1.78 * base * times
    )
    tone *= _decay(times, rng.uniform(0.08, 0.22))
    rattle = band(_noise(rng, times), rng.uniform(500, 2500), rng.uniform(7000, 20000))
    rattle *= _decay(times, rng.uniform(0.12, 0.5))
    return _normalise(np.tanh(1.5 * (tone + rng.uniform(0.6, 2.5) * rattle)))


def clap(rng: np.random.Generator) -> np.ndarray:
    """Return four bursts of noise, the last one with a tail."""
    times = _times(0.35)
    envelope = rng.uniform(0.3, 0.7) * _decay(times, rng.uniform(0.15, 0.35))
    gap = rng.uniform(0.007, 0.014)
    for burst in range(4):
        since = times - burst * gap
        envelope += np.where(since >= 0, np.exp(-np.maximum(since, 0) / 0.004), 0)
    centre = rng.uniform(900, 1800)
    noise = band(_noise(rng, times), 0.6 * centre, rng.uniform(5, 9) * centre)
    return _normalise(noise * envelope)


def hat(rng: np.random.Generator, seconds: float, bright: float) -> np.ndarray:
    """Return metal: six square waves and noise above `bright` Hz, falling in `seconds`."""
    times = _times(1.2 * seconds)
    base = rng.uniform(180, 420)
    ratios = np.array([2.0, 3.0, 4.16, 5.43, 6.79, 8.21], dtype=np.float32)
    metal = np.sign(np.sin(2 * np.pi * base * ratios[:, None] * times)).sum(axis=0) / 6
    mixed = rng.uniform(0.1, 0.9)
    sound = band(mixed * metal + (1 - mixed) * _noise(rng, times), bright, None, 3)
    return _normalise(sound * _decay(times, seconds))


def tom(rng: np.random.Generator, frequency: float) -> np.ndarray:
    """Return a falling sine with a little noise."""
    times = _times(rng.uniform(0.25, 0.7))
    body = _swept_sine(times, rng.uniform(1.3, 2) * frequency, frequency, 0.05)
    skin = band(_noise(rng, times), 300, 4000) * _decay(times, 0.06)
    return _normalise((body + 0.2 * skin) * _decay(times, times[-1]))


def rim(rng: np.random.Generator) -> np.ndarray:
    """Return a woody click of two tones."""
    times = _times(0.08)
    base = rng.uniform(400, 900)
    sound = np.sin(2 * np.pi * base * times) + np.sin(2 * np.pi * 2.6 * base * times)
    return _normalise(np.tanh(2 * sound) * _decay(times, 0.05))


def cowbell(rng: np.random.Generator) -> np.ndarray:
    """Return two square waves a bent fifth apart."""
    times = _times(0.35)
    base = rng.uniform(480, 640)
    sound = np.sign(np.sin(2 * np.pi * base * times)) + np.sign(np.sin(3.03 * np.pi * base * times))
    return _normalise(band(sound, 500, 5000) * _decay(times, rng.uniform(0.1, 0.35)))


def synthetic_kit(rng: np.random.Generator) -> dict[int, np.ndarray]:
    """Return one hit for every key."""
    bright = rng.uniform(4000, 9000)
    low_tom = rng.uniform(70, 120)
    return {
        dk.KICK: kick(rng), dk.RIM: rim(rng), dk.SNARE: snare(rng), dk.CLAP: clap(rng),
        dk.CLOSED_HAT: hat(rng, rng.uniform(0.03, 0.12), bright),
        dk.OPEN_HAT: hat(rng, rng.uniform(0.25, 0.7), bright),
        dk.LOW_TOM: tom(rng, low_tom), dk.MID_TOM: tom(rng, 1.4 * low_tom),
        dk.HIGH_TOM: tom(rng, 1.9 * low_tom),
        dk.CRASH: hat(rng, rng.uniform(1.2, 2.5), rng.uniform(2000, 4500)),
        dk.COWBELL: cowbell(rng), dk.SHAKER: hat(rng, 0.06, rng.uniform(5000, 9000)),
    }  # fmt: skip


def play(
    kit: dict[int, np.ndarray], notes: np.ndarray, pans: dict[int, float], seconds: float
) -> np.ndarray:
    """Play drum notes with a kit of (L,) or (L, 2) hits: (L, 2) of `seconds`."""
    target = np.zeros((seconds_to_samples(seconds), 2), dtype=np.float32)
    placed = {
        key: pan(hit, pans.get(key, 0.0)) if hit.ndim == 1 else hit for key, hit in kit.items()
    }
    for start, _, key, velocity in notes.tolist():
        if int(key) in placed:
            add_at(target, placed[int(key)], seconds_to_samples(start), velocity**1.5)
    return target
