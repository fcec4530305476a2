"""From the one SOURCE of a large run to its tracks: folders, lists, tables, buckets."""

import glob
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from htdemucs.audio.failures import printable, reporting
from htdemucs.batch import storage
from htdemucs.batch.inputs import EXTENSIONS, Track, find_tracks
from htdemucs.errors import HTDemucsError, StorageError

LIST, TABLE = ".txt", ".parquet"
COLUMN = "path"  # of a table, unless another is named


@dataclass(frozen=True)
class Source:
    """A track of a large run.

    Attributes:
        path: of the file, or its URL.
        folder: where its stems go below the output folder.
        stored: what the listing told of a file elsewhere.
    """

    path: str
    folder: str = ""
    stored: storage.Stored | None = None

    @property
    def track(self) -> Track:
        """What decides on the names of its stems."""
        path = Path(storage.name(self.path) if storage.is_url(self.path) else self.path)
        return Track(path, PurePath(self.folder))


def find_sources(
    word: str, without: str, column: str | None = None
) -> Iterator[Source | HTDemucsError]:
    """The tracks that a word names, each once, in order.

    A word is all that `find_tracks` takes; a text file (.txt) of one path or URL a line; a table
    (.parquet, a file or a folder) with a column of them; or the URL of a file, a list, a table, or
    of what all audio files below have in common. Paths in lists and tables start at their folder.

    Args:
        word: what is named.
        without: the path or URL of the output, whose files are no tracks.
        column: of a table; makes a folder of any name one.

    Raises:
        StorageError: it is not there, cannot be read, or names no tracks.
    """
    suffix = PurePosixPath(word).suffix.lower()
    if column is not None or suffix == TABLE:
        return _listed(word, _in_table(word, column or COLUMN))
    if suffix == LIST:
        return _listed(word, _in_text(word))
    if storage.is_url(word):
        return _stored(word, without)
    return _local(word, None if storage.is_url(without) else Path(without))


def _local(word: str, without: Path | None) -> Iterator[Source | HTDemucsError]:
    if not os.path.lexists(word) and not glob.has_magic(word):
        raise StorageError(f"{printable(Path(word))} does not exist; check the path")
    for found in find_tracks([word], without):
        if isinstance(found, HTDemucsError):
            yield found
        else:
            yield Source(str(found.path), found.folder.as_posix())


def _stored(url: str, without: str) -> Iterator[Source]:
    count = 0
    for file in storage.below(url):
        if file.url == url:
            yield Source(url, stored=file)
            return
        path = PurePosixPath(file.url[len(url.rstrip("/")) + 1 :])
        hidden = any(part.startswith(".") for part in path.parts)
        if hidden or path.suffix.lower() not in EXTENSIONS:
            continue
        if not file.url.startswith(without.rstrip("/") + "/"):
            count += 1
            yield Source(file.url, path.parent.as_posix(), file)
    if not count:
        raise StorageError(f"{url} holds no audio files; check the URL")


def _listed(word: str, entries: Iterable[str | None]) -> Iterator[Source | HTDemucsError]:
    seen: set[str] = set()
    number = 0
    for number, entry in enumerate(entries, 1):
        if not entry:
            yield StorageError(f"{word}: row {number} names no track")
        elif entry not in seen:
            seen.add(entry)
            yield Source(_absolute(entry, word))
    if not number:
        raise StorageError(f"{word} lists no tracks; check its contents")


def _absolute(entry: str, word: str) -> str:
    if storage.is_url(entry):
        return entry
    if storage.is_url(word) and not entry.startswith("/"):
        return storage.join(word.rpartition("/")[0], entry)
    return str(Path(word).parent / entry)


def _in_text(word: str) -> list[str]:
    path = Path(word)
    with tempfile.TemporaryDirectory(prefix="htdemucs-") as scratch:
        if storage.is_url(word):
            path = Path(scratch) / "list"
            storage.fetch(word, path)
        with reporting(Path(word), "cannot be read", "it must be a text file in UTF-8"):
            text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    entries = (line.strip() for line in text.split("\n"))
    return [entry for entry in entries if entry and not entry.startswith("#")]


def _in_table(word: str, column: str) -> Iterator[str | None]:
    try:
        from pyarrow import ArrowException, dataset
    except ImportError:
        raise StorageError(
            f"{word} needs pyarrow; install it with: pip install 'htdemucs[batch]'"
        ) from None
    place = word if storage.is_url(word) else f"file://{Path(word).absolute()}"
    files, path = storage.filesystem(place)
    try:
        table = dataset.dataset(path, filesystem=files, format="parquet")
        if column not in table.schema.names:
            names = ", ".join(table.schema.names)
            raise StorageError(f"{word} has no column {column}; name one with --column: {names}")
        for batch in table.to_batches(columns=[column]):
            for value in batch.column(0).to_pylist():
                yield None if value is None else str(value)
    except (ArrowException, OSError) as error:
        told = " ".join(str(error).split())
        raise StorageError(f"{printable(Path(word))} cannot be read as Parquet ({told})") from error
