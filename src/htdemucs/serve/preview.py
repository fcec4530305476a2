"""Previews: 16-bit samples and peaks of a track's lanes on disk, which the page plays and draws.

The lanes are the stems, then the original. A worker writes a preview while it separates
(`live_preview.py`); `PreviewBuilder` decodes the files of tracks that are finished.
"""

import logging
import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from queue import Queue

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from htdemucs.audio import AudioFile, zip_blocks
from htdemucs.audio.encoding import to_int16
from htdemucs.errors import AudioError, HTDemucsError
from htdemucs.fast import use_this_thread_only
from htdemucs.fsutil import fresh_folder
from htdemucs.serve.db import TRACKS, Row
from htdemucs.serve.musical_key import KeyEstimator
from htdemucs.serve.settings import Settings
from htdemucs.serve.tracks import Tracks

LOG = logging.getLogger(__name__)
COLUMN = 1024  # frames that share a peak
BUILT_STATES = ("finished", "unseparated")  # of tracks whose previews PreviewBuilder builds
CHANNELS = 2  # of the previews that PreviewBuilder builds
STEP = 5  # seconds decoded at a time
STOP_TIMEOUT = 10.0  # seconds
Ranges = list[list[int]]  # [first, stop) frames, sorted and disjoint


class Preview:
    """The folder of a preview.

    It has a file for each lane (frame by frame, channel by channel) and one with peaks (column
    by column, lane by lane, minimum and maximum as int8). What was not written reads as silence.

    Args:
        folder: of this preview.
        lanes: number of stems, plus one.
        channels: of each lane.
    """

    def __init__(self, folder: Path, lanes: int, channels: int) -> None:
        self.folder, self.lanes, self.channels = folder, lanes, channels

    def clear(self) -> None:
        """Remove all samples and peaks."""
        fresh_folder(self.folder)

    def write(self, lane: int, start: int, waveform: Tensor) -> None:
        """Write (C, L) to a lane from frame `start` on."""
        samples = to_int16(waveform.numpy()).T
        _write(self._path(lane), 2 * self.channels * start, samples.astype("<i2").tobytes())

    def write_peaks(self, start: int, stop: int) -> None:
        """Write the peaks of the frames [start, stop), which all lanes must have."""
        first = start // COLUMN
        columns = -(-stop // COLUMN) - first
        samples = self.read(range(self.lanes), first * COLUMN, columns * COLUMN) >> 8
        by_column = samples.reshape(columns, COLUMN, self.lanes, self.channels)
        peaks = np.stack([by_column.min((1, 3)), by_column.max((1, 3))], axis=-1).astype(np.int8)
        _write(self.folder / "peaks", 2 * self.lanes * first, peaks.tobytes())

    def read(self, lanes: Sequence[int], start: int, frames: int) -> NDArray[np.int16]:
        """Return (L, lane, C) of the lanes from frame `start` on."""
        frame_bytes = 2 * self.channels
        result = np.zeros((frames, len(lanes), self.channels), "<i2")
        for i, lane in enumerate(lanes):
            data = _read(self._path(lane), frame_bytes * start, frame_bytes * frames)
            samples = np.frombuffer(data[: len(data) // frame_bytes * frame_bytes], "<i2")
            result[: len(samples) // self.channels, i] = samples.reshape(-1, self.channels)
        return result

    def peaks(self, start: int, columns: int) -> bytes:
        """Return the peaks of these columns: int8 [column][lane][minimum, maximum]."""
        size = 2 * self.lanes
        data = _read(self.folder / "peaks", size * start, size * columns)
        return data.ljust(size * columns, b"\0")

    def _path(self, lane: int) -> Path:
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
    except FileNotFoundError:  # the preview was deleted, or is still empty
        return b""


# Ranges of frames that a preview has


def add_range(ranges: Iterable[Iterable[int]], start: int, stop: int) -> Ranges:
    """Return the ranges together with [start, stop); ranges that touch are joined."""
    result: Ranges = []
    for first, last in sorted([*map(tuple, ranges), (start, stop)]):
        if first >= last:
            continue
        if result and first <= result[-1][1]:
            result[-1][1] = max(result[-1][1], last)
        else:
            result.append([first, last])
    return result


def range_end(ranges: Iterable[Iterable[int]], frame: int) -> int:
    """Return where the range that contains `frame` ends; `frame` itself if none does."""
    return next((last for first, last in ranges if first <= frame < last), frame)


# Previews of finished tracks


class PreviewBuilder:
    """Builds previews from the files of tracks, one after another in a thread."""

    def __init__(self, settings: Settings, tracks: Tracks) -> None:
        self._settings, self._tracks = settings, tracks
        self._requested: set[str] = set()  # waiting, being built, or undecodable
        self._building: str | None = None
        self._queue: Queue[str | None] = Queue()  # None ends the thread
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def enqueue(self, row: Row) -> None:
        """Build a track's preview soon, unless it is complete."""
        folder = self._settings.previews / row["id"]
        if row["ranges"] == [[0, row["frames"]]] and folder.is_dir():
            os.utime(folder)  # `evict` deletes the least recently played previews first
            return
        with self._lock:
            if row["id"] in self._requested:
                return
            self._requested.add(row["id"])
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="previews", daemon=True)
                self._thread.start()
        self._queue.put(row["id"])

    def stop(self) -> None:
        """Wait until the queue is empty, at most STOP_TIMEOUT."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread:
            self._queue.put(None)
            thread.join(STOP_TIMEOUT)

    def _run(self) -> None:
        use_this_thread_only()
        while (track := self._queue.get()) is not None:
            with self._lock:
                self._building = track
            is_undecodable = False
            try:
                self.build(track)
            except AudioError as error:
                self._tracks.update(track, error=self._settings.without_folders(str(error)))
                is_undecodable = True
            except (HTDemucsError, FileNotFoundError):  # the track was deleted
                pass
            except Exception:
                LOG.exception("the preview of %s cannot be built", track)
            with self._lock:
                self._building = None
                if not is_undecodable:  # or it would be tried again and again
                    self._requested.discard(track)

    def build(self, track: str) -> None:
        """Decode a track's files into its preview.

        Raises:
            AudioError: a file cannot be read.
            NotFoundError: the track was deleted.
        """
        row = self._tracks.row(track)
        if row["state"] not in BUILT_STATES:
            return  # it was queued in the meantime: the preview is the worker's now
        same_state = TRACKS.c.state == row["state"]
        rate = row["sample_rate"] or AudioFile(row["path"]).source_sample_rate
        started: Row = {"ranges": [], "channels": CHANNELS, "sample_rate": rate}
        if not self._tracks.update(track, same_state, **started):
            return
        preview = Preview(self._settings.previews / track, len(row["stems"]) + 1, CHANNELS)
        preview.clear()
        self.evict(keep=track)
        frames = 0
        estimator = KeyEstimator(rate, row["stems"] or ["original"])
        for frames, lanes in decode_files(row, rate, preview):
            estimator.push(lanes)
            if not self._tracks.update(track, same_state, ranges=[[0, frames]]):
                return  # deleted, or being separated now
        self._tracks.update(track, same_state, frames=frames, key=estimator.key())

    def evict(self, keep: str | None = None, limit: int | None = None) -> None:
        """Delete the least recently played previews until all are within the limit.

        Args:
            keep: id of a track whose preview is not deleted.
            limit: bytes; by default those of the settings.
        """
        limit = self._settings.limits.preview_bytes if limit is None else limit
        folders = [path for path in self._settings.previews.iterdir() if path.is_dir()]
        sizes = {path: sum(f.stat().st_size for f in path.glob("*.pcm")) for path in folders}
        total = sum(sizes.values())
        for path in sorted(folders, key=lambda path: path.stat().st_mtime):
            if total <= limit:
                return
            can_be_rebuilt = TRACKS.c.state.in_(BUILT_STATES)
            with self._lock:  # the builder cannot begin with this track meanwhile
                if path.name in (keep, self._building):
                    continue
                if self._tracks.update(path.name, can_be_rebuilt, ranges=[]):
                    shutil.rmtree(path, ignore_errors=True)
                    total -= sizes[path]


def decode_files(row: Row, rate: int, preview: Preview) -> Iterator[tuple[int, Tensor]]:
    """Write a track's files to its preview; yield how many frames it has, and each block.

    Blocks are (lane, C, L).
    """
    frames = 0
    for lanes in _decoded_lanes(row, rate):
        start, frames = frames, frames + lanes.shape[-1]
        for lane, waveform in enumerate(lanes):
            preview.write(lane, start, waveform)
        preview.write_peaks(start, frames)
        yield frames, lanes


def _decoded_lanes(row: Row, rate: int) -> Iterator[Tensor]:
    """Yield blocks (lane, C, L); without the track's own file the original is the stems' sum."""
    stems = [row["files"][stem]["path"] for stem in row["stems"]]
    original = [row["path"]] if row["path"] and Path(row["path"]).is_file() else []
    if not stems and not original:  # a .stem.mp4: its first stream is the mixture
        original = [file["path"] for file in row["files"].values()][:1]
    files = [AudioFile(path, sample_rate=rate, channels=CHANNELS) for path in (*stems, *original)]
    for lanes in zip_blocks(files, STEP * rate, len(stems) or 1) if files else ():
        yield lanes if original else torch.cat([lanes, lanes.sum(0, keepdim=True)])
