"""A worker: a process that takes tracks from the queue and separates them.

`python -m htdemucs.serve.worker` reads its name and the server's settings as a line of JSON from
standard input, then lines that wake it. When standard input ends, the server is gone, and the
worker exits immediately.
"""

import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from htdemucs.audio import AudioEncoding, AudioFile
from htdemucs.batch import Library, Track, read_manifest
from htdemucs.errors import BUSY, DISK_FULL, HTDemucsError, SeparationError, reason
from htdemucs.fast import keep_freed_memory
from htdemucs.fsutil import model_folder
from htdemucs.results import TrackResult
from htdemucs.separation import Separator
from htdemucs.serve.db import UNAVAILABLE, Database, Row
from htdemucs.serve.deletion import Deletion
from htdemucs.serve.jobs import JobCancelledError, Jobs
from htdemucs.serve.live_preview import LivePreview, too_long
from htdemucs.serve.preview import Preview, decode_files
from htdemucs.serve.settings import Settings
from htdemucs.serve.storage import Storage
from htdemucs.serve.tracks import Tracks, tag_columns
from htdemucs.stems import OutputOptions

LOG = logging.getLogger(__name__)
QUEUE_INTERVAL = 1.0  # seconds between polls of the queue, unless woken
MAX_DATABASE_INTERVAL = 5.0  # seconds between attempts to reach the database
MIN_FREE = 1 << 28  # bytes that must be free before work resumes after the disk was full
WAITS = {  # by the code of the error: what is said of a track that stays in the queue
    DISK_FULL: "the server's disk is full; this track is separated when there is space",
    BUSY: "another program is separating this track; the server waits for it",
}
MAX_DUPLICATES = 1000  # of one name


class Worker:
    """Separates tracks from the queue, one after another.

    Args:
        settings: of the server.
        name: of this worker in the database; no other process has it.
        database: by default the one that the settings name.
    """

    def __init__(self, settings: Settings, name: str, database: Database | None = None) -> None:
        self._settings, self._name = settings, name
        database = database or Database(settings.database)
        self._jobs, self._storage = Jobs(database), Storage(settings, database)
        self._deletion = Deletion(settings, Tracks(database), name)
        self._separators: dict[tuple[str, tuple[str, ...] | None, int], Separator] = {}
        self._waits_for: str | None = None

    def warm_up(self) -> None:
        """Load the default model and run it once; tracks that need it report a failure."""
        try:
            separator = self._separator(self._settings.model, None, 1)
            noise = 0.1 * torch.randn(separator.audio_channels, separator.segment_length)
            separator.separate(noise, separator.sample_rate)  # the first segment takes longer
        except HTDemucsError as error:
            LOG.warning("%s", error)

    def work(self) -> bool:
        """Separate the next track; return False if the queue is empty, or the next has to wait.

        Raises:
            SQLAlchemyError: the database failed; see `wait_for_database`.
        """
        if self._waits_for == DISK_FULL and self._free_space() < MIN_FREE:
            return False
        self._waits_for = None
        row = self._jobs.claim(self._name)
        if row is None:
            return False
        try:
            try:
                self._separate(row)
            except JobCancelledError:
                raise
            except HTDemucsError as error:
                self._fail(row, str(error), error.code)
        except JobCancelledError:
            self.release(row)
        return self._waits_for is None

    def _free_space(self) -> int:
        """Return the bytes that are free for stems and previews."""
        folders = self._settings.library, self._settings.data
        return min(shutil.disk_usage(folder).free for folder in folders)

    def wait_for_database(self, error: Exception) -> None:
        """Wait until the database works again, and queue the interrupted job: it then resumes."""
        LOG.warning("the database failed (%s); waiting for it", reason(error))
        delay = QUEUE_INTERVAL
        while True:
            time.sleep(delay)
            delay = min(2 * delay, MAX_DATABASE_INTERVAL)
            with suppress(*UNAVAILABLE):
                self._jobs.requeue(self._name)
                return

    def release(self, row: Row) -> None:
        """Give up a cancelled job. Cached samples stay for a retry, unless it was deleted."""
        shutil.rmtree(self._settings.previews / row["id"], ignore_errors=True)
        if not self._jobs.release_cancelled(row["id"], self._name):
            self._deletion.remove_files(row["id"])

    def _separate(self, row: Row) -> None:
        path, max_seconds = Path(row["path"]), self._settings.limits.seconds
        stems = tuple(row["requested_stems"]) if row["requested_stems"] else None
        separator = self._separator(row["model"], stems, row["shifts"])
        row = row | {"stems": list(separator.stems)}
        # Tags are read here and not by the server, because an upload may contain anything.
        tags = tag_columns(path)
        self._jobs.update(row["id"], self._name, stems=row["stems"], **tags)
        seconds = AudioFile(path).duration or 0.0
        if seconds > 1.1 * max_seconds:  # the header's duration may be an estimate
            raise too_long(seconds, max_seconds)

        options = OutputOptions(AudioEncoding(self._storage.stem_format()))
        library = Library(self._settings.library / model_folder(row["model"]), options)
        track = self._assign_output(library, row)
        lanes = len(separator.stems) + 1
        preview = Preview(self._settings.previews / row["id"], lanes, separator.audio_channels)
        live = LivePreview(self._jobs, row, self._name, max_seconds, preview)
        try:
            result = library.separate(track, separator, observer=live)
        finally:
            live.close()
        if live.error:
            raise live.error
        if result.code in WAITS:
            self._waits_for = result.code
            self._jobs.put_back(row["id"], self._name, WAITS[result.code], result.code)
        elif result.status == "failed":
            self._fail(row, result.error or "", result.code)
        else:
            self._finish(row, result, preview)

    def _finish(self, row: Row, result: TrackResult, preview: Preview) -> None:
        files = {
            stem: {"path": path, "bytes": Path(path).stat().st_size}
            for stem, path in result.files.items()
        }
        manifest = Path(result.manifest or "")
        values: Row = {
            "warnings": list(result.warnings),
            "manifest_mtime_ns": manifest.stat().st_mtime_ns,
        }
        if result.status == "skipped":  # the preview is built when a client plays the track
            document = read_manifest(manifest) or {}
            values |= {"sample_rate": document.get("sample_rate")}
            values |= {"frames": document.get("length"), "ranges": []}
        elif result.gain != 1:  # the files are softer than the live preview
            rate = AudioFile(row["path"]).source_sample_rate
            values["sample_rate"] = rate
            for frames, _ in decode_files(row | {"files": files}, rate, preview):
                self._jobs.check(row["id"], self._name)
                values |= {"frames": frames, "ranges": [[0, frames]]}
        self._jobs.finish(row["id"], self._name, files, done=result.duration or 0.0, **values)

    def _fail(self, row: Row, error: str, code: str | None) -> None:
        """End a job with a message for clients, without the paths of this machine."""
        message = self._settings.without_folders(error.replace(str(row["path"]), row["name"]))
        self._jobs.fail(row["id"], self._name, message, code)

    def _separator(self, model: str, stems: tuple[str, ...] | None, shifts: int) -> Separator:
        """Return the separator of a model; only the last one stays in memory."""
        key = (model, stems, shifts)
        if key not in self._separators:
            self._separators.clear()
            self._separators[key] = Separator(model, stems=stems, shifts=shifts)
            keep_freed_memory()
        return self._separators[key]

    def _assign_output(self, library: Library, row: Row) -> Track:
        """Return the track with output paths that no other track has."""
        path, top = Path(row["path"]), self._settings.library
        is_inside = path.parent.is_relative_to(top)
        folder = str(path.parent.relative_to(top)) if is_inside else ""
        track = Track(row["path"], folder)
        earlier = [row["duplicate_index"]] if row["duplicate_index"] else []
        first = library.assign_output(track).duplicate_index
        for index in [*earlier, *range(first, first + MAX_DUPLICATES)]:
            track = replace(track, duplicate_index=index)
            if library.has_other_track(track):
                continue
            manifest = library.output_paths_for(track).manifest
            if self._jobs.reserve_output(row, self._name, str(manifest), index):
                return track
        raise SeparationError(f"there are too many tracks called {row['name']}; rename it")


def main() -> None:
    """Work until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the server, which ends the input
    start = json.loads(sys.stdin.readline())
    woken = threading.Event()

    def read_standard_input() -> None:
        for _ in sys.stdin:
            woken.set()
        os._exit(0)  # also in the middle of a segment

    threading.Thread(target=read_standard_input, daemon=True).start()
    worker = Worker(Settings.from_json(start["settings"]), start["name"])
    worker.warm_up()
    while True:
        woken.clear()
        try:
            while worker.work():
                pass
        except UNAVAILABLE as error:
            worker.wait_for_database(error)
        woken.wait(QUEUE_INTERVAL)


if __name__ == "__main__":
    main()
