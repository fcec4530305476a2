"""The mean and deviation of a track, by which the network's input is normalised."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from htdemucs.audio import reblock

EPSILON = 1e-8  # keeps a silent track finite
CHUNK = 1 << 16  # samples that are summed at a time, so that sums do not depend on block lengths

Running = Literal["running"]  # normalise each segment by the statistics of the track so far


@dataclass(frozen=True)
class Normalization:
    """Mean and deviation of a track's mono mix, which `apply` changes to 0 and 1.

    Attributes:
        mean, std: of the samples.
        length: samples in the track; 0 if unknown, and then `split=False` is not checked.
    """

    mean: float
    std: float
    length: int = 0

    def apply(self, waveform: Tensor) -> Tensor:
        """(..., L) -> (..., L), from a track's mean and deviation to 0 and 1."""
        return (waveform - self.mean) / self.std

    def undo(self, waveform: Tensor) -> Tensor:
        """(..., L) -> (..., L), from 0 and 1 back to the track's mean and deviation."""
        return waveform * self.std + self.mean


class RunningStats:
    """Accumulates the statistics of a stream."""

    def __init__(self) -> None:
        self._length, self._sum, self._sum_of_squares = 0, 0.0, 0.0

    def update(self, waveform: Tensor) -> None:
        """Add (C, L); L may be 0."""
        mono = waveform.mean(0).double()
        self._length += mono.numel()
        self._sum += float(mono.sum())
        self._sum_of_squares += float(mono.square().sum())

    def normalization(self) -> Normalization:
        """Return the normalisation, with the sample standard deviation."""
        if not self._length:
            return Normalization(0.0, EPSILON, 0)
        mean = self._sum / self._length
        squares = max(self._sum_of_squares - self._length * mean * mean, 0.0)
        variance = squares / max(self._length - 1, 1)
        return Normalization(mean, variance**0.5 + EPSILON, self._length)


def measure(blocks: Iterable[Tensor]) -> Normalization:
    """Return the normalisation of a track in blocks (C, L)."""
    stats = RunningStats()
    for chunk in reblock(blocks, CHUNK):
        stats.update(chunk)
    return stats.normalization()
