"""Streaming sample-rate conversion with an exact length."""

import numpy as np
import soxr
import torch
from torch import Tensor
from torch.nn import functional as F

from htdemucs.audio.channels import interleaved

QUALITY = "VHQ"  # 28 bits of precision; about 3 ms for a second of stereo


def resampled_length(length: int, source_rate: int, target_rate: int) -> int:
    """Convert a length in samples: length * target / source, halves rounded up."""
    return (2 * length * target_rate + source_rate) // (2 * source_rate)


def fitted(waveform: Tensor, length: int) -> Tensor:
    """(..., L) -> (..., length): resampling there and back may give a sample more or less."""
    return F.pad(waveform, (0, length - waveform.shape[-1]))


class Resampler:
    """Converts one waveform, given in blocks, from `source_rate` to `target_rate` (Hz).

    Push blocks, then flush once. What comes out has no delay, does not depend on how the
    waveform was cut into blocks, and holds `resampled_length` samples in all.
    """

    def __init__(self, source_rate: int, target_rate: int, channels: int) -> None:
        self.source_rate = source_rate
        self.target_rate = target_rate
        self._taken = 0
        self._given = 0
        self._channels = channels
        self._stream: soxr.ResampleStream | None = None
        if source_rate != target_rate:
            self._stream = soxr.ResampleStream(
                source_rate, target_rate, channels, dtype="float32", quality=QUALITY
            )

    def push(self, block: Tensor) -> Tensor:
        """(C, L) -> (C, L'), float32; L' may be 0 while the filter fills."""
        if self._stream is None:
            return block
        self._taken += block.shape[1]
        resampled = self._convert(self._stream, block, last=False)
        self._given += resampled.shape[1]
        return resampled

    def flush(self) -> Tensor:
        """Give the tail, (C, L')."""
        if self._stream is None:
            return torch.zeros(self._channels, 0)
        # The silence that follows the waveform gives at least one sample too many to cut from.
        silence = torch.zeros(self._channels, self.source_rate // self.target_rate + 2)
        tail = self._convert(self._stream, silence, last=True)
        length = resampled_length(self._taken, self.source_rate, self.target_rate)
        return tail[:, : length - self._given]

    @staticmethod
    def _convert(stream: soxr.ResampleStream, block: Tensor, *, last: bool) -> Tensor:
        frames = interleaved(block.numpy())
        return torch.from_numpy(np.ascontiguousarray(stream.resample_chunk(frames, last).T))
