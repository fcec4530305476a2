"""Draws the excerpt of a recording that each source of each example is cut from.

MERGED: Training examples: excerpts read by position, augmented and gathered into batches.
"""

import math
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Sampler

from htdemucs.errors import AudioError
from htdemucs.training import augment
from htdemucs.training.config import AugmentConfig
from htdemucs.training.dataset import Recording
from htdemucs.training.rng import generator


@dataclass(frozen=True)
class Excerpt:
    """A place to read from.

    Attributes:
        recording: index of the recording.
        start: position of the first sample.
        origin: index of the draw; sources of one draw belong together.
    """

    recording: int
    start: int
    origin: int


class ExcerptSampler:
    """Draws excerpts at random, from longer recordings more often.

    Args:
        lengths: samples in each recording.
        weights: how often each recording is drawn, relative to its length.
        length: samples in an excerpt; shorter recordings are read from their start.
        remix: probability that a group's sources are mixed with each other.
        remix_group: examples in a group.
        seed: seed of the run.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        weights: Sequence[float],
        *,
        length: int,
        remix: float,
        remix_group: int,
        seed: int,
    ) -> None:
        share = np.asarray(lengths, dtype=np.float64) * np.asarray(weights, dtype=np.float64)
        self._cumulative = np.cumsum(share) / share.sum()
        self._lengths = lengths
        self._length = length
        self._remix, self._group = remix, remix_group
        self._seed = seed

    def excerpt(self, step: int, example: int, source: int) -> Excerpt:
        """Return the excerpt that `source` of `example` in the batch of `step` is cut from.

        In a mixed group, the examples' excerpts of one source are a permutation of each other, so
        that remixing reads nothing twice and changes no statistics.
        """
        group, place = divmod(example, self._group)
        if generator(self._seed, "remix", step, group).random() >= self._remix:
            return self._drawn(step, example)
        order = generator(self._seed, "order", step, group, source).permutation(self._group)
        return self._drawn(step, group * self._group + int(order[place]))

    def _drawn(self, step: int, origin: int) -> Excerpt:
        draw = generator(self._seed, "excerpt", step, origin)
        index = int(np.searchsorted(self._cumulative, draw.random(), side="right"))
        index = min(index, len(self._lengths) - 1)  # where rounding leaves the last sum below 1
        room = max(0, self._lengths[index] - self._length)
        return Excerpt(index, int(draw.integers(0, room + 1)), origin)


class StemDataset(Dataset[Tensor]):
    """Example n is place n % batch_size of step n // batch_size: (1 + S, C, L), the mixture first.

    An example depends on the recordings, the seed and n alone.

    Args:
        recordings: the music, all at `sample_rate`.
        plan: draws the excerpts.
        config: the augmentation.
        sources, channels, sample_rate: as the model has them.
        length: samples of an example.
        batch_size: examples in a step.
        seed: seed of the run.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        plan: ExcerptSampler,
        config: AugmentConfig,
        *,
        sources: Sequence[str],
        channels: int,
        sample_rate: int,
        length: int,
        batch_size: int,
        seed: int,
    ) -> None:
        self.recordings, self.plan, self.config = recordings, plan, config
        self.sources, self.channels = tuple(sources), channels
        self.sample_rate, self.length = sample_rate, length
        self.batch_size, self.seed = batch_size, seed

    def __getitem__(self, n: int) -> Tensor:
        step, example = divmod(n, self.batch_size)
        sources = [self._source(step, example, s) for s in range(len(self.sources))]
        draw = generator(self.seed, "mix", step, example)
        return augment.mixed(torch.stack(sources), self.config, self.sample_rate, draw)

    def _source(self, step: int, example: int, source: int) -> Tensor:
        excerpt = self.plan.excerpt(step, example, source)
        recording = self.recordings[excerpt.recording]
        semitones, tempo = self._repitching(step, excerpt.origin)
        draw = generator(self.seed, "augment", step, example, source)
        shift = int(draw.random() * self.config.shift * self.sample_rate)
        needed = math.ceil(self.length * tempo)
        start = max(0, min(excerpt.start + shift, recording.length - needed))
        path = recording.multitrack.file(self.sources[source])
        waveform = read_excerpt(path, start, needed, self.channels)
        if semitones or tempo != 1:
            waveform = augment.repitched(waveform, semitones, tempo, self.sample_rate)
        waveform = waveform[:, : self.length]
        waveform = F.pad(waveform, (0, self.length - waveform.shape[-1]))
        return augment.changed(waveform, self.config, self.sample_rate, draw)

    def _repitching(self, step: int, origin: int) -> tuple[int, float]:
        """Return semitones and tempo factor, the same for all sources of one origin."""
        chance, pitch, tempo = generator(self.seed, "repitch", step, origin).random(3)
        if chance >= self.config.repitch:
            return 0, 1.0
        semitones = round((2 * pitch - 1) * self.config.repitch_semitones)
        return semitones, 1 + (2 * tempo - 1) * self.config.repitch_tempo


def read_excerpt(path: Path, start: int, length: int, channels: int) -> Tensor:
    """Read (channels, length or less) from sample `start` on, without reading what lies before.

    Raises:
        AudioError: it cannot be read.
    """
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            file.seek(min(start, file.frames))
            samples = file.read(length, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise AudioError(f"cannot read {path}: {error}") from error
    waveform = torch.from_numpy(samples.T.copy())
    if waveform.shape[0] == channels:
        return waveform
    return waveform.mean(0, keepdim=True).expand(channels, -1)


class _Places(Sampler[list[int]]):
    """Yields the examples of each part of each step that belong to this process."""

    def __init__(self, first: int, last: int, batch_size: int, parts: int, mine: slice) -> None:
        self._steps = range(first, last)
        self._batch_size, self._parts, self._mine = batch_size, parts, mine

    def __iter__(self) -> Iterator[list[int]]:
        for step in self._steps:
            places = list(range(step * self._batch_size, (step + 1) * self._batch_size))[self._mine]
            size = len(places) // self._parts
            for part in range(self._parts):
                yield places[part * size : (part + 1) * size]


class _Fetched(Dataset[Tensor | AudioError]):
    """Whole batches of examples. A failure is returned, so that its message stays one line."""

    def __init__(self, examples: StemDataset) -> None:
        self._examples = examples

    def __getitem__(self, places: list[int]) -> Tensor | AudioError:
        try:
            return torch.stack([self._examples[place] for place in places])
        except AudioError as error:
            return error


def batches(
    examples: StemDataset,
    *,
    first: int,
    last: int,
    parts: int = 1,
    process: int = 0,
    processes: int = 1,
    workers: int = 0,
) -> Iterator[Tensor]:
    """Yield one process's batches (B, 1 + S, C, L) of steps `first` to `last`, `parts` per step.

    Raises:
        AudioError: a file cannot be read.
    """
    share = examples.batch_size // processes
    mine = slice(process * share, (process + 1) * share)
    places = _Places(first, last, examples.batch_size, parts, mine)
    workers = min(workers, _cores())
    loader = DataLoader(
        _Fetched(examples),
        batch_size=None,
        sampler=places,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if workers else None,
        generator=torch.Generator(),  # else it draws from the one that dropout draws from
        worker_init_fn=_leave_signals_to_the_main_process,
    )
    for batch in loader:
        if isinstance(batch, AudioError):
            raise batch
        yield batch


def _cores() -> int:
    """Return how many cores this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def _leave_signals_to_the_main_process(_worker: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
