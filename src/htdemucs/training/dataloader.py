"""Training examples: which excerpt each source is cut from, the examples, and their batches.

Every example is a function of the recordings, the seed and its number, so it does not matter which
process makes it, or whether the run was interrupted.
"""

import math
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Sampler

from htdemucs.errors import AudioError
from htdemucs.training import augment
from htdemucs.training.config import AugmentConfig
from htdemucs.training.dataset import Recording
from htdemucs.training.reading import available_cores, read_stem
from htdemucs.training.rng import generator


@dataclass(frozen=True)
class Excerpt:
    """Where to read.

    Attributes:
        recording: index of the recording.
        start: position of the first sample.
        origin: index of the draw: step and example, or more; sources with the same origin are in
            sync.
    """

    recording: int
    start: int
    origin: tuple[int, ...]


class ExcerptSampler:
    """Draws excerpts at random, from longer recordings more often.

    Args:
        lengths: samples in each recording.
        weights: how often each recording is drawn, relative to its length.
        length: samples in an excerpt; shorter recordings are read from their start.
        remix: probability that the sources of a group of examples are exchanged.
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
        self.length = length
        self._remix, self._group_size = remix, remix_group
        self._seed = seed

    def excerpt(self, step: int, example: int, source: int) -> Excerpt:
        """Return the excerpt that `source` of `example` in the batch of `step` is cut from.

        In a remixed group, the examples' excerpts of one source are a permutation of each other, so
        that remixing reads nothing twice and changes no statistics.
        """
        group, member = divmod(example, self._group_size)
        origin = example
        if generator(self._seed, "remix", step, group).random() < self._remix:
            order = generator(self._seed, "order", step, group, source)
            origin = group * self._group_size + int(order.permutation(self._group_size)[member])
        return self._draw((step, origin))

    def additional_excerpt(self, step: int, example: int, source: int, number: int) -> Excerpt:
        """Return an excerpt to add to `source` of `example`, in sync with no other."""
        return self._draw((step, example, source, number))

    def _draw(self, origin: tuple[int, ...]) -> Excerpt:
        draw = generator(self._seed, "excerpt", *origin)
        index = int(np.searchsorted(self._cumulative, draw.random(), side="right"))
        index = min(index, len(self._lengths) - 1)  # rounding can leave the last sum below 1
        last_start = max(0, self._lengths[index] - self.length)
        return Excerpt(index, int(draw.integers(0, last_start + 1)), origin)


class StemDataset(Dataset[Tensor]):
    """Training examples (1 + S, C, L), the mixture first; 0 to `batch_size` - 1 are step 0's.

    Args:
        recordings: the music, all at `sample_rate`.
        sampler: draws the excerpts.
        config: the augmentation.
        sources, channels, sample_rate: those of the model.
        length: samples of an example.
        batch_size: examples in a step.
        seed: seed of the run.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        sampler: ExcerptSampler,
        config: AugmentConfig,
        *,
        sources: Sequence[str],
        channels: int,
        sample_rate: int,
        length: int,
        batch_size: int,
        seed: int,
    ) -> None:
        self.recordings, self.sampler, self.config = recordings, sampler, config
        self.sources, self.channels = tuple(sources), channels
        self.sample_rate, self.length = sample_rate, length
        self.batch_size, self.seed = batch_size, seed
        self._configs = [config.for_source(source) for source in self.sources]

    def __getitem__(self, n: int) -> Tensor:
        step, example = divmod(n, self.batch_size)
        sources = [self._source(step, example, s) for s in range(len(self.sources))]
        rng = partial(self._generator, (step, example))
        return augment.augment_mixture(torch.stack(sources), self.config, self.sample_rate, rng)

    def _source(self, step: int, example: int, source: int) -> Tensor:
        """Read, repitch, mix and augment one source, (C, L)."""
        config, index = self._configs[source], (step, example, source)
        rng = partial(self._generator, index)
        excerpt = self.sampler.excerpt(*index)
        waveform = self._read(excerpt, source, index)
        draw = rng("mixup")
        for number, probability in enumerate(config.mixup):
            chance = draw.random()
            gain = draw.uniform(config.mixup_scale_min, config.mixup_scale_max)
            if chance < probability:
                other = self.sampler.additional_excerpt(*index, number)
                waveform = waveform + gain * self._read(other, source, other.origin)
        level = self.recordings[excerpt.recording].std
        return augment.augment_source(waveform, config, self.sample_rate, rng, level)

    def _read(self, excerpt: Excerpt, source: int, index: tuple[int, ...]) -> Tensor:
        """Return an excerpt of a source, (C, L), shifted by a draw at `index`, and repitched."""
        config = self._configs[source]
        recording, start = self.recordings[excerpt.recording], excerpt.start
        if recording.pool:
            recording, start = self._draw_file(recording, excerpt.origin, source)
        semitones, tempo = augment.draw_pitch_and_tempo(
            config, self._generator(excerpt.origin, "repitch")
        )
        shift = int(self._generator(index, "shift").random() * config.shift * self.sample_rate)
        needed = math.ceil(self.length * tempo)
        start = max(0, min(start + shift, recording.length - needed))
        files = recording.files[self.sources[source]]
        length = min(needed, recording.length - start)
        waveform = read_stem(files, start, length, self.channels, self.sample_rate)
        if files:
            waveform = recording.normalize(waveform)
        if semitones or tempo != 1:
            waveform = augment.repitch(waveform, semitones, tempo, self.sample_rate)
        waveform = waveform[:, : self.length]
        return F.pad(waveform, (0, self.length - waveform.shape[-1]))

    def _draw_file(
        self, pool: Recording, origin: tuple[int, ...], source: int
    ) -> tuple[Recording, int]:
        """Return a file of a source and a start, from longer files more often."""
        files = pool.pool[self.sources[source]]
        if not files:
            return replace(pool, files={self.sources[source]: ()}, length=self.length), 0
        draw = self._generator((*origin, source), "file")
        ends = np.cumsum([file.length for file in files])
        index = int(np.searchsorted(ends, draw.random() * ends[-1], side="right"))
        file = files[min(index, len(files) - 1)]
        last_start = max(0, file.length - self.sampler.length)
        return file, int(draw.integers(0, last_start + 1))

    def _generator(self, index: tuple[int, ...], purpose: str) -> np.random.Generator:
        return generator(self.seed, purpose, *index)


def batches(
    dataset: StemDataset,
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
    share = dataset.batch_size // processes
    share_of_process = slice(process * share, (process + 1) * share)
    workers = min(workers, available_cores())
    loader = DataLoader(
        _BatchDataset(dataset),
        batch_size=None,
        sampler=_BatchSampler(first, last, dataset.batch_size, parts, share_of_process),
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if workers else None,
        generator=torch.Generator(),  # by default it uses the generator that dropout uses
        worker_init_fn=_ignore_signals,
    )
    for batch in loader:
        if isinstance(batch, AudioError):
            raise batch
        yield batch


class _BatchSampler(Sampler[list[int]]):
    """Yields the numbers of this process's examples, for each part of each step."""

    def __init__(self, first: int, last: int, batch_size: int, parts: int, share: slice) -> None:
        self._steps = range(first, last)
        self._batch_size, self._parts, self._share = batch_size, parts, share

    def __iter__(self) -> Iterator[list[int]]:
        for step in self._steps:
            whole = range(step * self._batch_size, (step + 1) * self._batch_size)
            numbers = list(whole[self._share])
            size = len(numbers) // self._parts
            for part in range(self._parts):
                yield numbers[part * size : (part + 1) * size]


class _BatchDataset(Dataset[Tensor | AudioError]):
    """Batches of examples by their numbers.

    An error is returned, because the loader would add a worker's traceback to a raised one.
    """

    def __init__(self, dataset: StemDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, numbers: list[int]) -> Tensor | AudioError:
        try:
            return torch.stack([self._dataset[number] for number in numbers])
        except AudioError as error:
            return error


def _ignore_signals(_worker: int) -> None:
    """Leave Ctrl-C and SIGTERM to the main process, which writes a checkpoint."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
