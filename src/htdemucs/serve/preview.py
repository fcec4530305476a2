"""The preview of a track: what can be heard of its lanes, on disk, filled in any order."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from htdemucs.audio.encoding import to_int16
from htdemucs.files import fresh_folder

COLUMN = 1024  # frames that share a peak
Samples = NDArray[np.int16]


class Preview:
    """16-bit samples of a track's lanes: its stems, then the original.

    A folder with a file for each lane (frame by frame, channel by channel) and one of peaks (column
    by column, lane by lane, minimum and maximum as int8). What was not written reads as silence.

    Args:
        folder: of this preview.
        lanes: number of stems, plus one.
        channels: of each lane.
    """

    def __init__(self, folder: Path, lanes: int, channels: int) -> None:
        self.folder, self.lanes, self.channels = folder, lanes, channels

    def clear(self) -> None:
        """Begin anew, with nothing."""
        fresh_folder(self.folder)

    def write(self, lane: int, start: int, waveform: Tensor) -> None:
        """Put (C, L) into a lane from frame `start` on."""
        samples = to_int16(waveform.numpy()).T
        _write(self._lane(lane), 2 * self.channels * start, samples.astype("<i2").tobytes())

    def draw(self, start: int, stop: int) -> None:
        """Write the peaks of the frames [start, stop), which are in all lanes."""
        first = start // COLUMN
        columns = -(-stop // COLUMN) - first
        samples = self.read(range(self.lanes), first * COLUMN, columns * COLUMN) >> 8
        shaped = samples.reshape(columns, COLUMN, self.lanes, self.channels)
        peaks = np.stack([shaped.min((1, 3)), shaped.max((1, 3))], axis=-1).astype(np.int8)
        _write(self.folder / "peaks", 2 * self.lanes * first, peaks.tobytes())

    def read(self, lanes: "range | list[int]", start: int, frames: int) -> Samples:
        """Return (L, lane, C) of the lanes from frame `start` on."""
        size = 2 * self.channels
        whole = np.zeros((frames, len(lanes), self.channels), "<i2")
        for place, lane in enumerate(lanes):
            data = _read(self._lane(lane), size * start, size * frames)
            samples = np.frombuffer(data[: len(data) // size * size], "<i2")
            whole[: len(samples) // self.channels, place] = samples.reshape(-1, self.channels)
        return whole

    def peaks(self, start: int, columns: int) -> bytes:
        """Return the peaks of these columns: int8 [column][lane][minimum, maximum]."""
        size = 2 * self.lanes
        return _read(self.folder / "peaks", size * start, size * columns).ljust(
            size * columns, b"\0"
        )

    def _lane(self, lane: int) -> Path:
        return self.folder / f"{lane}.pcm"


def _write(path: Path, position: int, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0)), "wb") as f:
        f.seek(position)
        f.write(data)


def _read(path: Path, position: int, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(position)
            return file.read(size)
    except FileNotFoundError:  # deleted, or not begun
        return b""
