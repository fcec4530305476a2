"""Filling the previews of tracks whose files are there already, by decoding these."""

import logging
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import torch
from torch import Tensor

from htdemucs.audio import AudioFile, in_step
from htdemucs.errors import AudioError, HTDemucsError
from htdemucs.fast import use_this_thread_only
from htdemucs.serve.preview import Preview
from htdemucs.serve.settings import Settings
from htdemucs.serve.tables import TRACKS, Values
from htdemucs.serve.tracks import Tracks

LOG = logging.getLogger(__name__)
CHANNELS = 2
SECONDS = 5  # of a step


class Filler:
    """Fills one preview after another in a thread of its own."""

    def __init__(self, settings: Settings, tracks: Tracks) -> None:
        self._settings, self._tracks = settings, tracks
        self._asked: set[str] = set()
        self._queue: Queue[str | None] = Queue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def ask(self, row: Values) -> None:
        """Have a track's preview filled, if it is not."""
        folder, whole = self._settings.previews / row["id"], [[0, row["frames"]]]
        if row["ranges"] == whole and folder.is_dir():
            os.utime(folder)  # those listened to least recently go first
            return
        with self._lock:
            if row["id"] in self._asked:
                return
            self._asked.add(row["id"])
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="filler", daemon=True)
                self._thread.start()
        self._queue.put(row["id"])

    def stop(self) -> None:
        """End the thread after the preview that it is filling."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread:
            self._queue.put(None)
            thread.join(10)

    def _work(self) -> None:
        use_this_thread_only()
        while (track := self._queue.get()) is not None:
            try:
                self.fill(track)
            except AudioError as error:  # not tried again
                self._tracks.change(track, error=self._settings.without_folders(str(error)))
                continue
            except (HTDemucsError, FileNotFoundError):  # it was deleted
                pass
            except Exception:
                LOG.exception("no preview of %s", track)
            with self._lock:
                self._asked.discard(track)

    def fill(self, track: str) -> None:
        """Decode a track's files into its preview.

        Raises:
            AudioError: one of them cannot be read.
            NotFoundError: the track was deleted.
        """
        row = self._tracks.row(track)
        preview = Preview(self._settings.previews / track, len(row["stems"]) + 1, CHANNELS)
        preview.clear()
        self.make_room(track)
        condition = TRACKS.c.state == row["state"]
        rate = row["sample_rate"] or AudioFile(row["path"]).source_sample_rate
        self._tracks.change(track, condition, ranges=[], channels=CHANNELS, sample_rate=rate)
        frames = 0
        for frames in decode(row, rate, preview):
            if not self._tracks.change(track, condition, ranges=[[0, frames]]):
                return  # deleted, or being separated now
        self._tracks.change(track, condition, frames=frames)

    def make_room(self, keep: str) -> None:
        """Remove the previews listened to least recently, until there is room for another."""
        folders = [path for path in self._settings.previews.iterdir() if path.is_dir()]
        sizes = {path: sum(f.stat().st_size for f in path.glob("*.pcm")) for path in folders}
        total = sum(sizes.values())
        for path in sorted(folders, key=lambda path: path.stat().st_mtime):
            if total <= self._settings.limits.preview_bytes:
                return
            if path.name != keep and self._tracks.change(
                path.name, TRACKS.c.state.in_(("finished", "found")), ranges=[]
            ):
                shutil.rmtree(path, ignore_errors=True)
                total -= sizes[path]


def decode(row: Values, rate: int, preview: Preview) -> Iterator[int]:
    """Write a track's files into its preview; yield how many frames are in it by now."""
    frames = 0
    for lanes in _lanes(row, rate):
        for lane, waveform in enumerate(lanes):
            preview.write(lane, frames, waveform)
        frames += lanes.shape[-1]
        preview.draw(frames - lanes.shape[-1], frames)
        yield frames


def _lanes(row: Values, rate: int) -> Iterator[Tensor]:
    """Yield (stem..., original; C, L) of a track's files; without its own file, the stems' sum."""
    stems = [row["files"][stem]["path"] for stem in row["stems"]]
    own = [row["path"]] if row["path"] and Path(row["path"]).is_file() else []
    if not stems and not own:  # a file for DJ programs begins with the mixture
        own = [file["path"] for file in row["files"].values()][:1]
    files = [AudioFile(path, sample_rate=rate, channels=CHANNELS) for path in (*stems, *own)]
    for lanes in in_step(files, SECONDS * rate, len(stems) or 1) if files else ():
        yield lanes if own else torch.cat([lanes, lanes.sum(0, keepdim=True)])
