"""What the requests' functions share, and what they do together with the disk."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from htdemucs.errors import NotFoundError, TooManyError
from htdemucs.fsutil import fresh_folder
from htdemucs.serve.db import Database, Deletion, Jobs, Tracks, Values
from htdemucs.serve.event_stream import Changes
from htdemucs.serve.preview import Preview, PreviewBuilder, Stretchers
from htdemucs.serve.settings import Settings

ORIGINAL = "original"  # the lane of the track itself


def _nothing() -> None:
    """Wake nobody."""


class Service:
    """The server's parts.

    Args:
        settings: where things are.
        wake: lets idle workers look at the queue.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database | None = None,
        wake: Callable[[], None] = _nothing,
    ) -> None:
        self.settings, self.wake = settings, wake
        for folder in (settings.uploads, settings.previews, settings.library):
            folder.mkdir(parents=True, exist_ok=True)
        self.exports = fresh_folder(settings.data / "exports")
        self.database = database or Database(settings.database)
        self.tracks, self.jobs = Tracks(self.database), Jobs(self.database)
        self.changes = Changes(self.tracks)
        self.filler = PreviewBuilder(settings, self.tracks)
        self.deletion = Deletion(settings, self.tracks)
        self.stretchers = Stretchers()
        self.uploading = 0  # files on their way

    def check_room(self) -> None:
        """Refuse another job if there are as many as there may be.

        Raises:
            TooManyError: there are.
        """
        jobs = self.tracks.count("queued", "separating") + self.uploading
        if jobs >= self.settings.limits.jobs:
            raise TooManyError(f"{jobs} tracks wait already; try again when some are done")

    def preview(self, row: Values) -> Preview:
        """Return the preview of a track."""
        folder = self.settings.previews / row["id"]
        return Preview(folder, len(row["stems"]) + 1, row["channels"])

    def file(self, path: str) -> Path:
        """Return the path of a file that the server may give away.

        Raises:
            NotFoundError: it is not there, or leads out of the folders of the server.
        """
        real = Path(os.path.realpath(path))
        tops = (self.settings.library, self.settings.uploads)
        if not any(real.is_relative_to(os.path.realpath(top)) for top in tops):
            raise NotFoundError("this file lies outside the library")
        if not real.is_file():
            raise NotFoundError("this file is not there any more")
        return real

    def lanes(self, row: Values, names: str | None) -> list[int]:
        """Return the numbers of the lanes in a comma-separated list; of all without one.

        Raises:
            NotFoundError: the track has no such lane.
        """
        known = [*row["stems"], ORIGINAL]
        wanted = known if names is None else [name.strip() for name in names.split(",")]
        unknown = [name for name in wanted if name not in known]
        if unknown or not wanted:
            raise NotFoundError(
                f"this track has no {', '.join(unknown)}; it has {', '.join(known)}"
            )
        return [known.index(name) for name in wanted]

    def listen(self, row: Values) -> None:
        """Have the preview of a finished track filled, if it is not."""
        if row["state"] in ("finished", "found"):
            self.filler.ask(row)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Here = Annotated[Service, Depends(_service)]
