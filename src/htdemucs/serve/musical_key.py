"""The musical key of a song, from the pitches in its stems."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

WINDOW = 0.37  # seconds, rounded to a power of two in samples
LOWEST, HIGHEST = 50.0, 2000.0  # Hz, of the peaks that are counted
BINS = 10  # of the histogram in a semitone
SILENCE = 1e-9  # magnitude; added before logarithms
# Thresholds of certainty, measured: docs/decisions/0029-musical-key.md.
MIN_CORRELATION = 0.7  # with the profile of the best key
MIN_MARGIN = 0.02  # difference to the correlation with the second-best key
# How often each pitch class occurs, from the tonic up, in pieces of known keys: J. Albrecht and
# D. Shanahan, "The Use of Large Corpora to Train a New Type of Key-Finding Algorithm", Music
# Perception 31(1), 2013.
PROFILES = {
    "": (0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081),
    "m": (0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052),
}
# The usual names, from C up. page/musical-key.js has the same table.
TONICS = {
    "": ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"),
    "m": ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B"),
}
KEYS = [tonic + mode for mode, tonics in TONICS.items() for tonic in tonics]
Array = NDArray[np.floating]


class KeyEstimator:
    """Estimates the key of a song from blocks of its stems, without the drums.

    The peaks of each spectrum are added to a histogram of pitches in an octave, whose distance
    from the semitones at 440 Hz is the song's tuning. The key is the one whose profile correlates
    best with the histogram of the twelve pitch classes. Memory does not depend on the song's
    length.

    Args:
        sample_rate: of the blocks, in Hz.
        stems: the names of their first lanes; all other lanes are ignored.
    """

    def __init__(self, sample_rate: int, stems: Sequence[str]) -> None:
        self._lanes = [lane for lane, stem in enumerate(stems) if stem != "drums"]
        n_fft = 2 ** max(1, round(np.log2(WINDOW * sample_rate)))
        self._window = np.hanning(n_fft).astype(np.float32)
        self._bin_width = sample_rate / n_fft  # Hz
        self._samples = np.zeros(0, np.float32)  # from the start of the next window on
        self._histogram = np.zeros(12 * BINS)

    def push(self, block: Tensor) -> None:
        """Add the next block, (lane, C, L)."""
        mono = block[self._lanes].sum(0).mean(0).numpy()
        samples = np.concatenate([self._samples, mono])
        n_fft = len(self._window)
        hop = n_fft // 2
        count = max(0, (len(samples) - n_fft) // hop + 1)
        if count:
            windows = np.lib.stride_tricks.sliding_window_view(samples, n_fft)[::hop]
            self._add_peaks(np.abs(np.fft.rfft(windows * self._window)))
        self._samples = samples[count * hop :]

    def _add_peaks(self, spectra: Array) -> None:
        """Add the peaks of magnitude spectra (window, bin) to the histogram."""
        stop = min(int(HIGHEST / self._bin_width), spectra.shape[1] - 1)
        first = min(int(LOWEST / self._bin_width) + 1, stop)
        before, here, after = (spectra[:, first + i : stop + i] for i in (-1, 0, 1))
        window, index = np.nonzero((here > before) & (here >= after))
        a, b, c = (np.log(part[window, index] + SILENCE) for part in (before, here, after))
        # The vertex of the parabola through three bins is closer to the frequency than the bin.
        vertex = ((a - c) / 2 / np.minimum(a - 2 * b + c, -SILENCE)).clip(-0.5, 0.5)
        semitones = 9 + 12 * np.log2((first + index + vertex) * self._bin_width / 440)  # above C
        # Loud windows count more than quiet ones, but less than in proportion to their magnitude.
        peaks = here[window, index]
        weights = peaks / np.sqrt(np.bincount(window, peaks, len(spectra))[window])
        bins = np.rint(BINS * semitones).astype(int) % (12 * BINS)
        self._histogram += np.bincount(bins, weights, 12 * BINS)

    def key(self) -> str | None:
        """Return the key, one of `KEYS`; None if it is uncertain."""
        steps = np.arange(12 * BINS) / BINS  # semitones above C
        tuning = np.angle(self._histogram @ np.exp(2j * np.pi * steps)) / (2 * np.pi)
        classes = np.bincount(np.rint(steps - tuning).astype(int) % 12, self._histogram, 12)
        if not np.ptp(classes):  # silence, or nothing but drums
            return None
        profiles = [np.roll(p, tonic) for p in PROFILES.values() for tonic in range(12)]
        correlations = np.corrcoef([classes, *profiles])[0, 1:]
        second, best = np.argsort(correlations)[-2:]
        margin = correlations[best] - correlations[second]
        if correlations[best] < MIN_CORRELATION or margin < MIN_MARGIN:
            return None
        return KEYS[best]
