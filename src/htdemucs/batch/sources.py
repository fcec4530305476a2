"""Find the tracks of a large run: in folders, lists, tables and stores."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from htdemucs.audio.failures import printable, reporting
from htdemucs.batch import storage
from htdemucs.batch.playlists import decoded, find_listed
from htdemucs.batch.tracks import EXTENSIONS, Track, find_tracks
from htdemucs.errors import HTDemucsError, StorageError

LIST, TABLE = ".txt", ".parquet"
COLUMN = "path"  # the default column of a table


def find_sources(
    word: str, without: Sequence[str] = (), column: str | None = None
) -> Iterator[Track | HTDemucsError]:
    """Yield the tracks that `word` names, each once, in order.

    Args:
        word: anything that `find_tracks` accepts; a text file (.txt) with a path or URL on each
            line; a table (.parquet, a file or a folder) with a column of paths or URLs; or the URL
            of a file, a list, a table or a folder. Paths in lists and tables are relative to the
            folder of the list or table.
        without: paths or URLs of folders for stems; files in those that lie below `word` are no
            tracks.
        column: the column of a table; with it `word` is a table, whatever its name.

    Raises:
        StorageError: `word` does not exist, cannot be read, or names no tracks.
    """
    suffix = PurePosixPath(word).suffix.lower()
    if column is not None or suffix == TABLE:
        return _listed(word, _in_table(word, column or COLUMN))
    if suffix == LIST:
        return _listed(word, _in_text(word))
    if storage.is_url(word):
        return _stored(word, without)
    return find_tracks([word], [place for place in without if not storage.is_url(place)])


def _stored(url: str, without: Sequence[str]) -> Iterator[Track]:
    top = url.rstrip("/") + "/"
    stems = tuple(f"{place.rstrip('/')}/" for place in without)
    stems = tuple(place for place in stems if place.startswith(top) and place != top)
    count = 0
    for file in storage.below(url):
        if file.url == url:
            yield Track(url, stored=file)
            return
        path = PurePosixPath(file.url[len(top) :])
        hidden = any(part.startswith(".") for part in path.parts)
        if hidden or path.suffix.lower() not in EXTENSIONS:
            continue
        if not file.url.startswith(stems):
            count += 1
            yield Track(file.url, path.parent.as_posix(), stored=file)
    if not count:
        raise StorageError(f"{url} holds no audio files; check the URL")


def _listed(word: str, entries: Iterable[str | None]) -> Iterator[Track | HTDemucsError]:
    seen: set[str] = set()
    row = 0
    for row, entry in enumerate(entries, 1):
        if not entry:
            yield StorageError(f"{word}: row {row} names no track")
        elif entry not in seen:
            seen.add(entry)
            yield Track(_absolute(entry, word))
    if not row:
        raise StorageError(f"{word} lists no tracks; check its contents")


def _absolute(entry: str, word: str) -> str:
    if storage.is_url(word):
        relative = not (storage.is_url(entry) or entry.startswith("/"))
        return storage.join(word.rpartition("/")[0], entry) if relative else entry
    if storage.is_url(entry) and not entry.lower().startswith("file://"):
        return entry
    return str(find_listed(entry, Path(word).parent))


def _in_text(word: str) -> list[str]:
    path = Path(word)
    with tempfile.TemporaryDirectory(prefix="htdemucs-") as scratch:
        if storage.is_url(word):
            path = Path(scratch) / "list"
            storage.fetch(word, path)
        with reporting(Path(word), "cannot be read", "check the path"):
            data = path.read_bytes()
    entries = (line.strip() for line in decoded(data).split("\n"))
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
            raise StorageError(f"{word} has no column {column}; its columns are {names}")
        for batch in table.to_batches(columns=[column]):
            for value in batch.column(0).to_pylist():
                yield None if value is None else str(value)
    except (ArrowException, OSError) as error:
        message = " ".join(str(error).split())
        raise StorageError(
            f"{printable(Path(word))} cannot be read as Parquet; check the file ({message})"
        ) from error
