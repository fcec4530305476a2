"""The outcomes of a large run as a Parquet file, with a row for each track."""

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from htdemucs.audio.failures import printable, reporting
from htdemucs.batch import storage
from htdemucs.batch.outcomes import Outcome
from htdemucs.files import replacing

CHUNK = 10_000  # rows that are Python objects; more are packed into Arrow tables


@dataclass(frozen=True)
class Row:
    """A track of a run.

    Attributes:
        position: the track's number in the list of tracks, from 0.
        outcome: the outcome of its separation.
        worker: the host and process that worked on it; None if it never reached a worker.
        device: the worker's device.
        deaths: how many workers died while they worked on it.
    """

    position: int
    outcome: Outcome
    worker: str | None = None
    device: str | None = None
    deaths: int = 0


class OutcomeTable:
    """Collects rows in any order, and writes them to a file in the order of the list."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.duration = 0.0  # seconds of audio separated now
        self._rows: list[dict[str, Any]] = []
        self._tables: list[Any] = []

    def add(self, row: Row) -> None:
        """Add a row."""
        outcome = row.outcome
        self.counts[outcome.status] += 1
        if outcome.status == "separated":
            self.duration += outcome.duration or 0.0
        self._rows.append(
            {
                "position": row.position,
                "path": _text(outcome.track),
                "status": outcome.status,
                "reason": _text(outcome.reason),
                "duration": outcome.duration,
                "seconds": outcome.seconds,
                "resumed": outcome.resumed,
                "gain": outcome.gain,
                "files": [(name, _text(path)) for name, path in outcome.files.items()],
                "manifest": _text(outcome.manifest),
                "warnings": [_text(warning) for warning in outcome.warnings],
                "worker": row.worker,
                "device": row.device,
                "deaths": row.deaths,
            }
        )
        if len(self._rows) >= CHUNK:
            self._pack()

    def write(self, place: str) -> None:
        """Write the table to a path or URL; the file appears there only when it is whole.

        Raises:
            AudioError, StorageError: the file cannot be written.
        """
        from pyarrow import concat_tables, parquet

        self._pack()
        table = concat_tables(self._tables).sort_by("position")

        def save(path: Path) -> None:
            parquet.write_table(table, path, compression="zstd")

        if storage.is_url(place):
            with tempfile.TemporaryDirectory(prefix="htdemucs-") as scratch:
                save(Path(scratch, "outcomes"))
                storage.put(Path(scratch, "outcomes"), place)
            return
        remedy = "check its folder, or choose another place for the table"
        with (
            reporting(Path(place), "cannot be written", remedy),
            replacing(Path(place)) as partial,
        ):
            save(partial)

    def _pack(self) -> None:
        from pyarrow import Table

        self._tables.append(Table.from_pylist(self._rows, schema=_schema()))
        self._rows = []


def _schema() -> Any:
    import pyarrow as pa

    text, real, count = pa.string(), pa.float64(), pa.int64()
    kinds: dict[str, Any] = {
        "position": count,
        "path": text,
        "status": text,
        "reason": text,
        "duration": real,
        "seconds": real,
        "resumed": real,
        "gain": real,
        "files": pa.map_(text, text),
        "manifest": text,
        "warnings": pa.list_(text),
        "worker": text,
        "device": text,
        "deaths": count,
    }
    return pa.schema(list(kinds.items()))


def _text(value: str | None) -> str | None:
    """Return text that UTF-8 can hold, as Parquet needs it; file names can hold any bytes."""
    return None if value is None else printable(Path(value)) if value else ""
