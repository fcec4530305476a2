"""The settings of the server, which its workers get as JSON."""

import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class Limits:
    """What the server accepts and keeps.

    Attributes:
        upload_bytes: maximum size of an uploaded file.
        seconds: maximum length of a track.
        jobs: maximum number of tracks that are queued, separating or being uploaded.
        free_bytes: minimum free space on the disk; uploads that would leave less are refused.
        preview_bytes: maximum size of all previews; the least recently played are deleted first.
        keep_days: days after which uploaded tracks are deleted when they have ended; None: never.
        streams: maximum number of open event streams.
    """

    upload_bytes: int = 2 << 30
    seconds: float = 3 * 3600.0
    jobs: int = 1000
    free_bytes: int = 1 << 30
    preview_bytes: int = 20 << 30
    keep_days: float | None = None
    streams: int = 200


@dataclass(frozen=True)
class Settings:
    """The folders, the database, the model and the limits.

    Attributes:
        data: folder for uploads, previews, exports and the default database.
        library: folder with tracks and stems, laid out as by `htdemucs separate`.
        database: SQLAlchemy URL.
        model: for tracks that do not name another.
        workers: number of worker processes.
        format: of the stems; None: what clients have set, see `storage.py`.
    """

    data: Path
    library: Path
    database: str
    model: str = "htdemucs"
    workers: int = 1
    format: str | None = None
    limits: Limits = field(default_factory=Limits)

    @classmethod
    def in_folder(
        cls, data: Path, library: Path | None = None, database: str | None = None, **others: Any
    ) -> Self:
        """Return settings whose library and database are in `data` by default."""
        return cls(
            data=data,
            library=library or data / "separated",
            database=database or f"sqlite:///{data / 'htdemucs.db'}",
            **others,
        )

    @property
    def uploads(self) -> Path:
        """Folder with a folder for each uploaded track."""
        return self.data / "uploads"

    @property
    def previews(self) -> Path:
        """Folder with a folder for each preview."""
        return self.data / "previews"

    @property
    def exports(self) -> Path:
        """Folder with a folder for each download that is being made."""
        return self.data / "exports"

    def without_folders(self, message: str) -> str:
        """Return an error message for clients, without the folders of this machine."""
        separator = re.escape(os.sep)
        for folder in (self.uploads, self.previews, self.exports):  # each file in its own folder
            pattern = f"{re.escape(str(folder))}{separator}[^{separator}]+{separator}"
            message = re.sub(pattern, "", message)
        for folder in (self.library, self.data):
            message = message.replace(f"{folder}{os.sep}", "")
        return message

    def as_json(self) -> dict[str, Any]:
        """Return the settings as `from_json` takes them."""
        return asdict(self) | {"data": str(self.data), "library": str(self.library)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Return the settings that `as_json` returned."""
        paths = {name: Path(values[name]) for name in ("data", "library")}
        return cls(**values | paths | {"limits": Limits(**values["limits"])})
