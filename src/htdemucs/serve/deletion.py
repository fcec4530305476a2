"""Deleting tracks: what was uploaded goes, what is the user's own stays."""

import logging
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sqlalchemy import ColumnElement

from htdemucs.batch import read_manifest
from htdemucs.serve.settings import Settings
from htdemucs.serve.tables import DELETED, SERVER, TRACKS, Values
from htdemucs.serve.tracks import Tracks
from htdemucs.stems.options import OutputOptions

LOG = logging.getLogger(__name__)
T = TRACKS.c


class Deletion:
    """Deletes tracks and their files.

    One transaction writes the tombstone and decides who removes the files: the worker that holds
    the track, otherwise the server. Until then no other track can be given the same place.

    Args:
        settings: where the files are.
        tracks: the list.
        holder: name of the worker in whose process this is, or `SERVER`.
    """

    def __init__(self, settings: Settings, tracks: Tracks, holder: str = SERVER) -> None:
        self._settings, self._tracks, self._holder = settings, tracks, holder
        self._lock = threading.Lock()

    def delete(self, track: str, *conditions: ColumnElement[bool]) -> None:
        """Delete a track if the conditions hold. A worker that holds it removes its files later.

        Raises:
            NotFoundError: there is no such track, or the conditions do not hold.
        """
        if self._tracks.delete(track, *conditions) == self._holder:
            self.remove_files(track)

    def sweep(self) -> None:
        """Remove files that dead workers left, and those that could not be removed earlier."""
        for row in self._tracks.all(T.state == DELETED, T.worker == self._holder):
            self.remove_files(row["id"])

    def remove_files(self, track: str) -> None:
        """Remove the files of a deleted track if this holder has to."""
        mine = (T.id == track, T.state == DELETED, T.worker == self._holder)
        with self._lock:  # after the first removal another track may be given the place
            for row in self._tracks.all(*mine):
                try:
                    self._remove(row)
                except OSError as error:
                    LOG.warning("%s: its files cannot be removed yet (%s)", row["name"], error)
                    self._tracks.hand_over(track, SERVER)
                else:
                    self._tracks.hand_over(track, None)

    def _remove(self, row: Values) -> None:
        is_upload, place = row["kind"] == "upload", row["place"]
        _remove_folder(self._settings.previews / row["id"])
        if is_upload:
            _remove_folder(self._settings.uploads / row["id"])
        if place is None or (row["files"] and not is_upload):
            return  # the files of a finished library track are the user's
        if self._tracks.all(T.place == place, T.state != DELETED):
            return
        folder, library = Path(place).parent, self._settings.library
        unfinished = folder.glob(".htdemucs-*")
        for path in (*unfinished, *(self._stems(row, folder) if is_upload else ())):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # something else is in a folder
            for empty in (folder, *folder.parents):
                if empty == library or not empty.is_relative_to(library):
                    return
                empty.rmdir()

    def _stems(self, row: Values, folder: Path) -> Iterator[Path]:
        """Yield the manifest and the stems of an upload, unless `htdemucs separate` made them."""
        manifest = Path(row["place"])
        if document := read_manifest(manifest):
            source = Path(str(document["source"].get("path")))
            if source.is_relative_to(self._settings.uploads):
                yield manifest
                yield from (folder / str(file.get("path")) for file in document["files"].values())
        elif row["files"]:
            yield from (Path(file["path"]) for file in row["files"].values())
        else:  # a worker may have died after writing stems and before writing the manifest
            extension = OutputOptions().encoding.extension
            for path in (folder / f"{stem}.{extension}" for stem in row["stems"]):
                if path.is_file() and path.stat().st_mtime >= row["created"]:
                    yield path


def _remove_folder(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        raise OSError(f"{folder} is in use")
