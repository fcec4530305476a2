"""Following the stems of a track while they are separated, and requesting later parts early."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from htdemucs.audio import AudioFile
from htdemucs.separation import Normalization, OutputCache, Separator

StreamFrom = Callable[[int], Iterator[Tensor]]


class Observer:
    """Receives a track's blocks of stems, (S, C, L) at the model's sample rate; does nothing here.

    Attributes:
        outputs: caches the network's outputs for later parts, so that nothing is computed twice.
    """

    outputs: OutputCache | None = None

    def on_start(self, source: AudioFile, length: int, stream_from: StreamFrom) -> None:
        """Receive the track before its first block.

        Args:
            source: the track's file.
            length: samples in the track, at the model's sample rate.
            stream_from: `stream_from(start)` separates and yields the blocks from sample `start`
                on. `on_block` may call it at any time; the files do not depend on it.
        """

    def on_block(self, start: int, block: Tensor) -> None:
        """Receive the next block, which begins at sample `start`. An exception ends the work."""


def stream_beside(
    separator: Separator,
    source: AudioFile,
    normalization: Normalization,
    outputs: OutputCache | None,
    start: int,
) -> Iterator[Tensor]:
    """Yield a track's blocks of stems from sample `start` on, apart from the run for its files."""
    blocks = source.at_rate(source.sample_rate)
    for stems in separator.stream(blocks, normalization, skip=start, cache=outputs):
        yield torch.stack(list(stems.values())).cpu()
