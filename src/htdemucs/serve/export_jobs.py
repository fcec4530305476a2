"""Downloads that are prepared before they are fetched: their progress, and their end."""

import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import Any

from htdemucs.errors import HTDemucsError, NotFoundError
from htdemucs.serve.tracks import new_id

AT_ONCE = 2  # downloads
KEPT = 600.0  # seconds for which a prepared download can be fetched
Files = dict[str, Path]


@dataclass
class ExportJob:
    """A download that is being prepared.

    Attributes:
        id: in the URLs of this download.
        key: equal for equal downloads.
        is_zip: whether its files are sent in a zip file.
        filename: of the download.
        folder: its own; deleted with the job.
        progress: from 0 to 1.
        files: when it is ready, by their names in a zip file.
        error: why it failed.
        cancelled: set when it is not needed any more.
        ended: when it became ready or failed, by the monotonic clock.
    """

    key: str
    is_zip: bool
    filename: str
    folder: Path
    id: str = field(default_factory=new_id)
    progress: float = 0.0
    files: Files | None = None
    error: Exception | None = None
    cancelled: Event = field(default_factory=Event)
    ended: float | None = None

    def document(self, text_of: Callable[[str], str]) -> dict[str, Any]:
        """Return what clients see; `text_of` makes an error's text fit for them."""
        error, code = None, None
        if self.error is not None:
            expected = isinstance(self.error, HTDemucsError)
            error = text_of(str(self.error)) if expected else "something went wrong in the server"
            code = getattr(self.error, "code", None)
        state = "preparing" if self.ended is None else "failed" if self.error else "ready"
        return {
            "id": self.id,
            "state": state,
            "progress": 1.0 if state == "ready" else self.progress,
            "filename": self.filename,
            "error": error,
            "code": code,
        }


class ExportJobs:
    """The downloads that are being prepared, or wait to be fetched. Two are made at a time."""

    def __init__(self) -> None:
        self._jobs: dict[str, ExportJob] = {}
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(AT_ONCE, "export")

    def start(self, job: ExportJob, make: Callable[[], Files]) -> ExportJob:
        """Start a job and return it, or the same download if it is already there."""
        self._sweep()
        with self._lock:
            for other in self._jobs.values():
                if other.key == job.key and other.error is None:
                    shutil.rmtree(job.folder, ignore_errors=True)
                    return other
            self._jobs[job.id] = job
        self._pool.submit(self._run, job, make)
        return job

    def _run(self, job: ExportJob, make: Callable[[], Files]) -> None:
        try:
            if not job.cancelled.is_set():
                job.files = make()
        except Exception as error:  # the client asks for it
            job.error = error
        job.ended = time.monotonic()
        if job.cancelled.is_set():  # while its files were written
            shutil.rmtree(job.folder, ignore_errors=True)

    def stop(self) -> None:
        """Cancel all jobs."""
        for job in list(self._jobs.values()):
            job.cancelled.set()
        self._pool.shutdown(cancel_futures=True)

    def get(self, job: str) -> ExportJob:
        """Return a job.

        Raises:
            NotFoundError: the job does not exist, or has expired.
        """
        if job not in self._jobs:
            raise NotFoundError("this download is gone; prepare it again")
        return self._jobs[job]

    def remove(self, job: str) -> None:
        """Cancel a job if it is not ready, and delete its files.

        Raises:
            NotFoundError: the job does not exist, or has expired.
        """
        found = self.get(job)
        found.cancelled.set()
        self._jobs.pop(job, None)
        shutil.rmtree(found.folder, ignore_errors=True)

    def _sweep(self) -> None:
        now = time.monotonic()
        for job in list(self._jobs.values()):
            if job.ended is not None and now - job.ended > KEPT:
                self.remove(job.id)
