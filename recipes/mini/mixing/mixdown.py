"""Stems to a mixture: balance, a bus that treats every stem alike, and 16-bit samples.

Stems are (L, 2) float32 by name. Whatever happens here is linear across stems, so that stems
still add up to the mixture.
"""

import numpy as np
from scipy.ndimage import gaussian_filter1d, maximum_filter1d

from recipes.mini.mixing.audio import SAMPLE_RATE, active_rms, band

STEMS = ("drums", "bass", "other", "vocals")
BALANCE = {"drums": 0.0, "bass": -2.0, "other": -2.0, "vocals": 0.0}  # dB of active RMS
FULL_SCALE = 32_767

Stems = dict[str, np.ndarray]


def mixture(stems: Stems) -> np.ndarray:
    """Return the sum of all stems."""
    total = stems[STEMS[0]].astype(np.float32, copy=True)
    for name in STEMS[1:]:
        total += stems[name]
    return total


def balance(rng: np.random.Generator, stems: Stems, spread: float = 4.0) -> Stems:
    """Bring stems to their usual levels, each up to `spread` dB off."""
    balanced = {}
    for name in STEMS:
        level = active_rms(stems[name])
        target = 0.1 * 10 ** ((BALANCE[name] + rng.uniform(-spread, spread)) / 20)
        balanced[name] = stems[name] * np.float32(target / level if level > 0 else 0.0)
    return balanced


def bus_gain(mix: np.ndarray, threshold: float, ratio: float, release: float) -> np.ndarray:
    """Return a compressor's gain curve (L,) for a mixture: 1 below `threshold`, less above it.

    `release` (s) is about how long the curve takes to move; it moves ahead of peaks.
    """
    hop = 64
    frames = -(-len(mix) // hop)
    padded = np.pad(np.abs(mix).max(axis=1), (0, frames * hop - len(mix)))
    peaks = padded.reshape(frames, hop).max(axis=1)
    span = max(1, round(release * SAMPLE_RATE / hop))
    level = gaussian_filter1d(maximum_filter1d(peaks, span), span / 4)
    gain = np.minimum(1, (np.maximum(level, 1e-6) / threshold) ** (1 / ratio - 1))
    return np.interp(np.arange(len(mix)) / hop, np.arange(frames), gain).astype(np.float32)


def _peak(sound: np.ndarray) -> float:
    return max(float(sound.max()), -float(sound.min()))


def scale_to_peak(stems: Stems, peak: float) -> Stems:
    """Scale all stems by one gain, so that neither the mixture nor a stem exceeds `peak`."""
    loudest = max(_peak(sound) for sound in (mixture(stems), *stems.values()))
    gain = np.float32(peak / loudest)
    return {name: gain * sound for name, sound in stems.items()}


def master(rng: np.random.Generator, stems: Stems) -> Stems:
    """Balance the stems; in some songs compress or band-limit them; then draw a level."""
    stems = scale_to_peak(balance(rng, stems), 1.0)
    if rng.random() < 0.45:
        threshold, ratio = rng.uniform(0.25, 0.7), rng.choice([2, 4, 20])
        gain = bus_gain(mixture(stems), threshold, ratio, rng.uniform(0.02, 0.25))[:, None]
        stems = {name: sound * gain for name, sound in stems.items()}
    if rng.random() < 0.15:
        edge = rng.uniform(10_500, 16_500)
        stems = {name: band(sound, None, edge, order=8) for name, sound in stems.items()}
    return scale_to_peak(stems, rng.uniform(0.5, 0.98))


def quantise(stems: Stems) -> Stems:
    """Round stems to int16; silence stays exactly silent."""
    return {name: np.round(FULL_SCALE * sound).astype(np.int16) for name, sound in stems.items()}


def exact_mixture(stems: Stems) -> np.ndarray:
    """Return the sum of int16 stems as int16: exact, since `master` leaves room above the peak."""
    total = np.sum([stems[name] for name in STEMS], axis=0, dtype=np.int32)
    if np.abs(total).max() > FULL_SCALE:
        raise ValueError("the stems' sum exceeds 16 bits; scale them to a lower peak first")
    return total.astype(np.int16)
