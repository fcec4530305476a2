"""What the server does from time to time: it scans the library and deletes what is not needed."""

import shutil
import time
from pathlib import Path

from htdemucs.errors import HTDemucsError
from htdemucs.fast import use_this_thread_only
from htdemucs.serve.app_state import AppState
from htdemucs.serve.db import DELETED, TRACKS
from htdemucs.serve.library_scan import Scanner
from htdemucs.serve.periodic import PeriodicThread

T = TRACKS.c
MAINTENANCE_INTERVAL = 20.0  # seconds
STOP_TIMEOUT = 10.0  # seconds
DAY = 24 * 3600.0  # seconds


class Maintenance:
    """Runs in a thread from the server's start to its end."""

    def __init__(self, state: AppState) -> None:
        self._state = state
        self._scanner = Scanner(state.settings, state.tracks)
        self._thread = PeriodicThread("maintenance", MAINTENANCE_INTERVAL, self.run)

    def start(self) -> None:
        """Start the thread. The server must not accept uploads before this."""
        self._remove_unknown(self._state.settings.uploads)
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current round."""
        self._thread.stop(STOP_TIMEOUT)

    def run(self) -> None:
        """Do everything once."""
        use_this_thread_only()
        self.scan()
        self.expire()
        self.sweep()
        self._state.preview_builder.evict()

    def scan(self) -> None:
        """Compare the library folder with the table of tracks."""
        self._scanner.scan()

    def expire(self) -> None:
        """Delete uploaded tracks that ended longer ago than the limit."""
        days = self._state.settings.limits.keep_days
        if days is None:
            return
        is_old = (T.kind == "upload", T.ended < time.time() - days * DAY)
        for row in self._state.tracks.rows(*is_old, T.state != DELETED):
            try:
                self._state.deletion.delete(row["id"], *is_old)
            except HTDemucsError:  # deleted or queued again in the meantime
                continue

    def sweep(self) -> None:
        """Remove what is left of deleted tracks."""
        self._state.deletion.sweep()
        self._remove_unknown(self._state.settings.previews)

    def _remove_unknown(self, top: Path) -> None:
        """Remove the folders of unknown tracks, which a crash may have left."""
        folders = list(top.iterdir())  # listed first: a track is added before its preview
        known = {row["id"] for row in self._state.tracks.rows(T.state != DELETED)}
        for folder in folders:
            if folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)
