"""A worker: a process that takes tracks from the queue and separates them, its model at hand.

`python -m htdemucs.serve.worker` reads its name and the server's settings as a line of JSON from
standard input, then lines that wake it up. When standard input ends, so does the worker: its server
is gone.
"""

import json
import logging
import os
import shutil
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

import torch

from htdemucs.audio import AudioFile
from htdemucs.batch import Library, Outcome, Track, read_manifest
from htdemucs.errors import HTDemucsError, SeparationError
from htdemucs.fast import keep_freed_memory
from htdemucs.files import model_folder
from htdemucs.separation import Separator
from htdemucs.serve.deletion import Deletion
from htdemucs.serve.filling import decode
from htdemucs.serve.jobs import Jobs, WithdrawnError
from htdemucs.serve.listening import Listening, too_long
from htdemucs.serve.preview import Preview
from htdemucs.serve.problems import code_of
from htdemucs.serve.settings import Settings
from htdemucs.serve.tables import Database, Values
from htdemucs.serve.tracks import Tracks, tags

LOG = logging.getLogger(__name__)
IDLE = 1.0  # seconds between looks at the queue, unless woken
MOST_COPIES = 1000  # of one name


class Worker:
    """Separates tracks from the queue, one after another.

    Args:
        settings: of the server.
        name: by which the queue knows this worker; its process has it to itself.
    """

    def __init__(self, settings: Settings, name: str, database: Database | None = None) -> None:
        self._settings, self._name = settings, name
        database = database or Database(settings.database)
        self._jobs = Jobs(database)
        self._deletion = Deletion(settings, Tracks(database), name)
        self._separators: dict[tuple[str, tuple[str, ...] | None], Separator] = {}

    def warm_up(self) -> None:
        """Load the model that most tracks want; a failure is told to the track that needs it."""
        try:
            separator = self._separator(self._settings.model, None)
            noise = 0.1 * torch.randn(separator.audio_channels, separator.segment_length)
            separator.separate(noise, separator.sample_rate)  # the first segment takes longer
        except HTDemucsError as error:
            LOG.warning("%s", error)

    def work(self) -> bool:
        """Separate the next track; return False if none waits."""
        row = self._jobs.claim(self._name)
        if row is None:
            return False
        try:
            self._separate(row)
        except WithdrawnError:
            self._let_go(row)
        except HTDemucsError as error:
            self._fail(row, str(error), code_of(error))
        return True

    def _separate(self, row: Values) -> None:
        wanted = tuple(row["wanted"]) if row["wanted"] else None
        separator = self._separator(row["model"], wanted)
        about = tags(Path(row["path"]))  # here, because nobody knows what an upload holds
        self._jobs.report(row["id"], self._name, stems=list(separator.stems), **about)
        library = Library(self._settings.library / model_folder(row["model"]))
        self._refuse_long(Path(row["path"]))
        track = self._placed(library, row)
        lanes = len(separator.stems) + 1
        preview = Preview(self._settings.previews / row["id"], lanes, separator.audio_channels)
        limits = self._settings.limits
        listening = Listening(self._jobs, row, self._name, limits.seconds, preview)
        try:
            outcome = library.separate(track, separator, watcher=listening)
        finally:
            listening.end()
        if listening.lost:
            raise listening.lost  # this process ends; the job is resumed
        self._jobs.look(row["id"], self._name)  # raises if it was withdrawn
        if outcome.status == "failed":
            self._fail(row, outcome.reason or "", code_of(listening.refused))
        else:
            self._finish(row | {"stems": list(separator.stems)}, outcome, preview)

    def _finish(self, row: Values, outcome: Outcome, preview: Preview) -> None:
        files = {
            stem: {"path": path, "bytes": Path(path).stat().st_size}
            for stem, path in outcome.files.items()
        }
        manifest = Path(outcome.manifest or "")
        values: Values = {"warnings": list(outcome.warnings), "stamp": manifest.stat().st_mtime_ns}
        if outcome.status == "skipped":  # who listens has the preview made
            about = read_manifest(manifest) or {}
            values |= {"sample_rate": about.get("sample_rate"), "frames": about.get("length")}
            values["ranges"] = []
        elif outcome.gain != 1:  # the files hold something softer
            values["sample_rate"] = AudioFile(row["path"]).source_sample_rate
            for frames in decode(row | {"files": files}, values["sample_rate"], preview):
                self._jobs.look(row["id"], self._name)  # raises if it was withdrawn
                values |= {"frames": frames, "ranges": [[0, frames]]}
        self._jobs.finish(row["id"], self._name, files, done=outcome.duration or 0.0, **values)

    def _fail(self, row: Values, reason: str, code: str | None = None) -> None:
        try:
            self._jobs.fail(row["id"], self._name, self._for_clients(row, reason), code)
        except WithdrawnError:
            self._let_go(row)

    def _for_clients(self, row: Values, reason: str) -> str:
        """Return a reason without the paths of this machine, which are nobody's business."""
        return self._settings.without_folders(reason.replace(str(row["path"]), row["name"]))

    def _let_go(self, row: Values) -> None:
        """Leave a job that was withdrawn; what can be resumed stays, unless it was deleted."""
        shutil.rmtree(self._settings.previews / row["id"], ignore_errors=True)
        if not self._jobs.let_go(row["id"], self._name):
            self._deletion.remove_files(row["id"])

    def _refuse_long(self, path: Path) -> None:
        """Refuse what says itself that it is far too long, before it is decoded.

        Raises:
            AudioError: it is no audio.
            TooLongError: it is.
        """
        longest = self._settings.limits.seconds
        seconds = AudioFile(path).duration or 0.0
        if seconds > 1.1 * longest:  # an estimate
            raise too_long(seconds, longest)

    def _separator(self, model: str, wanted: tuple[str, ...] | None) -> Separator:
        """Return the separator of a model; the last one stays in memory."""
        key = (model, wanted)
        if key not in self._separators:
            self._separators.clear()
            self._separators[key] = Separator(model, stems=wanted, shifts=1)
            keep_freed_memory()
        return self._separators[key]

    def _placed(self, library: Library, row: Values) -> Track:
        """Return the track with a place that no other track has."""
        folder = _folder(Path(row["path"]), self._settings.library)
        track = Track(row["path"], folder)
        copies = [row["copy"]] if row["copy"] else []
        first = library.place(track).copy
        for copy in [*copies, *range(first, first + MOST_COPIES)]:
            track = replace(track, copy=copy)
            places = library.options.places(track.path, Path(library.out) / folder, copy)
            if self._jobs.place(row, self._name, str(places.manifest), copy):
                return track
        raise SeparationError(f"there are too many tracks called {row['name']}; rename it")


def _folder(path: Path, library: Path) -> str:
    """Return where a track lies below the library; "" if it is elsewhere."""
    inside = path.parent.is_relative_to(library)
    return str(path.parent.relative_to(library)) if inside else ""


def main() -> None:
    """Work until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server decides when to stop
    told = json.loads(sys.stdin.readline())
    settings = Settings.from_json(told["settings"])
    woken = threading.Event()

    def wait_for_the_end() -> None:
        for _ in sys.stdin:
            woken.set()
        os._exit(0)  # in the midst of a segment too

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    worker = Worker(settings, told["name"])
    worker.warm_up()
    while True:
        woken.clear()
        while worker.work():
            pass
        woken.wait(IDLE)


if __name__ == "__main__":
    main()
