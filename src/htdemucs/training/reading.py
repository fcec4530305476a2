"""Reading the samples of audio files: excerpts by position, and the levels of whole files."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from htdemucs.audio import Resampler, reblock, resampled_length
from htdemucs.audio.convert import SOXR_QUALITY
from htdemucs.errors import AudioError

if TYPE_CHECKING:
    from soundfile import SoundFile

BLOCK = 1 << 18  # samples read at once
MARGIN = 1024  # samples, at the lower rate, that a resampling filter needs on each side


def read_stem(
    paths: Sequence[Path], start: int, length: int, channels: int, sample_rate: int
) -> Tensor:
    """Return the sum of some files, (channels, length), from sample `start` on.

    Without files it is silent.

    Raises:
        AudioError: a file cannot be read, or a sample is not finite.
    """
    total = torch.zeros(channels, length)
    for path in paths:
        waveform = read_excerpt(path, start, length, channels, sample_rate)
        total[:, : waveform.shape[-1]] += waveform
    return total


def read_excerpt(path: Path, start: int, length: int, channels: int, sample_rate: int) -> Tensor:
    """Read (channels, length or less) from sample `start` on, without reading what lies before.

    `start` and `length` count samples at `sample_rate`. A file with another rate is resampled.

    Raises:
        AudioError: the file cannot be read, or a sample is not finite.
    """
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            if file.samplerate == sample_rate:
                samples = _read_samples(file, path, start, length)
            else:
                samples = _read_resampled(file, path, start, length, sample_rate)
    except (OSError, RuntimeError) as error:
        raise AudioError(f"cannot read {path}: {error}") from error
    waveform = torch.from_numpy(samples.T.copy())
    if waveform.shape[0] == channels:
        return waveform
    return waveform.mean(0, keepdim=True).expand(channels, -1)


def _read_samples(file: "SoundFile", path: Path, start: int, length: int) -> NDArray[np.float32]:
    """Return (length or less, C) from sample `start` on."""
    first = file.seek(min(start, file.frames))
    samples: NDArray[np.float32] = file.read(length, dtype="float32", always_2d=True)
    _check_finite(samples, path, first, file.samplerate)
    return samples


def _read_resampled(
    file: "SoundFile", path: Path, start: int, length: int, sample_rate: int
) -> NDArray[np.float32]:
    """Return (length or less, C) from sample `start` at another rate on.

    It is a part of the whole resampled file: reading begins at a sample that both rates have, and
    earlier and ends later than the excerpt, because the filter needs samples on both sides.
    """
    rate = file.samplerate
    divisor = math.gcd(rate, sample_rate)
    source_step, target_step = rate // divisor, sample_rate // divisor
    margin = MARGIN * sample_rate // min(rate, sample_rate)
    steps = max(0, start - margin) // target_step
    end = start + length + margin
    first, last = steps * source_step, -(-end * source_step // target_step)
    samples = _read_samples(file, path, first, last - first)
    if not len(samples):
        return samples
    resampled = soxr.resample(samples, rate, sample_rate, SOXR_QUALITY)
    offset = start - steps * target_step
    file_end = resampled_length(file.frames, rate, sample_rate) - steps * target_step
    part: NDArray[np.float32] = resampled[offset : max(offset, min(offset + length, file_end))]
    return part


def mono_statistics(paths: Sequence[Path], sample_rate: int) -> tuple[float, float]:
    """Return the mean and the standard deviation of the sum of some files, each mixed to mono.

    Shorter files count as silent after their end. Files whose rates differ are resampled to
    `sample_rate`.

    Raises:
        AudioError: a sample is not finite.
        OSError, RuntimeError: a file cannot be read.
    """
    import soundfile

    rates = {soundfile.info(path).samplerate for path in paths}
    common = rates.pop() if len(rates) == 1 else sample_rate
    readers = [_mono_blocks(path, common) for path in paths]
    count, total, squares = 0, 0.0, 0.0
    while blocks := [block for reader in readers if (block := next(reader, None)) is not None]:
        mixture = np.zeros(max(map(len, blocks)))
        for block in blocks:
            mixture[: len(block)] += block
        count += len(mixture)
        total += float(mixture.sum())
        squares += float(mixture @ mixture)
    variance = (squares - total * total / max(1, count)) / max(1, count - 1)
    return total / max(1, count), max(0.0, variance) ** 0.5


def check_samples(paths: Iterable[Path]) -> None:
    """Read some files to their end.

    Raises:
        AudioError: a sample is not finite.
        OSError, RuntimeError: a file cannot be read.
    """
    for path in paths:
        for _ in _mono_blocks(path):
            pass


def _mono_blocks(path: Path, sample_rate: int | None = None) -> Iterator[NDArray[np.float64]]:
    """Yield the mean of the channels, (L,), in blocks, by default at the file's rate.

    Every sample is checked.
    """
    import soundfile

    with soundfile.SoundFile(path) as file:
        resampler = Resampler(file.samplerate, sample_rate or file.samplerate, 1)

        def blocks() -> Iterator[Tensor]:
            position = 0
            for block in file.blocks(BLOCK, dtype="float32", always_2d=True):
                _check_finite(block, path, position, file.samplerate)
                position += len(block)
                yield resampler.push(torch.from_numpy(block.mean(axis=1)[None]))
            yield resampler.flush()

        for block in reblock(blocks(), BLOCK):
            yield block[0].numpy().astype(np.float64)


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
