"""The level of a whole track, found in one pass over its blocks."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-8  # keeps a silent track finite
CHUNK = 1 << 16  # samples summed at a time, whatever the blocks, so that blocks change no bit


@dataclass(frozen=True)
class Normalization:
    """Mean and deviation of a track's mono mix; the model hears tracks with 0 and 1."""

    mean: float
    std: float
    length: int  # samples in the track

    def apply(self, waveform: Tensor) -> Tensor:
        """(..., L) -> (..., L), to the model's level."""
        return (waveform - self.mean) / self.std

    def undo(self, waveform: Tensor) -> Tensor:
        """(..., L) -> (..., L), back to the track's level."""
        return waveform * self.std + self.mean


def measure(blocks: Iterable[Tensor]) -> Normalization:
    """The normalisation of a track given as blocks (C, L), with the deviation of a sample."""
    length, total, squares = 0, 0.0, 0.0
    for chunk in _chunks(block.mean(0).double() for block in blocks):
        length += chunk.numel()
        total += float(chunk.sum())
        squares += float(chunk.square().sum())
    if not length:
        return Normalization(0.0, EPSILON, 0)
    mean = total / length
    variance = max(squares - length * mean * mean, 0.0) / max(length - 1, 1)
    return Normalization(mean, variance**0.5 + EPSILON, length)


def _chunks(signal: Iterable[Tensor]) -> Iterable[Tensor]:
    """The same samples in pieces of `CHUNK`, the last one shorter."""
    pending: list[Tensor] = []
    waiting = 0
    for piece in signal:
        pending.append(piece)
        waiting += piece.numel()
        if waiting >= CHUNK:
            whole = torch.cat(pending)
            *full, rest = whole.split(CHUNK) if waiting % CHUNK else (*whole.split(CHUNK), whole[:0])
            yield from full
            pending, waiting = [rest], rest.numel()
    yield torch.cat(pending) if pending else torch.zeros(0)
