"""Training examples: excerpts read from disk by position, augmented, and gathered into batches."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Sampler

from htdemucs.errors import AudioError
from htdemucs.training import augment
from htdemucs.training.config import AugmentConfig
from htdemucs.training.excerpts import ExcerptPlan
from htdemucs.training.randomness import generator


class TrainingTrack(Protocol):
    """A song with one file a source, all equally long."""

    length: int
    sample_rate: int

    def file(self, source: str) -> Path:
        """The file of a source."""
        ...


class Examples(Dataset[Tensor]):
    """Example n is the sources (S, C, L) of place n % batch_size of step n // batch_size.

    What an example is depends on the seed and n alone.
    """

    def __init__(
        self,
        tracks: Sequence[TrainingTrack],
        plan: ExcerptPlan,
        config: AugmentConfig,
        *,
        sources: Sequence[str],
        channels: int,
        length: int,
        batch_size: int,
        seed: int,
    ) -> None:
        self.tracks, self.plan, self.config = tracks, plan, config
        self.sources, self.channels, self.length = tuple(sources), channels, length
        self.batch_size, self.seed = batch_size, seed

    def __getitem__(self, n: int) -> Tensor:
        step, example = divmod(n, self.batch_size)
        return torch.stack([self._source(step, example, s) for s in range(len(self.sources))])

    def _source(self, step: int, example: int, source: int) -> Tensor:
        excerpt = self.plan.excerpt(step, example, source)
        track = self.tracks[excerpt.track]
        draw = generator(self.seed, "augment", step, example, source)
        shift = int(draw.random() * self.config.shift * track.sample_rate)
        semitones, tempo = self._repitch(draw)
        needed = int(self.length * tempo) + 1 if tempo != 1 else self.length
        start = max(0, min(excerpt.start + shift, track.length - needed))
        waveform = read_excerpt(track.file(self.sources[source]), start, needed, self.channels)
        if semitones or tempo != 1:
            waveform = augment.repitched(waveform, semitones, tempo, track.sample_rate)
        waveform = F.pad(waveform, (0, self.length - waveform.shape[-1]))
        return augment.augment(waveform, self.config, track.sample_rate, draw)

    def _repitch(self, draw: np.random.Generator) -> tuple[float, float]:
        chance, pitch, tempo = draw.random(3)
        if chance >= self.config.repitch:
            return 0.0, 1.0
        semitones = round((2 * pitch - 1) * self.config.repitch_semitones)
        return semitones, 1 + (2 * tempo - 1) * self.config.repitch_tempo


def read_excerpt(path: Path, start: int, length: int, channels: int) -> Tensor:
    """(channels, length or less), from sample `start` on; the file is not read from its beginning.

    Raises:
        AudioError: it cannot be read.
    """
    import soundfile

    try:
        samples, _ = soundfile.read(path, length, start, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise AudioError(f"cannot read {path}: {error}") from error
    waveform = torch.from_numpy(samples.T.copy())
    if waveform.shape[0] == channels:
        return waveform
    return waveform.mean(0, keepdim=True).expand(channels, -1)


class _Places(Sampler[list[int]]):
    """The examples of each part of each step that this process computes, from a step on."""

    def __init__(self, first: int, last: int, batch_size: int, parts: int, mine: slice) -> None:
        self._steps = range(first, last)
        self._batch_size, self._parts, self._mine = batch_size, parts, mine

    def __iter__(self) -> Iterator[list[int]]:
        for step in self._steps:
            places = list(range(step * self._batch_size, (step + 1) * self._batch_size))[self._mine]
            size = len(places) // self._parts
            for part in range(self._parts):
                yield places[part * size : (part + 1) * size]


def loader(
    examples: Examples,
    *,
    first: int,
    last: int,
    parts: int,
    process: int,
    processes: int,
    workers: int,
) -> DataLoader[Tensor]:
    """Batches (B, S, C, L) of steps `first` to `last`, in `parts` a step, for one of the processes."""
    share = examples.batch_size // processes
    mine = slice(process * share, (process + 1) * share)
    places = _Places(first, last, examples.batch_size, parts, mine)
    return DataLoader(
        examples,
        batch_sampler=places,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=False,
        prefetch_factor=4 if workers else None,
    )
