"""Following the stems of a track while they are separated, and requesting later parts early."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from htdemucs.audio import AudioFile, SampleCache
from htdemucs.separation import Normalization, OutputCache, Separator

StreamFrom = Callable[[int], Iterator[tuple[Tensor, Tensor]]]


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
                on, each with the mixture's block (C, L). `on_block` may call it at any time; the
                files do not depend on it.
        """

    def on_block(self, start: int, block: Tensor) -> None:
        """Receive the next block, which begins at sample `start`. An exception ends the work."""


class CachedMixture:
    """A track's decoded samples on disk, in blocks of a second; iterate over it for all of them.

    Args:
        cache: written by `first_pass`.
        source: the track.
    """

    def __init__(self, cache: SampleCache, source: AudioFile) -> None:
        self._cache, self._channels = cache, source.channels
        self._block_length = source.sample_rate

    def __iter__(self) -> Iterator[Tensor]:
        return self.blocks(0)

    def blocks(self, first: int) -> Iterator[Tensor]:
        """Yield the blocks (C, L) from the one with the number `first` on."""
        values = self._channels * self._block_length
        for block in self._cache.blocks(values, first * values):
            yield block.view(self._channels, -1)

    def blocks_near(self, start: int) -> Iterator[Tensor]:
        """Yield all blocks (C, L); those that end before sample `start` are silent and not read."""
        first = max(0, start // self._block_length)
        silence = torch.zeros(self._channels, self._block_length)
        for _ in range(first):
            yield silence
        yield from self.blocks(first)

    def samples(self, start: int) -> Iterator[Tensor]:
        """Yield blocks (C, L) that begin with sample `start`."""
        first = start // self._block_length
        for block in self.blocks(first):
            yield block[:, max(0, start - first * self._block_length) :]
            start = 0


def stream_beside(
    separator: Separator,
    mixture: CachedMixture,
    normalization: Normalization,
    outputs: OutputCache | None,
    start: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a track's blocks of stems and of the mixture from sample `start` on.

    This is apart from the run for the track's files. Nothing long before `start` is read.
    """
    reach = 3 * separator.segment_length  # of a segment's window and its shift, and more
    blocks = mixture.blocks_near(start - reach)
    originals = mixture.samples(start)
    rest = torch.zeros(separator.audio_channels, 0)
    for stems in separator.stream(blocks, normalization, skip=start, cache=outputs):
        block = torch.stack(list(stems.values())).cpu()
        while rest.shape[-1] < block.shape[-1]:
            rest = torch.cat([rest, next(originals)], dim=-1)
        yield block, rest[:, : block.shape[-1]]
        rest = rest[:, block.shape[-1] :]
