"""A picture of a lane: mel bands over columns."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from htdemucs.serve.preview import COLUMN

BANDS = 96
N_FFT = 4096
FLOOR = -90.0  # dB, the darkest value
TOGETHER = 128  # columns transformed at a time, which bounds the memory
LOWEST = 30.0  # Hz
LOOKS = 4  # windows in a column that stands for many
TOGETHER_WIDE = 4096  # columns of COLUMN frames read at a time
Read = Callable[[int, int], NDArray[np.int16]]


def wide_spectrogram(
    read: Read, sample_rate: int, start: int, columns: int, step: int
) -> NDArray[np.uint8]:
    """Return (columns, BANDS) of columns `step` times as wide, each as loud as its loudest.

    Args:
        read: gives (L, C) from a frame on.
        sample_rate: of the samples.
        start: the first column.
        columns: how many.
        step: a power of two; of wide columns only LOOKS places are looked at.
    """
    every = max(1, step // LOOKS)
    looks = step // every
    together = max(1, TOGETHER_WIDE // step)
    parts = []
    for first in range(start, start + columns, together):
        count = min(together, start + columns - first)
        begin = first * step * COLUMN - BEFORE
        missing = max(0, -begin)
        samples = read(begin + missing, frames_around(count * looks, every) - missing)
        bands = spectrogram(samples, sample_rate, count * looks, missing, every)
        parts.append(bands.reshape(count, looks, BANDS).max(1))
    return np.concatenate(parts)


def spectrogram(
    samples: NDArray[np.int16], sample_rate: int, columns: int, missing: int = 0, every: int = 1
) -> NDArray[np.uint8]:
    """(L, C) -> (columns, BANDS); 0 is -90 dB or less, 255 a sine at full scale.

    Of the columns only each `every`-th is there.

    The samples begin `BEFORE` frames before the first column and are `frames_around(columns,
    every)`, of which the first `missing` lie before the track and are left out.
    """
    mono = np.pad(samples.astype(np.float32).mean(1) / (1 << 15), (missing, 0))
    windows = np.lib.stride_tricks.sliding_window_view(mono, N_FFT)[:: every * COLUMN][:columns]
    parts = [windows[first : first + TOGETHER] for first in range(0, columns, TOGETHER)]
    power = np.concatenate([_power(part) @ _bands(sample_rate) for part in parts])
    decibels = 10 * np.log10(np.maximum(power, 1e-12))
    scaled = 255 * (1 - decibels / FLOOR)
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)


def _power(windows: NDArray[np.float32]) -> NDArray[Any]:
    """(column, N_FFT) -> (column, bin); a sine at full scale has 1."""
    window = np.hanning(N_FFT).astype(np.float32)
    return np.square(np.abs(np.fft.rfft(windows * window)) * (2 / window.sum()))


BEFORE = (N_FFT - COLUMN) // 2  # frames before a column that its window reaches


def frames_around(columns: int, every: int = 1) -> int:
    """Return how many frames the windows of so many columns span, each `every`-th being there."""
    return (columns - 1) * every * COLUMN + N_FFT


@cache
def _bands(sample_rate: int) -> NDArray[Any]:
    """Return triangles over bins, (bin, band), equally wide in mel; no band is without a bin."""
    frequencies = np.fft.rfftfreq(N_FFT, 1 / sample_rate)
    edges = _hertz(np.linspace(_mel(LOWEST), _mel(sample_rate / 2), BANDS + 2))
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising = (frequencies[:, None] - low) / (centre - low)
    falling = (high - frequencies[:, None]) / (high - centre)
    weights = np.clip(np.minimum(rising, falling), 0, None)
    nearest = np.abs(frequencies[:, None] - centre).argmin(0)
    weights[nearest, np.arange(BANDS)] = np.maximum(weights[nearest, np.arange(BANDS)], 0.5)
    return weights.astype(np.float32)


def _mel(hertz: float) -> float:
    return float(2595 * np.log10(1 + hertz / 700))


def _hertz(mel: NDArray[Any]) -> NDArray[Any]:
    return 700 * (10 ** (mel / 2595) - 1)
