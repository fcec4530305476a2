"""Deleting tracks: what was uploaded goes, what is the user's own stays."""

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from htdemucs.serve.settings import Settings
from htdemucs.serve.tables import DELETED, TRACKS
from htdemucs.serve.tracks import Tracks

T = TRACKS.c


class Deletion:
    """Takes tracks off the list for good."""

    def __init__(self, settings: Settings, tracks: Tracks) -> None:
        self._settings, self._tracks = settings, tracks

    def delete(self, track: str) -> None:
        """Delete a track. A job's worker removes its stems when it lets go.

        Raises:
            NotFoundError: there is none.
        """
        row = self._tracks.delete(track)
        shutil.rmtree(self._settings.previews / track, ignore_errors=True)
        if row["kind"] == "upload":
            shutil.rmtree(self._settings.uploads / track, ignore_errors=True)
            if row["worker"] is None:
                self.clean_up(track, [file["path"] for file in row["files"].values()])

    def clean_up(self, track: str, stems: Iterable[str]) -> None:
        """Remove the stems of an uploaded track that was deleted, if no other track has them."""
        deleted = self._tracks.all(T.id == track, T.state == DELETED, T.kind == "upload")
        place = deleted[0]["place"] if deleted else None
        if place is None or self._tracks.all(T.place == place, T.state != DELETED):
            return
        manifest, library = Path(place), self._settings.library
        leftovers = manifest.parent.glob(".htdemucs-*")  # unfinished work
        for path in (manifest, *leftovers, *map(Path, stems)):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # something else is in a folder
            for folder in manifest.parents:
                if folder == library or not folder.is_relative_to(library):
                    return
                folder.rmdir()
