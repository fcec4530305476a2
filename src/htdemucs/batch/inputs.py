"""From files, folders, patterns, playlists, lists, tables and URLs to the tracks that they name.

`find_tracks` resolves the arguments of `htdemucs separate`, `find_batch_tracks` the one of
`htdemucs batch`. Stems that this package wrote are not treated as input.
"""

import glob
import os
import re
import tempfile
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from urllib.parse import unquote, urlsplit

from htdemucs.audio.ffmpeg import audio_errors, display_path
from htdemucs.batch import remote
from htdemucs.errors import AudioError, HTDemucsError, StorageError
from htdemucs.formats import AUDIO_EXTENSIONS, VIDEO_EXTENSIONS
from htdemucs.results import counted
from htdemucs.stems.manifest import read_manifest, written_files

# Files with these extensions are found in folders. A file that is named may have any extension.
EXTENSIONS = AUDIO_EXTENSIONS | VIDEO_EXTENSIONS
PLAYLISTS = frozenset({".m3u", ".m3u8"})
ENCODINGS = ("cp1252", "gb18030", "cp932", "cp1251")  # of playlists that are not in Unicode
LIST, TABLE = ".txt", ".parquet"
COLUMN = "path"  # the default column of a table
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)")  # one slash: `Path` drops the second


@dataclass(frozen=True)
class Track:
    """A song to separate.

    Attributes:
        location: path or URL of the file.
        folder: its folder relative to the one that was named. Stems go to the same folder relative
            to the output folder.
        duplicate_index: 2 for the second track of the same name, whose stems go to "song (2)".
        remote_file: size and version of a remote file, if a listing gave them.
    """

    location: str
    folder: str = ""
    duplicate_index: int = 1
    remote_file: remote.RemoteFile | None = None

    @property
    def is_local(self) -> bool:
        """Whether the file is on this machine."""
        return not remote.is_url(self.location)

    @property
    def absolute(self) -> str:
        """The location, independent of the current folder."""
        return str(Path(self.location).absolute()) if self.is_local else self.location

    @property
    def path(self) -> Path:
        """The path of the file; for a URL only its name."""
        return Path(self.location if self.is_local else remote.name(self.location))


def find_tracks(
    inputs: Iterable[str | os.PathLike[str]], exclude: Iterable[str | os.PathLike[str]] = ()
) -> Iterator[Track | AudioError]:
    """Yield the tracks that the inputs name, each once, in the order of inputs and file names.

    Of a file and links to it, only one is a track: the file itself, if it is among the inputs.

    An input is a file, a folder (all files in it that have an audio or video extension,
    recursively, without hidden ones), a pattern such as `album/*.flac`, or a playlist (.m3u,
    .m3u8). In folders and patterns, files that a manifest lists are left out with a warning, and
    so are links to missing files. An input that names no track gives an error, and the next input
    follows.

    Args:
        inputs: files, folders, patterns, playlists.
        exclude: output folders; inside a folder, pattern or playlist their files are not tracks.
    """
    excluded = [Path(os.path.realpath(folder)) for folder in exclude]
    found: list[Track | AudioError] = []
    chosen: dict[str, Track] = {}  # by real path
    for name in inputs:
        path = Path(name)
        if not os.path.lexists(path):
            with suppress(RuntimeError):  # ~name, but no user has that name
                path = path.expanduser()  # a shell does this, but not inside quotes
        for track in _resolve(path, excluded):
            found.append(track)
            if isinstance(track, AudioError):
                track.track = str(path)
            if isinstance(track, Track):
                real = os.path.realpath(track.location)
                first = chosen.setdefault(real, track)
                if first.path.is_symlink() and not track.path.is_symlink():
                    chosen[real] = track
    ids = {id(track) for track in chosen.values()}
    yield from (track for track in found if isinstance(track, AudioError) or id(track) in ids)


def _resolve(path: Path, excluded: list[Path]) -> Iterator[Track | AudioError]:
    try:
        if path.is_dir():
            yield from _in_folder(path, excluded)
        elif path.suffix.lower() in PLAYLISTS and path.is_file():
            yield from _in_playlist(path, excluded)
        elif os.path.lexists(path):
            yield Track(str(path))
        elif _URL.match(str(path)):
            url = _URL.sub(r"\g<0>/", str(path), count=1)
            yield AudioError(
                f"{display_path(url)} is a URL, and URLs are not fetched; download the file and "
                "specify that"
            )
        elif glob.has_magic(str(path)):
            yield from _matching(path, excluded)
        else:
            yield AudioError(f"{display_path(path)} does not exist; check the path")
    except (OSError, ValueError) as error:
        yield AudioError(
            f"{display_path(path)} cannot be read: {getattr(error, 'strerror', error)}"
        )


# Folders


def _in_folder(top: Path, excluded: list[Path]) -> Iterator[Track | AudioError]:
    errors: list[OSError] = []
    folders = list(walk(top, _below(excluded, top), errors))
    found = [
        path
        for folder, names in folders
        for path in (folder / name for name in sorted(names))
        if not path.name.startswith(".") and path.suffix.lower() in EXTENSIONS
        if path.is_file()  # not a device or a pipe
    ]
    _warn_of_broken_links(folder / name for folder, names in folders for name in names)
    songs = _without_stems(found, folders)
    yield from (Track(str(path), str(path.parent.relative_to(top))) for path in songs)
    for error in errors:
        yield AudioError(f"{display_path(Path(error.filename))} cannot be read: {error.strerror}")
    if not songs and not errors:
        content = "only stems that htdemucs wrote" if found else "no audio files"
        yield AudioError(f"{display_path(top)} holds {content}; specify another folder")


def _warn_of_broken_links(paths: Iterable[Path]) -> None:
    audio = (path for path in paths if path.suffix.lower() in EXTENSIONS)
    if broken := sorted(filter(_is_broken_link, audio)):
        example = display_path(broken[0])
        text = f"{counted(len(broken), 'link')} to missing files left out, such as {example}"
        warnings.warn(text, stacklevel=2)


def _is_broken_link(path: Path) -> bool:
    return path.is_symlink() and not path.exists() and not path.name.startswith(".")


def walk(
    top: Path, excluded: list[Path], errors: list[OSError]
) -> Iterator[tuple[Path, list[str]]]:
    """Yield the folders from `top` downwards with the names of their files, in order.

    Args:
        top: the first folder.
        excluded: real paths of folders that are left out; so are hidden folders.
        errors: receives the errors of folders that cannot be read.
    """
    entered: set[str] = set()  # real paths: links may lead in circles
    for path, folders, files in os.walk(top, onerror=errors.append, followlinks=True):
        real = os.path.realpath(path)
        if real in entered or Path(real) in excluded:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(path), files


# Patterns


def _matching(pattern: Path, excluded: list[Path]) -> Iterator[Track | AudioError]:
    base, matches = _glob(pattern)
    found = [path for path in matches if path.is_file()]
    _warn_of_broken_links(matches)
    excluded = _below(excluded, base)
    outside = [path for path in found if not _is_inside(path, excluded)]
    folders = {path.parent: None for path in outside}
    songs = _without_stems(outside, [(f, [p.name for p in f.iterdir()]) for f in folders])
    yield from (Track(str(path)) for path in songs)
    if not found:
        yield AudioError(f"{display_path(pattern)} matches no file; check the pattern")
    elif not songs:
        yield AudioError(f"{display_path(pattern)} matches only stems; specify songs elsewhere")


def _glob(pattern: Path) -> tuple[Path, list[Path]]:
    """Return the folder that a pattern begins with, and the paths that it matches, in order.

    Brackets in names that exist are not part of the pattern.
    """
    literal = Path(*pattern.parts[:1])
    for part in pattern.parts[1:]:
        if not os.path.lexists(literal / part):
            break
        literal /= part
    wild = pattern.parts[len(literal.parts) :]
    if not os.path.lexists(literal):
        literal, wild = Path(), pattern.parts
    attempts = [Path(glob.escape(str(literal)), *wild)]
    attempts.append(Path(glob.escape(str(literal)), *(part.replace("[", "[[]") for part in wild)))
    for attempt in attempts:
        if found := sorted(glob.glob(str(attempt), recursive=True)):  # noqa: PTH207  absolute too
            return literal, [Path(name) for name in found]
    return literal, []


# Stems that this package wrote


def _without_stems(paths: list[Path], folders: Iterable[tuple[Path, list[str]]]) -> list[Path]:
    """Leave out files that a manifest in these folders lists, with a warning."""
    written: set[Path] = set()
    for path in manifest_paths(folders):
        if document := read_manifest(path):
            written |= written_files(document, path.parent)
    songs = [path for path in paths if Path(os.path.normpath(path)) not in written]
    if songs and len(songs) < len(paths):
        count = len(paths) - len(songs)
        text = f"{counted(count, 'stem')} that htdemucs wrote earlier"
        warnings.warn(f"{text} {'is' if count == 1 else 'are'} left out", stacklevel=2)
    return songs


def manifest_paths(folders: Iterable[tuple[Path, list[str]]]) -> Iterator[Path]:
    """Yield the files that have the name of a manifest."""
    for folder, names in folders:
        for name in names:
            if name.endswith(".json") and ("htdemucs" in name or "htdemucs" in folder.name):
                yield folder / name


def _below(folders: list[Path], top: Path) -> list[Path]:
    """Return the folders that are below `top`. With `-o .` the songs in `top` are not hidden."""
    real = Path(os.path.realpath(top))
    return [folder for folder in folders if real in folder.parents]


def _is_inside(path: PurePath, folders: list[Path]) -> bool:
    real = Path(os.path.realpath(path))
    return any(real.is_relative_to(folder) for folder in folders)


# Playlists, as players on every system write them


def _in_playlist(path: Path, excluded: list[Path]) -> Iterator[Track | AudioError]:
    entries = list(_read_playlist(path))
    if not entries:
        yield AudioError(f"{display_path(path)} lists no tracks; check the playlist")
        return
    excluded = _below(excluded, path.parent)
    songs = [e for e in entries if isinstance(e, AudioError) or not _is_inside(e, excluded)]
    yield from (e if isinstance(e, AudioError) else Track(str(e)) for e in songs)
    if not songs:
        yield AudioError(
            f"{display_path(path)} lists only files in the output folder; specify songs elsewhere"
        )


def _read_playlist(path: Path) -> Iterator[Path | AudioError]:
    """Yield the files in a playlist; an error for each entry that is not a track."""
    for line in _decode(path.read_bytes()).splitlines():
        entry = line.strip().strip("\0")
        if not entry or (entry.startswith("#") and not (path.parent / entry).is_file()):
            continue
        if "://" in entry and not entry.lower().startswith("file://"):
            yield AudioError(f"{display_path(entry)} is not a file; download it first")
            continue
        listed = _find_entry(entry, path.parent)
        if listed.suffix.lower() in PLAYLISTS or listed.is_dir():
            yield AudioError(
                f"{display_path(listed)}, in {display_path(path)}, is not a track; specify it "
                "directly"
            )
        else:
            yield listed


def _decode(data: bytes) -> str:
    """Return the text of a list in UTF-8 or UTF-16; other bytes become surrogate escapes."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    if data[1:2] == b"\0":
        return data.decode("utf-16-le", "replace")
    if data[:1] == b"\0":
        return data.decode("utf-16-be", "replace")
    return data.decode("utf-8-sig", "surrogateescape")


def _find_entry(entry: str, folder: Path) -> Path:
    """Return the file that an entry of a list in `folder` names, however the entry is written.

    The result is the first of these that exists: the entry; its bytes in another encoding; these
    percent-decoded (a `file://` URL always is); these with backslashes as separators; any of these
    with another case or Unicode composition. If none exists, it is the entry.
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
    return next(filter(None, map(_ignoring_case, paths)), paths[0])


def _ignoring_case(path: Path) -> Path | None:
    """Return the file with this path, ignoring case and Unicode composition; None unless unique."""
    found = Path(path.anchor)
    for part in path.parts[1:] if path.anchor else path.parts:
        if os.path.lexists(found / part):
            found /= part
            continue
        try:
            names = [p.name for p in found.iterdir() if _fold(p.name) == _fold(part)]
        except OSError:
            return None
        if len(names) != 1:
            return None
        found /= names[0]
    return found


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


# Lists, tables and URLs, for `htdemucs batch`


def find_batch_tracks(
    source: str, exclude: Sequence[str] = (), column: str | None = None
) -> Iterator[Track | HTDemucsError]:
    """Yield the tracks that `source` names, each once, in order.

    Args:
        source: anything that `find_tracks` accepts; a text file (.txt) with a path or URL on each
            line; a table (.parquet, a file or a folder) with a column of paths or URLs; or the URL
            of a file, a list, a table or a folder. Paths in lists and tables are relative to the
            folder of the list or table.
        exclude: paths or URLs of output folders; files in those that are below `source` are not
            tracks.
        column: the column of a table. If it is given, `source` is a table, whatever its name.

    Raises:
        StorageError: `source` does not exist, cannot be read, or names no tracks.
    """
    suffix = PurePosixPath(source).suffix.lower()
    if column is not None or suffix == TABLE:
        return _listed(source, _read_table(source, column or COLUMN))
    if suffix == LIST:
        return _listed(source, _read_list(source))
    if remote.is_url(source):
        return _at_url(source, exclude)
    return find_tracks([source], [folder for folder in exclude if not remote.is_url(folder)])


def _at_url(url: str, exclude: Sequence[str]) -> Iterator[Track]:
    top = url.rstrip("/") + "/"
    folders = tuple(f"{folder.rstrip('/')}/" for folder in exclude)
    excluded = tuple(folder for folder in folders if folder.startswith(top) and folder != top)
    count = 0
    for file in remote.list_files(url):
        if file.url == url:
            yield Track(url, remote_file=file)
            return
        path = PurePosixPath(file.url[len(top) :])
        hidden = any(part.startswith(".") for part in path.parts)
        if hidden or path.suffix.lower() not in EXTENSIONS:
            continue
        if not file.url.startswith(excluded):
            count += 1
            yield Track(file.url, path.parent.as_posix(), remote_file=file)
    if not count:
        raise StorageError(f"{url} holds no audio files; check the URL")


def _listed(source: str, entries: Iterable[str | None]) -> Iterator[Track | HTDemucsError]:
    seen: set[str] = set()
    row = 0
    for row, entry in enumerate(entries, 1):
        if not entry:
            yield StorageError(f"{source}: row {row} names no track")
        elif entry not in seen:
            seen.add(entry)
            yield Track(_absolute(entry, source))
    if not row:
        raise StorageError(f"{source} lists no tracks; check its contents")


def _absolute(entry: str, source: str) -> str:
    """Return the path or URL of an entry in a list or table."""
    if remote.is_url(source):
        relative = not (remote.is_url(entry) or entry.startswith("/"))
        return remote.join(source.rpartition("/")[0], entry) if relative else entry
    if remote.is_url(entry) and not entry.lower().startswith("file://"):
        return entry
    return str(_find_entry(entry, Path(source).parent))


def _read_list(source: str) -> list[str]:
    path = Path(source)
    with tempfile.TemporaryDirectory(prefix="htdemucs-") as scratch:
        if remote.is_url(source):
            path = Path(scratch) / "list"
            remote.download(source, path)
        with audio_errors(Path(source), "cannot be read", "check the path"):
            data = path.read_bytes()
    entries = (line.strip() for line in _decode(data).split("\n"))
    return [entry for entry in entries if entry and not entry.startswith("#")]


def _read_table(source: str, column: str) -> Iterator[str | None]:
    try:
        from pyarrow import ArrowException, dataset
    except ImportError:
        raise StorageError(
            f"{source} needs pyarrow; in the repository, run: pip install '.[batch]'"
        ) from None
    url = source if remote.is_url(source) else f"file://{Path(source).absolute()}"
    files, path = remote.filesystem(url)
    try:
        table = dataset.dataset(path, filesystem=files, format="parquet")
        if column not in table.schema.names:
            names = ", ".join(table.schema.names)
            raise StorageError(f"{source} has no column {column}; its columns are {names}")
        for batch in table.to_batches(columns=[column]):
            for value in batch.column(0).to_pylist():
                yield None if value is None else str(value)
    except (ArrowException, OSError) as error:
        message = " ".join(str(error).split())
        raise StorageError(
            f"{display_path(source)} cannot be read as Parquet; check the file ({message})"
        ) from error
