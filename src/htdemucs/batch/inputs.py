"""Playlists as players of every system write them.

MERGED: From the files, folders, patterns and playlists that a user names to tracks.
"""

import glob
import os
import re
import tempfile
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from urllib.parse import unquote, urlsplit

from htdemucs.audio.ffmpeg import audio_errors, printable
from htdemucs.batch import remote
from htdemucs.errors import AudioError, HTDemucsError, StorageError
from htdemucs.formats import AUDIO_EXTENSIONS, VIDEO_EXTENSIONS
from htdemucs.stems.manifest import read_manifest, written_files

PLAYLISTS = frozenset({".m3u", ".m3u8"})
ENCODINGS = ("cp1252", "gb18030", "cp932", "cp1251")  # of lists that are not in Unicode


def read_playlist(path: Path) -> Iterator[Path | AudioError]:
    """Yield the files that a playlist lists; an error for each entry that is no track."""
    for line in decoded(path.read_bytes()).splitlines():
        entry = line.strip().strip("\0")
        if not entry or (entry.startswith("#") and not (path.parent / entry).is_file()):
            continue
        if "://" in entry and not entry.lower().startswith("file://"):
            yield AudioError(f"{printable(Path(entry))} is not a file; download it first")
            continue
        listed = find_listed(entry, path.parent)
        if listed.suffix.lower() in PLAYLISTS or listed.is_dir():
            yield AudioError(f"{printable(listed)}, in {printable(path)}, is no track; name it")
        else:
            yield listed


def decoded(data: bytes) -> str:
    """Return the text of a list in UTF-8 or UTF-16; other bytes stay as in file names."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    if data[1:2] == b"\0":
        return data.decode("utf-16-le", "replace")
    if data[:1] == b"\0":
        return data.decode("utf-16-be", "replace")
    return data.decode("utf-8-sig", "surrogateescape")


def find_listed(entry: str, folder: Path) -> Path:
    """Return the file that an entry of a list in `folder` means, however it is written.

    The first that exists of: the entry itself; its bytes in another encoding; the same
    percent-decoded (a `file://` URL always is); the same with backslashes as separators; and any
    of these but for case and Unicode composition. The entry itself if none exists.
    """
    if entry.lower().startswith("file://"):
        parts = urlsplit(entry.replace("\\", "/"))
        entry = unquote(entry[len("file://") + len(parts.netloc) :])
        if os.name == "nt" or entry[2:3] == ":":  # file:///C:/Music
            entry = entry.lstrip("/")
    spellings = {entry: None}
    if any("\udc80" <= character <= "\udcff" for character in entry):  # not UTF-8
        data = entry.encode("utf-8", "surrogateescape")
        spellings |= {data.decode(encoding, "replace"): None for encoding in ENCODINGS}
    spellings |= {unquote(spelling): None for spelling in spellings}
    spellings |= {spelling.replace("\\", "/"): None for spelling in spellings}
    paths = [folder / spelling for spelling in spellings]
    for path in paths:
        if os.path.lexists(path):
            return path
    return next(filter(None, map(_alike, paths)), paths[0])


def _alike(path: Path) -> Path | None:
    """Return the one file whose path differs in case or composition alone, or None."""
    found = Path(path.anchor)
    for part in path.parts[1:] if path.anchor else path.parts:
        if os.path.lexists(found / part):
            found /= part
            continue
        try:
            names = [p.name for p in found.iterdir() if _plain(p.name) == _plain(part)]
        except OSError:
            return None
        if len(names) != 1:
            return None
        found /= names[0]
    return found


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


EXTENSIONS = AUDIO_EXTENSIONS | VIDEO_EXTENSIONS  # of the files taken from folders
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # one slash: paths drop the second


@dataclass(frozen=True)
class Track:
    """A song to separate.

    Attributes:
        location: path of the file, or its URL.
        folder: where it lies below the folder that was named; its stems go to the same place below
            the library.
        copy: 2 for the second track of the same name, whose stems go to "song (2)".
        stored: size and version of a file elsewhere, where a listing told them.
    """

    location: str
    folder: str = ""
    copy: int = 1
    stored: remote.Stored | None = None

    @property
    def is_local(self) -> bool:
        """Whether it is a file of this machine."""
        return not remote.is_url(self.location)

    @property
    def absolute(self) -> str:
        """The location, whatever the current folder."""
        return str(Path(self.location).absolute()) if self.is_local else self.location

    @property
    def path(self) -> Path:
        """The file; for a URL only its name."""
        return Path(self.location if self.is_local else remote.name(self.location))


def find_tracks(
    words: Iterable[str | os.PathLike[str]], without: Iterable[str | os.PathLike[str]] = ()
) -> Iterator[Track | AudioError]:
    """Yield the tracks that words name, each file once, in the order of the words, then of names.

    A word is a file, a folder (every file in it with an audio or video extension, recursively,
    hidden ones left out), a pattern such as `album/*.flac`, or a playlist (.m3u, .m3u8). Files that
    a manifest says we wrote are left out of folders and patterns, with a warning. A word that names
    no track yields the error that says so; it stops nothing.

    Args:
        words: files, folders, patterns, playlists.
        without: folders of stems, whose files are no tracks where they lie below what is named.
    """
    closed = [Path(os.path.realpath(folder)) for folder in without]
    seen: set[str] = set()
    for word in words:
        path = Path(word)
        if not os.path.lexists(path):
            path = path.expanduser()  # a shell does this, but not inside quotes
        for track in _named(path, closed):
            if isinstance(track, Track):
                real = os.path.realpath(track.location)
                if real in seen:
                    continue
                seen.add(real)
            yield track


def _named(path: Path, closed: list[Path]) -> Iterator[Track | AudioError]:
    try:
        if path.is_dir():
            yield from _in_folder(path, closed)
        elif path.suffix.lower() in PLAYLISTS and path.is_file():
            yield from _in_playlist(path, closed)
        elif os.path.lexists(path):
            yield Track(str(path))
        elif _URL.match(str(path)):
            yield AudioError(f"{printable(path)} is a URL; download the file and name that")
        elif glob.has_magic(str(path)):
            yield from _matching(path, closed)
        else:
            yield AudioError(f"{printable(path)} does not exist; check the path")
    except (OSError, ValueError) as error:
        yield AudioError(f"{printable(path)} cannot be read: {getattr(error, 'strerror', error)}")


def _in_folder(top: Path, closed: list[Path]) -> Iterator[Track | AudioError]:
    problems: list[OSError] = []
    walked = list(walk(top, _below(closed, top), problems))
    found = [
        path
        for place, names in walked
        for path in (place / name for name in sorted(names))
        if not path.name.startswith(".") and path.suffix.lower() in EXTENSIONS
        if path.is_file()  # no devices, no pipes, no links that lead nowhere
    ]
    songs = _without_written(found, walked)
    yield from (Track(str(path), str(path.parent.relative_to(top))) for path in songs)
    for problem in problems:
        yield AudioError(f"{printable(Path(problem.filename))} cannot be read: {problem.strerror}")
    if not songs and not problems:
        what = "only stems that htdemucs wrote" if found else "no audio files"
        yield AudioError(f"{printable(top)} holds {what}; name another folder")


def walk(
    top: Path, closed: list[Path], problems: list[OSError]
) -> Iterator[tuple[Path, list[str]]]:
    """Yield the folders below `top` with the names of their files, in order.

    Args:
        top: the first of them.
        closed: real paths of folders that are left out; so are hidden ones.
        problems: gets what cannot be read.
    """
    entered: set[str] = set()  # real paths: links may lead around in circles
    for place, folders, files in os.walk(top, onerror=problems.append, followlinks=True):
        real = os.path.realpath(place)
        if real in entered or Path(real) in closed:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(place), files


def _in_playlist(path: Path, closed: list[Path]) -> Iterator[Track | AudioError]:
    entries = list(read_playlist(path))
    if not entries:
        yield AudioError(f"{printable(path)} lists no tracks; check the playlist")
        return
    stems = _below(closed, path.parent)
    songs = [e for e in entries if isinstance(e, AudioError) or not _lies_in(e, stems)]
    yield from (e if isinstance(e, AudioError) else Track(str(e)) for e in songs)
    if not songs:
        yield AudioError(
            f"{printable(path)} lists only files in the output folder; name songs elsewhere"
        )


def _matching(pattern: Path, closed: list[Path]) -> Iterator[Track | AudioError]:
    base, matches = _glob(pattern)
    found = [path for path in matches if path.is_file()]
    stems = _below(closed, base)
    outside = [path for path in found if not _lies_in(path, stems)]
    folders = {path.parent: None for path in outside}
    songs = _without_written(outside, [(f, [p.name for p in f.iterdir()]) for f in folders])
    yield from (Track(str(path)) for path in songs)
    if not found:
        yield AudioError(f"{printable(pattern)} matches no file; check the pattern")
    elif not songs:
        yield AudioError(f"{printable(pattern)} matches only stems; name songs elsewhere")


def _glob(pattern: Path) -> tuple[Path, list[Path]]:
    """Return the folder that a pattern begins with, and the paths that it matches, in order.

    Brackets in names that exist are no pattern.
    """
    literal = Path(*pattern.parts[:1])
    for part in pattern.parts[1:]:
        if not os.path.lexists(literal / part):
            break
        literal /= part
    wild = pattern.parts[len(literal.parts) :]
    if not os.path.lexists(literal):
        literal, wild = Path(), pattern.parts
    tries = [Path(glob.escape(str(literal)), *wild)]
    tries.append(Path(glob.escape(str(literal)), *(part.replace("[", "[[]") for part in wild)))
    for attempt in tries:
        if found := sorted(glob.glob(str(attempt), recursive=True)):  # noqa: PTH207  absolute too
            return literal, [Path(name) for name in found]
    return literal, []


def _without_written(paths: list[Path], folders: Iterable[tuple[Path, list[str]]]) -> list[Path]:
    """Leave out files that a manifest in these folders says we wrote, and warn how many."""
    written: set[Path] = set()
    for path in manifest_paths(folders):
        if document := read_manifest(path):
            written |= written_files(document, path.parent)
    songs = [path for path in paths if Path(os.path.normpath(path)) not in written]
    if songs and len(songs) < len(paths):
        count = len(paths) - len(songs)
        warnings.warn(f"{count} stems that htdemucs wrote earlier are left out", stacklevel=2)
    return songs


def manifest_paths(folders: Iterable[tuple[Path, list[str]]]) -> Iterator[Path]:
    """Yield the files that are called like manifests."""
    for folder, names in folders:
        for name in names:
            if name.endswith(".json") and ("htdemucs" in name or "htdemucs" in folder.name):
                yield folder / name


def _below(folders: list[Path], top: Path) -> list[Path]:
    """Return those of the folders that lie below `top`: `-o .` must not hide the songs there."""
    real = Path(os.path.realpath(top))
    return [folder for folder in folders if real in folder.parents]


def _lies_in(path: PurePath, folders: list[Path]) -> bool:
    real = Path(os.path.realpath(path))
    return any(real.is_relative_to(folder) for folder in folders)


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
    if remote.is_url(word):
        return _tracks_at(word, without)
    return find_tracks([word], [place for place in without if not remote.is_url(place)])


def _tracks_at(url: str, without: Sequence[str]) -> Iterator[Track]:
    top = url.rstrip("/") + "/"
    stems = tuple(f"{place.rstrip('/')}/" for place in without)
    stems = tuple(place for place in stems if place.startswith(top) and place != top)
    count = 0
    for file in remote.below(url):
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
    if remote.is_url(word):
        relative = not (remote.is_url(entry) or entry.startswith("/"))
        return remote.join(word.rpartition("/")[0], entry) if relative else entry
    if remote.is_url(entry) and not entry.lower().startswith("file://"):
        return entry
    return str(find_listed(entry, Path(word).parent))


def _in_text(word: str) -> list[str]:
    path = Path(word)
    with tempfile.TemporaryDirectory(prefix="htdemucs-") as scratch:
        if remote.is_url(word):
            path = Path(scratch) / "list"
            remote.fetch(word, path)
        with audio_errors(Path(word), "cannot be read", "check the path"):
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
    place = word if remote.is_url(word) else f"file://{Path(word).absolute()}"
    files, path = remote.filesystem(place)
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
