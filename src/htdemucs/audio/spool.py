"""A waveform put aside on disk until its peak is known."""

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from os import SEEK_END, PathLike
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from htdemucs.audio.failures import reporting
from htdemucs.errors import AudioError

_BYTES = 4  # of a float32 sample


class Spool:
    """Raw float32 samples in a temporary file inside `folder`, deleted when the spool closes.

    Write blocks, then read them back in order, as often as wanted. Memory does not depend on
    the length.

    Attributes:
        length: samples written so far, a channel.
        peak: greatest finite absolute sample written so far; 0.0 before the first.

    Raises AudioError if the folder cannot be written or the disk is full.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self._folder = Path(folder)
        self.length = 0
        self.peak = 0.0
        self._channels = 0
        with self._reporting():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._folder, prefix=".htdemucs-")  # noqa: SIM115

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Delete the temporary file."""
        with self._reporting():
            self._file.close()

    def write(self, block: Tensor) -> None:
        """Append a block (C, L), L from 0; every block has the channels of the first."""
        channels, length = block.shape
        if self._channels not in (0, channels):
            raise AudioError(f"a block has {channels} channels, those before {self._channels}")
        self._channels = channels
        samples = block.detach().to("cpu", torch.float32)
        magnitude = samples.abs()
        finite = magnitude[magnitude.isfinite()]
        if finite.numel():
            self.peak = max(self.peak, float(finite.max()))
        with self._reporting():
            self._file.seek(0, SEEK_END)
            self._file.write(np.ascontiguousarray(samples.numpy().T).tobytes())
            self._file.flush()
        self.length += length

    def blocks(self, block_length: int) -> Iterator[Tensor]:
        """Yield what was written so far from the start: (C, block_length), the last one shorter."""
        frame_bytes = _BYTES * self._channels
        length = self.length
        for start in range(0, length, block_length):
            with self._reporting():
                self._file.seek(start * frame_bytes)
                count = min(block_length, length - start)
                samples = np.frombuffer(self._file.read(count * frame_bytes), np.float32)
            yield torch.from_numpy(samples.reshape(count, self._channels).T.copy())

    def _reporting(self) -> AbstractContextManager[None]:
        return reporting(self._folder, "cannot hold temporary files", "free some space there")
