"""Reading the samples of audio files: excerpts by position, and the levels of whole files."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from htdemucs.errors import AudioError

BLOCK = 1 << 18  # samples read at once


def read_excerpt(path: Path, start: int, length: int, channels: int) -> Tensor:
    """Read (channels, length or less) from sample `start` on, without reading what lies before.

    Raises:
        AudioError: the file cannot be read, or a sample is not finite.
    """
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            first = file.seek(min(start, file.frames))
            samples = file.read(length, dtype="float32", always_2d=True)
            _check_finite(samples, path, first, file.samplerate)
    except (OSError, RuntimeError) as error:
        raise AudioError(f"cannot read {path}: {error}") from error
    waveform = torch.from_numpy(samples.T.copy())
    if waveform.shape[0] == channels:
        return waveform
    return waveform.mean(0, keepdim=True).expand(channels, -1)


def mono_statistics(paths: Sequence[Path]) -> tuple[float, float]:
    """Return the mean and the standard deviation of the sum of some files, each mixed to mono.

    Shorter files count as silent after their end.

    Raises:
        AudioError: a sample is not finite.
        OSError, RuntimeError: a file cannot be read.
    """
    readers = [_mono_blocks(path) for path in paths]
    count, total, squares = 0, 0.0, 0.0
    while blocks := [block for reader in readers if (block := next(reader, None)) is not None]:
        mixture = np.zeros(max(map(len, blocks)))
        for block in blocks:
            mixture[: len(block)] += block
        count += len(mixture)
        total += float(mixture.sum())
        squares += float(mixture @ mixture)
    variance = (squares - total * total / count) / max(1, count - 1)
    return total / count, max(0.0, variance) ** 0.5


def check_samples(paths: Iterable[Path]) -> None:
    """Read some files to their end.

    Raises:
        AudioError: a sample is not finite.
        OSError, RuntimeError: a file cannot be read.
    """
    for path in paths:
        for _ in _mono_blocks(path):
            pass


def _mono_blocks(path: Path) -> Iterator[NDArray[np.float64]]:
    """Yield the mean of the channels, (L,), in blocks; check every sample."""
    import soundfile

    with soundfile.SoundFile(path) as file:
        position = 0
        for block in file.blocks(BLOCK, dtype="float32", always_2d=True):
            _check_finite(block, path, position, file.samplerate)
            position += len(block)
            yield block.mean(axis=1, dtype=np.float64)


def _check_finite(samples: NDArray[np.float32], path: Path, first: int, sample_rate: int) -> None:
    """Raise AudioError if one of the samples (L, C) is not finite; `first` is their position."""
    if np.isfinite(samples.sum(dtype=np.float64)):  # fast, and true only if all are finite
        return
    place = first + int(np.argmin(np.isfinite(samples).all(axis=1)))
    raise AudioError(
        f"sample {place} of {path}, at {place / sample_rate:.3f} s, is not a finite number; "
        "export the file again"
    )


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # some systems do not have it
    return len(affinity(0)) if affinity else os.cpu_count() or 1
