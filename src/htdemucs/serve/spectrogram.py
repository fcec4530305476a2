"""Mel spectrograms of a lane, as the page draws them."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from htdemucs.serve.preview import COLUMN

BANDS = 96
N_FFT = 4096
MARGIN = (N_FFT - COLUMN) // 2  # frames before a column that its window covers
FLOOR = -90.0  # dB; this and everything below it is 0
LOWEST = 30.0  # Hz
WINDOWS = 4  # windows in a wide column
MAX_READ = 4096  # columns of COLUMN frames read at a time
MAX_FFTS = 128  # windows transformed at a time, which bounds the memory
ReadFrames = Callable[[int, int], NDArray[np.int16]]


def wide_spectrogram(
    read: ReadFrames, sample_rate: int, start: int, columns: int, step: int
) -> NDArray[np.uint8]:
    """Return (columns, BANDS) of columns of `step` * COLUMN frames: the maximum in each band.

    Args:
        read: (first frame, number of frames) -> (L, C).
        sample_rate: of the frames.
        start: number of the first column.
        columns: number of columns.
        step: a power of two. Of a column wider than WINDOWS, only WINDOWS windows are computed.
    """
    stride = max(1, step // WINDOWS)
    windows = step // stride
    at_once = max(1, MAX_READ // step)
    parts = []
    for first in range(start, start + columns, at_once):
        count = min(at_once, start + columns - first)
        begin = first * step * COLUMN - MARGIN
        missing = max(0, -begin)
        samples = read(begin + missing, frames_needed(count * windows, stride) - missing)
        bands = spectrogram(samples, sample_rate, count * windows, missing, stride)
        parts.append(bands.reshape(count, windows, BANDS).max(1))
    return np.concatenate(parts)


def frames_needed(columns: int, stride: int = 1) -> int:
    """Return the number of frames that the windows of these columns cover."""
    return (columns - 1) * stride * COLUMN + N_FFT


def spectrogram(
    samples: NDArray[np.int16], sample_rate: int, columns: int, missing: int = 0, stride: int = 1
) -> NDArray[np.uint8]:
    """(L, C) -> (columns, BANDS), where 0 is FLOOR or less and 255 is a sine at full scale.

    Args:
        samples: `frames_needed(columns, stride)` frames, which begin MARGIN before the first
            column, less those that are `missing`.
        sample_rate: of the samples.
        columns: number of columns.
        missing: frames at the beginning that are before the track's first.
        stride: every how many columns a window is computed.
    """
    mono = np.pad(samples.astype(np.float32).mean(1) / (1 << 15), (missing, 0))
    windows = np.lib.stride_tricks.sliding_window_view(mono, N_FFT)[:: stride * COLUMN][:columns]
    parts = [windows[first : first + MAX_FFTS] for first in range(0, columns, MAX_FFTS)]
    power = np.concatenate([_power(part) @ _mel_filters(sample_rate) for part in parts])
    decibels = 10 * np.log10(np.maximum(power, 1e-12))
    scaled = 255 * (1 - decibels / FLOOR)
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)


def _power(windows: NDArray[np.float32]) -> NDArray[Any]:
    """(column, N_FFT) -> (column, bin); a sine at full scale has power 1."""
    window = np.hanning(N_FFT).astype(np.float32)
    return np.square(np.abs(np.fft.rfft(windows * window)) * (2 / window.sum()))


@cache
def _mel_filters(sample_rate: int) -> NDArray[Any]:
    """Return triangular filters (bin, band), equally wide in mel; every band has at least a bin."""
    frequencies = np.fft.rfftfreq(N_FFT, 1 / sample_rate)
    edges = _mel_to_hertz(
        np.linspace(_hertz_to_mel(LOWEST), _hertz_to_mel(sample_rate / 2), BANDS + 2)
    )
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising = (frequencies[:, None] - low) / (centre - low)
    falling = (high - frequencies[:, None]) / (high - centre)
    weights = np.clip(np.minimum(rising, falling), 0, None)
    nearest = np.abs(frequencies[:, None] - centre).argmin(0)
    weights[nearest, np.arange(BANDS)] = np.maximum(weights[nearest, np.arange(BANDS)], 0.5)
    return weights.astype(np.float32)


def _hertz_to_mel(hertz: float) -> float:
    return float(2595 * np.log10(1 + hertz / 700))


def _mel_to_hertz(mel: NDArray[Any]) -> NDArray[Any]:
    return 700 * (10 ** (mel / 2595) - 1)
