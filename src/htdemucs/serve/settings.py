"""What the server and its workers are told at their start."""

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class Limits:
    """What the server takes, and how much it keeps.

    Attributes:
        upload_bytes: of one uploaded file.
        seconds: of one track.
        jobs: tracks that wait or are separated at the same time, and uploads on their way.
        free_bytes: that stay free on the disk; uploads beyond are refused.
        preview_bytes: of all previews together; those listened to least recently go first.
        keep_days: uploaded tracks are deleted so many days after they ended; None: never.
        streams: open streams of events.
    """

    upload_bytes: int = 2 << 30
    seconds: float = 3 * 3600.0
    jobs: int = 100
    free_bytes: int = 1 << 30
    preview_bytes: int = 20 << 30
    keep_days: float | None = None
    streams: int = 200


@dataclass(frozen=True)
class Settings:
    """Where things are, and how many.

    Attributes:
        data: folder of the database, uploads and previews.
        library: folder of tracks and stems, laid out as `htdemucs separate` does.
        database: URL for SQLAlchemy; by default a file in `data`.
        model: the model of tracks that name no other.
        workers: processes that separate.
    """

    data: Path
    library: Path
    database: str
    model: str = "htdemucs"
    workers: int = 1
    limits: Limits = field(default_factory=Limits)

    @classmethod
    def of(
        cls, data: Path, library: Path | None = None, database: str | None = None, **others: Any
    ) -> Self:
        """Return settings with the default places below `data`."""
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

    def without_folders(self, reason: str) -> str:
        """Return a sentence for clients, without the folders of this machine."""
        for folder in (self.library, self.uploads, self.data):
            reason = reason.replace(f"{folder}{os.sep}", "")
        return reason

    def as_json(self) -> dict[str, Any]:
        """Return what `from_json` takes."""
        return asdict(self) | {"data": str(self.data), "library": str(self.library)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Return the settings that `as_json` gave."""
        paths = {name: Path(values[name]) for name in ("data", "library")}
        return cls(**values | paths | {"limits": Limits(**values["limits"])})
