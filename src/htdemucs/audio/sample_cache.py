"""Finished samples kept on disk, to be read again or resumed from."""

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from os import SEEK_END, SEEK_SET, PathLike
from pathlib import Path
from typing import BinaryIO, Self, cast

import numpy as np
import torch
from torch import Tensor

from htdemucs.audio.ffmpeg import printable, reporting
from htdemucs.errors import AudioError
from htdemucs.fsutil import delete_locked, open_locked

_BYTES = 4  # of a float32 sample


class Spool:
    """Raw float32 samples on disk: write blocks, then read them back in order, as often as wanted.

    Memory does not depend on the length. `Spool(folder)` is a file without a name, which is gone
    when the spool closes. `Spool.kept` has a name and stays, so that work can be resumed even
    after the process was killed.

    Attributes:
        length: samples in each channel.

    Raises AudioError if the folder cannot be written or the disk is full.
    """

    def __init__(self, folder: str | PathLike[str], channels: int) -> None:
        self._place, self._channels = Path(folder), channels
        self._head = 0  # bytes before the first sample
        self.length = 0
        with self._reporting():
            self._place.mkdir(parents=True, exist_ok=True)
            self._file = cast(
                BinaryIO,
                tempfile.TemporaryFile(dir=self._place, prefix=".htdemucs-"),  # noqa: SIM115
            )

    @classmethod
    def kept(cls, path: Path, channels: int, key: str) -> Self:
        """Open the spool at `path`; samples that were written under another key are dropped.

        Raises:
            AudioError: another process has it open, or it cannot be written.
        """
        spool = cls.__new__(cls)
        spool._place, spool._channels = path, channels
        head = f"{key}\n".encode()
        spool._head = len(head)
        with spool._reporting():
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open_locked(path)
            if file is None:
                raise AudioError(
                    f"{printable(path.parent)} is being written by another htdemucs; wait for it"
                )
            spool._file = file
            try:
                if spool._file.read(len(head)) != head:
                    spool._file.seek(0)
                    spool._file.truncate()
                    spool._file.write(head)
                frame = _BYTES * channels
                spool.length = (spool._file.seek(0, SEEK_END) - len(head)) // frame
                spool._file.truncate(len(head) + spool.length * frame)
                spool._file.flush()
            except BaseException:
                spool._file.close()
                raise
        return spool

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; an empty one is deleted."""
        if self._file.closed:
            return
        with self._reporting():
            # Not by `length`: an interrupted write may have reached the disk and not that.
            if self._head and self._file.seek(0, SEEK_END) <= self._head:
                self.delete()
            self._file.close()

    def delete(self) -> None:
        """Close a kept spool for good: its file is deleted while no other process can have it."""
        with self._reporting():
            delete_locked(self._file, self._place)

    def write(self, block: Tensor) -> None:
        """Append a block (C, L), L from 0."""
        if block.shape[0] != self._channels:
            raise AudioError(f"a block has {block.shape[0]} channels, not {self._channels}")
        samples = block.detach().to("cpu", torch.float32)
        with self._reporting():
            self._file.seek(0, SEEK_END)
            self._file.write(np.ascontiguousarray(samples.numpy().T).data)
            self._file.flush()
        self.length += block.shape[1]

    def blocks(self, block_length: int) -> Iterator[Tensor]:
        """Yield what was written so far from the start: (C, block_length), the last one shorter."""
        frame_bytes = _BYTES * self._channels
        length = self.length
        for start in range(0, length, block_length):
            with self._reporting():
                self._file.seek(self._head + start * frame_bytes, SEEK_SET)
                count = min(block_length, length - start)
                samples = np.frombuffer(self._file.read(count * frame_bytes), np.float32)
            yield torch.from_numpy(samples.reshape(count, self._channels).T.copy())

    def _reporting(self) -> AbstractContextManager[None]:
        return reporting(
            self._place, "cannot hold temporary files", "check its folder and the free space"
        )
