"""Deleting tracks and their files: the server deletes what it made, never the user's own files."""

import logging
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sqlalchemy import ColumnElement

from htdemucs.batch import read_manifest
from htdemucs.serve.db import DELETED, SERVER, TRACKS, Row
from htdemucs.serve.settings import Settings
from htdemucs.serve.tracks import Tracks
from htdemucs.stems.output_options import OutputOptions

LOG = logging.getLogger(__name__)
T = TRACKS.c


class Deletion:
    """Deletes tracks and their files.

    One transaction writes the tombstone and decides who removes the files: the worker that holds
    the track, otherwise the server. Until the files are removed, no other track can get the same
    output paths.

    Args:
        settings: with the folders of the files.
        tracks: the table.
        owner: name of the worker that runs this process, or `SERVER`.
    """

    def __init__(self, settings: Settings, tracks: Tracks, owner: str = SERVER) -> None:
        self._settings, self._tracks, self._owner = settings, tracks, owner
        self._lock = threading.Lock()

    def delete(self, track: str, *conditions: ColumnElement[bool]) -> None:
        """Delete a track if the conditions hold. A worker that holds it removes its files later.

        Raises:
            NotFoundError: the track does not exist, or the conditions do not hold.
        """
        if self._tracks.mark_deleted(track, *conditions) == self._owner:
            self.remove_files(track)

    def sweep(self) -> None:
        """Remove files that dead workers left, and those that could not be removed earlier."""
        for row in self._tracks.rows(T.state == DELETED, T.worker == self._owner):
            self.remove_files(row["id"])

    def remove_files(self, track: str) -> None:
        """Remove the files of a deleted track if this owner has to."""
        owned = (T.id == track, T.state == DELETED, T.worker == self._owner)
        with self._lock:  # after the first removal another track may get the same output paths
            for row in self._tracks.rows(*owned):
                try:
                    self._remove(row)
                except OSError as error:
                    LOG.warning("%s: its files cannot be removed yet (%s)", row["name"], error)
                    self._tracks.set_remover(track, SERVER)
                else:
                    self._tracks.set_remover(track, None)

    def _remove(self, row: Row) -> None:
        is_upload, manifest = row["kind"] == "upload", row["manifest"]
        _remove_folder(self._settings.previews / row["id"])
        if is_upload:
            _remove_folder(self._settings.uploads / row["id"])
        if manifest is None or (row["files"] and not is_upload):
            return  # the stems of a finished library track belong to the user
        if self._tracks.rows(T.manifest == manifest, T.state != DELETED):
            return  # another track has the same stems
        folder, library = Path(manifest).parent, self._settings.library
        unfinished = folder.glob(".htdemucs-*")
        for path in (*unfinished, *(self._stems(row, folder) if is_upload else ())):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # a folder is not empty
            for empty in (folder, *folder.parents):
                if empty == library or not empty.is_relative_to(library):
                    return
                empty.rmdir()

    def _stems(self, row: Row, folder: Path) -> Iterator[Path]:
        """Yield the manifest and the stems of an upload, unless `htdemucs separate` wrote them."""
        manifest = Path(row["manifest"])
        own = [Path(file["path"]) for file in row["files"].values()]
        if document := read_manifest(manifest):
            source = Path(str(document["source"].get("path")))
            if source.is_relative_to(self._settings.uploads):
                yield manifest
                yield from (folder / str(file.get("path")) for file in document["files"].values())
                yield from own  # an earlier run may have written another format
        elif row["files"]:
            yield from own
        else:  # a worker may have died after writing stems and before writing the manifest
            extension = OutputOptions().encoding.extension
            for path in (folder / f"{stem}.{extension}" for stem in row["stems"]):
                if path.is_file() and path.stat().st_mtime >= row["created"]:
                    yield path


def _remove_folder(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        raise OSError(f"{folder} is in use")
