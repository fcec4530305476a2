"""Listening to a track's stems while they are made, and having later ones made first."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from htdemucs.audio import AudioFile
from htdemucs.separation import Normalization, OutputCache, Separator


class Observer:
    """Hears a track's blocks of stems, (S, C, L) at the model's sample rate. This one sleeps.

    Attributes:
        answers: keeps what the network said of later parts, so that nothing is computed twice.
    """

    answers: OutputCache | None = None

    def begin(self, source: AudioFile, length: int, way: Callable[[int], Iterator[Tensor]]) -> None:
        """Hear of the track: its file, its length in samples at the model's rate, and a way ahead.

        `way(start)` makes and yields the blocks from that sample on. `heard` may use it, at any
        time; the files do not depend on it.
        """

    def heard(self, start: int, block: Tensor) -> None:
        """Take the next block; it begins at sample `start`. An exception ends the work."""


def ahead(
    separator: Separator,
    source: AudioFile,
    normalization: Normalization,
    answers: OutputCache | None,
    start: int,
) -> Iterator[Tensor]:
    """Yield a track's blocks of stems from a sample on, beside the run that makes its files."""
    again = source.at_rate(source.sample_rate)
    for stems in separator.stream(again, normalization, skip=start, cache=answers):
        yield torch.stack(list(stems.values())).cpu()
