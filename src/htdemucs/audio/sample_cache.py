"""Samples kept on disk, to be read again or to resume from."""

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from os import SEEK_END, SEEK_SET, PathLike
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Self, cast

import numpy as np
import torch
from torch import Tensor

from htdemucs.audio.ffmpeg import audio_errors, display_path
from htdemucs.errors import AudioError, TrackBusyError
from htdemucs.fsutil import delete_locked, open_locked

_SAMPLE_BYTES = 4  # of a float32


class SampleCache:
    """Raw float32 samples on disk: write blocks, then read them, as often as you like.

    Memory does not depend on the length. Several threads may read at the same time.
    `SampleCache(folder)` is a temporary file, deleted when the cache is closed.
    `SampleCache.open(path)` is a file that stays, so that work can be resumed even after the
    process was killed.

    Attributes:
        length: samples in each channel.

    Raises AudioError if the folder cannot be written or the disk is full.
    """

    def __init__(self, folder: str | PathLike[str], channels: int) -> None:
        self._path, self._channels, self._lock = Path(folder), channels, Lock()
        self._header_bytes = 0
        self.length = 0
        with self._audio_errors():
            self._path.mkdir(parents=True, exist_ok=True)
            self._file = cast(
                BinaryIO,
                tempfile.TemporaryFile(dir=self._path, prefix=".htdemucs-"),  # noqa: SIM115
            )

    @classmethod
    def open(cls, path: Path, channels: int, key: str) -> Self:
        """Open the cache at `path`; samples that were written with another key are dropped.

        Raises:
            TrackBusyError: another process has it open.
            AudioError: it cannot be written.
        """
        cache = cls.__new__(cls)
        cache._path, cache._channels, cache._lock = path, channels, Lock()
        header = f"{key}\n".encode()
        cache._header_bytes = len(header)
        with cache._audio_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open_locked(path)
            if file is None:
                raise TrackBusyError(
                    f"{display_path(path.parent)} is being written by another htdemucs; wait for it"
                )
            cache._file = file
            try:
                if file.read(len(header)) != header:
                    file.seek(0)
                    file.truncate()
                    file.write(header)
                frame_bytes = _SAMPLE_BYTES * channels
                cache.length = (file.seek(0, SEEK_END) - len(header)) // frame_bytes
                file.truncate(len(header) + cache.length * frame_bytes)
                file.flush()
            except BaseException:
                file.close()
                raise
        return cache

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; delete it if it is empty."""
        if self._file.closed:
            return
        with self._audio_errors():
            # `length` is not enough: an interrupted write may have reached only the disk.
            if self._header_bytes and self._file.seek(0, SEEK_END) <= self._header_bytes:
                self.delete()
            self._file.close()

    def delete(self) -> None:
        """Close a cache of `open` and delete its file while no other process can have it open."""
        with self._audio_errors():
            delete_locked(self._file, self._path)

    def clear(self) -> None:
        """Delete all samples."""
        with self._audio_errors():
            self._file.truncate(self._header_bytes)
        self.length = 0

    def write(self, block: Tensor) -> None:
        """Append a block (C, L), L from 0."""
        if block.shape[0] != self._channels:
            raise AudioError(f"a block has {block.shape[0]} channels, not {self._channels}")
        samples = block.detach().to("cpu", torch.float32)
        with self._lock, self._audio_errors():
            self._file.seek(0, SEEK_END)
            self._file.write(np.ascontiguousarray(samples.numpy().T).data)
            self._file.flush()
        self.length += block.shape[1]

    def blocks(self, block_length: int, first: int = 0) -> Iterator[Tensor]:
        """Yield what was written so far from sample `first` on: (C, L), the last block shorter."""
        frame_bytes = _SAMPLE_BYTES * self._channels
        length = self.length
        for start in range(first, length, block_length):
            with self._lock, self._audio_errors():
                self._file.seek(self._header_bytes + start * frame_bytes, SEEK_SET)
                count = min(block_length, length - start)
                samples = np.frombuffer(self._file.read(count * frame_bytes), np.float32)
            yield torch.from_numpy(samples.reshape(count, self._channels).T.copy())

    def _audio_errors(self) -> AbstractContextManager[None]:
        return audio_errors(
            self._path,
            "cannot hold temporary files",
            "check its folder and the free space",
            writes=True,
        )
