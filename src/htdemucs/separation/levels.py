"""The level of a track, measured in one pass over its blocks, or of the part heard so far."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from htdemucs.audio import reblock

EPSILON = 1e-8  # keeps a silent track finite
CHUNK = 1 << 16  # samples added up at a time; with the blocks' own lengths the sum would differ


Running = Literal["running"]  # the level of the track so far, for each segment anew


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


class RunningStats:
    """The level of what was heard so far."""

    def __init__(self) -> None:
        self._length, self._total, self._squares = 0, 0.0, 0.0

    def hear(self, waveform: Tensor) -> None:
        """(C, L); L may be 0."""
        mono = waveform.mean(0).double()
        self._length += mono.numel()
        self._total += float(mono.sum())
        self._squares += float(mono.square().sum())

    def normalization(self) -> Normalization:
        """Return the normalisation, with the sample standard deviation."""
        if not self._length:
            return Normalization(0.0, EPSILON, 0)
        mean = self._total / self._length
        variance = max(self._squares - self._length * mean * mean, 0.0) / max(self._length - 1, 1)
        return Normalization(mean, variance**0.5 + EPSILON, self._length)


def measure(blocks: Iterable[Tensor]) -> Normalization:
    """Return the normalisation of a track in blocks (C, L)."""
    level = RunningStats()
    for chunk in reblock(blocks, CHUNK):
        level.hear(chunk)
    return level.normalization()
