"""What all requests share: the settings, the database, and the objects that work with them."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated
from weakref import WeakValueDictionary

from fastapi import Depends, Request

from htdemucs.errors import NotFoundError, TooManyError
from htdemucs.fsutil import fresh_folder
from htdemucs.serve.db import Database, Row
from htdemucs.serve.deletion import Deletion
from htdemucs.serve.event_stream import Changes
from htdemucs.serve.export_jobs import ExportJobs
from htdemucs.serve.jobs import Jobs
from htdemucs.serve.preview import BUILT_STATES, Preview, PreviewBuilder
from htdemucs.serve.settings import Settings
from htdemucs.serve.storage import Storage
from htdemucs.serve.time_stretch import StretcherCache
from htdemucs.serve.tracks import Tracks

ORIGINAL = "original"  # name of the lane with the track itself


class AppState:
    """The application's state.

    Args:
        settings: of the server.
        database: by default the one that the settings name.
        wake: called when there is a new job, to wake idle workers.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database | None = None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings, self.wake = settings, wake
        for folder in (settings.uploads, settings.previews, settings.library):
            folder.mkdir(parents=True, exist_ok=True)
        fresh_folder(settings.exports)
        self.database = database or Database(settings.database)
        self.tracks, self.jobs = Tracks(self.database), Jobs(self.database)
        self.storage = Storage(settings, self.database)
        self.changes = Changes(self.tracks)
        self.preview_builder = PreviewBuilder(settings, self.tracks)
        self.deletion = Deletion(settings, self.tracks)
        self.stretchers = StretcherCache()
        self.export_slots = asyncio.Semaphore(2)  # exports at the same time; others wait
        self.export_jobs = ExportJobs()
        self.uploading = 0  # number of files that are arriving
        self._upload_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def upload_lock(self, key: str) -> asyncio.Lock:
        """Return a lock that all uploads with the same idempotency key share while they last."""
        return self._upload_locks.setdefault(key, asyncio.Lock())

    @property
    def job_room(self) -> int:
        """Number of jobs that the server accepts now."""
        jobs = self.tracks.count("queued", "separating") + self.uploading
        return max(0, self.settings.limits.jobs - jobs)

    def check_job_limit(self) -> None:
        """Raise TooManyError if the server does not accept another job."""
        if not self.job_room:
            jobs = self.settings.limits.jobs
            raise TooManyError(f"{jobs} tracks are waiting; try again when some are finished")

    def readable_file(self, path: str) -> Path:
        """Return the real path of a file that clients may read.

        Raises:
            NotFoundError: it does not exist, or is outside the library and the uploads.
        """
        real = Path(os.path.realpath(path))
        folders = (self.settings.library, self.settings.uploads)
        if not any(real.is_relative_to(os.path.realpath(folder)) for folder in folders):
            raise NotFoundError("this file is outside the library")
        if not real.is_file():
            raise NotFoundError("this file does not exist any more")
        return real

    def preview(self, row: Row) -> Preview:
        """Return the preview of a track."""
        folder = self.settings.previews / row["id"]
        return Preview(folder, len(row["stems"]) + 1, row["channels"])

    def lane_numbers(self, row: Row, names: str | None) -> list[int]:
        """Return the numbers of the lanes in a comma-separated list; None: all lanes.

        Raises:
            NotFoundError: the track has no such lane.
        """
        known = [*row["stems"], ORIGINAL]
        requested = known if names is None else [name.strip() for name in names.split(",")]
        if unknown := [name for name in requested if name not in known]:
            raise NotFoundError(
                f"this track has no {', '.join(unknown)}; it has {', '.join(known)}"
            )
        return [known.index(name) for name in requested]

    def request_preview(self, row: Row) -> None:
        """Build the preview of a track that has its files, unless it is complete."""
        if row["state"] in BUILT_STATES:
            self.preview_builder.enqueue(row)


def _app_state(request: Request) -> AppState:
    state: AppState = request.app.state.htdemucs
    return state


StateDep = Annotated[AppState, Depends(_app_state)]
