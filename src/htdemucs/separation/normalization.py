"""The level of a whole track, measured in one pass over its blocks."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from htdemucs.audio import reblock

EPSILON = 1e-8  # keeps a silent track finite
CHUNK = 1 << 16  # samples added up at a time; with the blocks' own lengths the sum would differ


@dataclass(frozen=True)
class Normalization:
    """Mean and deviation of a track's mono mix; for the model they are brought to 0 and 1."""

    mean: float
    std: float
    length: int = 0  # samples in the track, 0 where unknown: `split=False` is not checked then

    def apply(self, waveform: Tensor) -> Tensor:
        """(..., L) -> (..., L), from the track's level to the model's."""
        return (waveform - self.mean) / self.std

    def undo(self, waveform: Tensor) -> Tensor:
        """(..., L) -> (..., L), from the model's level back to the track's."""
        return waveform * self.std + self.mean


def measure(blocks: Iterable[Tensor]) -> Normalization:
    """Return the normalisation of a track in blocks (C, L), with the sample standard deviation."""
    length, total, squares = 0, 0.0, 0.0
    for chunk in reblock(blocks, CHUNK):
        mono = chunk.mean(0).double()
        length += mono.numel()
        total += float(mono.sum())
        squares += float(mono.square().sum())
    if not length:
        return Normalization(0.0, EPSILON, 0)
    mean = total / length
    variance = max(squares - length * mean * mean, 0.0) / max(length - 1, 1)
    return Normalization(mean, variance**0.5 + EPSILON, length)
