"""Storage: the format of the stems, which clients can change, and the use of the disk."""

import os
import shutil
from pathlib import Path

from sqlalchemy import delete, insert, select

from htdemucs.audio import AudioEncoding
from htdemucs.errors import ConflictError, InvalidValueError
from htdemucs.formats import LOSSLESS
from htdemucs.serve.db import SETTINGS, Database
from htdemucs.serve.settings import Settings

STEM_FORMAT = "stem_format"  # name in the table of settings


class Storage:
    """The stems' format and the use of the disk.

    Lossy formats are refused, because downloads and previews are made from the stems.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings, self._database = settings, database

    @property
    def is_fixed(self) -> bool:
        """Whether the command line set the format."""
        return self._settings.format is not None

    def stem_format(self) -> str:
        """Return the format of stems that are written from now on."""
        if self._settings.format is not None:
            return self._settings.format
        query = select(SETTINGS.c.value).where(SETTINGS.c.name == STEM_FORMAT)
        with self._database.reading() as connection:
            stored = connection.scalar(query)
        return str(stored) if stored in LOSSLESS else AudioEncoding().format

    def set_stem_format(self, name: str) -> None:
        """Set the format of stems that are written from now on, also by later servers.

        Raises:
            InvalidValueError: stems cannot be stored in this format.
            ConflictError: the command line set it.
        """
        if name not in LOSSLESS:
            raise InvalidValueError(
                f"stems cannot be stored as {name}; choose {' or '.join(LOSSLESS)}, which lose "
                "nothing"
            )
        if self.is_fixed:
            raise ConflictError(
                "the format was set when the server was started; start it without one to change it"
            )
        with self._database.writing() as (connection, _):
            connection.execute(delete(SETTINGS).where(SETTINGS.c.name == STEM_FORMAT))
            connection.execute(insert(SETTINGS).values(name=STEM_FORMAT, value=name))

    def usage(self) -> dict[str, int]:
        """Return the bytes of library, uploads and previews, and those that are free for them."""
        settings = self._settings
        disks = (settings.library, settings.data)
        return {
            "library": _folder_bytes(settings.library, without=settings.data),
            "uploads": _folder_bytes(settings.uploads),
            "previews": _folder_bytes(settings.previews),
            "free": min(shutil.disk_usage(folder).free for folder in disks),
        }


def _folder_bytes(top: Path, without: Path | None = None) -> int:
    """Return the size of all files in a folder, except those in another folder below it."""
    total, linked = 0, set()
    for folder, names, files in os.walk(top):
        names[:] = [name for name in names if Path(folder, name) != without]
        for name in files:
            try:
                status = Path(folder, name).lstat()
            except OSError:  # deleted in the meantime
                continue
            if status.st_nlink > 1:  # copies of an upload share one file
                if status.st_ino in linked:
                    continue
                linked.add(status.st_ino)
            total += status.st_size
    return total
