"""What is done from time to time: the library is looked through, old things go."""

import logging
import shutil
import threading
from pathlib import Path

from htdemucs.errors import HTDemucsError
from htdemucs.fast import use_this_thread_only
from htdemucs.serve.scanning import Scanner
from htdemucs.serve.service import Service
from htdemucs.serve.tables import DELETED, TRACKS, now

LOG = logging.getLogger(__name__)
EVERY = 20.0  # seconds
DAY = 24 * 3600.0  # seconds


class Housekeeping:
    """A thread of its own, from the server's start to its end."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._scanner = Scanner(service.settings, service.tracks)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="housekeeping", daemon=True)

    def start(self) -> None:
        """Begin; uploads may come only after this."""
        self._remove_strays(self._service.settings.uploads)
        self._thread.start()

    def stop(self) -> None:
        """End after the round that is under way."""
        self._stopping.set()
        self._thread.join(10)

    def _work(self) -> None:
        use_this_thread_only()
        while True:
            try:
                self.scan()
                self.expire()
                self.sweep()
                self._service.filler.make_room("")
            except Exception:  # the disk or the database may be away for a while
                LOG.exception("housekeeping")
            if self._stopping.wait(EVERY):
                return

    def scan(self) -> None:
        """Bring the list in line with the library folder."""
        self._scanner.scan()

    def expire(self) -> None:
        """Delete uploaded tracks that ended long ago."""
        days = self._service.settings.limits.keep_days
        if days is None:
            return
        old = (TRACKS.c.kind == "upload", TRACKS.c.ended < now() - days * DAY)
        for row in self._service.tracks.all(*old, TRACKS.c.state != DELETED):
            try:
                self._service.deletion.delete(row["id"], *old)
            except HTDemucsError:  # deleted or queued again meanwhile
                continue

    def sweep(self) -> None:
        """Remove what is left of deleted tracks."""
        self._service.deletion.sweep()
        self._remove_strays(self._service.settings.previews)

    def _remove_strays(self, top: Path) -> None:
        """Remove the folders of unknown tracks, which a crash may have left."""
        folders = list(top.iterdir())  # listed first: a track is added before its preview
        live = {row["id"] for row in self._service.tracks.all(TRACKS.c.state != DELETED)}
        for folder in folders:
            if folder.name not in live:
                shutil.rmtree(folder, ignore_errors=True)
