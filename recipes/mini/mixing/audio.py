"""The form of every sound here, (L, 2) float32 at 44.1 kHz, and small operations on it."""

import numpy as np
from scipy import signal

SAMPLE_RATE = 44_100  # Hz


def seconds_to_samples(seconds: float) -> int:
    """Return the nearest whole number of samples."""
    return round(seconds * SAMPLE_RATE)


def add_at(target: np.ndarray, sound: np.ndarray, start: int, gain: float = 1.0) -> None:
    """Add `sound` into `target` from sample `start`, in place; cut off whatever sticks out."""
    first = max(0, -start)
    last = min(len(sound), len(target) - start)
    if first < last:
        target[start + first : start + last] += gain * sound[first:last]


def fade(sound: np.ndarray, seconds: float) -> np.ndarray:
    """Return the sound with linear fades of `seconds` at both ends."""
    length = min(seconds_to_samples(seconds), len(sound) // 2)
    ramp = np.linspace(0, 1, length, endpoint=False, dtype=np.float32)
    envelope = np.ones(len(sound), dtype=np.float32)
    envelope[:length] = ramp
    envelope[len(sound) - length :] = ramp[::-1]
    return sound * (envelope if sound.ndim == 1 else envelope[:, None])


def pan(sound: np.ndarray, position: float) -> np.ndarray:
    """Place a mono (L,) sound between left (-1) and right (1) at constant power: (L, 2)."""
    angle = (position + 1) * np.pi / 4
    return sound[:, None] * np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)


def band(sound: np.ndarray, low: float | None, high: float | None, order: int = 2) -> np.ndarray:
    """Filter along the first axis: Butterworth high-pass at `low`, low-pass at `high` (Hz)."""
    nyquist = SAMPLE_RATE / 2
    high = None if high is not None and high >= 0.98 * nyquist else high
    if low and high:
        sections = signal.butter(order, [low, high], "bandpass", fs=SAMPLE_RATE, output="sos")
    elif low:
        sections = signal.butter(order, low, "highpass", fs=SAMPLE_RATE, output="sos")
    elif high:
        sections = signal.butter(order, high, "lowpass", fs=SAMPLE_RATE, output="sos")
    else:
        return sound
    return signal.sosfilt(sections, sound, axis=0).astype(np.float32)


def rms(sound: np.ndarray) -> float:
    """Return the root mean square of all samples."""
    flat = sound.reshape(-1)
    return float(np.sqrt(np.dot(flat, flat) / len(flat)))


def active_rms(sound: np.ndarray, window: int = SAMPLE_RATE // 10) -> float:
    """Return the RMS of the windows within 25 dB of the loudest one, so that rests do not count."""
    frames = sound[: len(sound) // window * window].reshape(-1, window * sound.shape[1])
    power = np.einsum("fs,fs->f", frames, frames) / frames.shape[1]
    if power.max() == 0:
        return 0.0
    return float(np.sqrt(power[power > power.max() * 10**-2.5].mean()))


def resample(sound: np.ndarray, ratio: float) -> np.ndarray:
    """Interpolate linearly to `ratio` times the length, like a tape at another speed."""
    length = max(1, round(len(sound) * ratio))
    positions = np.linspace(0, len(sound) - 1, length)
    index = np.minimum(positions.astype(int), len(sound) - 2)
    part = (positions - index).astype(np.float32)
    part = part if sound.ndim == 1 else part[:, None]
    return sound[index] * (1 - part) + sound[index + 1] * part


def stutter(rng: np.random.Generator, sound: np.ndarray, step: float) -> np.ndarray:
    """Repeat one moment of the sound, 1, 2 or 4 `step` seconds long, or play it backwards."""
    length = seconds_to_samples(step * rng.choice([1, 2, 4]))
    if len(sound) < 3 * length:
        return sound
    at = int(rng.integers(0, len(sound) - 2 * length))
    piece = fade(sound[at : at + length], 0.003)
    repeats = 1 if rng.random() < 0.3 else min(int(rng.integers(2, 6)), (len(sound) - at) // length)
    changed = sound.copy()
    changed[at : at + repeats * length] = (
        piece[::-1] if repeats == 1 else np.tile(piece, (repeats, 1))
    )
    return changed
