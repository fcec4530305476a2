"""From the files, folders, patterns and playlists that a user names to tracks."""

import glob
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from htdemucs.audio.failures import printable
from htdemucs.batch import storage
from htdemucs.batch.playlists import PLAYLISTS, read_playlist
from htdemucs.errors import AudioError
from htdemucs.stems.manifest import read_manifest, written_files

_AUDIO = (
    "aac ac3 aif aifc aiff alac amr ape au bwf caf dff dsf dts eac3 flac m4a m4b m4r mka mp2 mp3 "
    "mpc oga ogg opus ra rf64 shn snd spx tak tta voc w64 wav wave weba wma wv"
)
_VIDEO = (
    "3g2 3gp asf avi f4v flv m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogm ogv rm rmvb ts vob webm wmv"
)
# Taken from folders; a file that is named is tried whatever its extension.
EXTENSIONS = frozenset(f".{name}" for name in f"{_AUDIO} {_VIDEO}".split())
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
    stored: storage.Stored | None = None

    @property
    def is_local(self) -> bool:
        """Whether it is a file of this machine."""
        return not storage.is_url(self.location)

    @property
    def absolute(self) -> str:
        """The location, whatever the current folder."""
        return str(Path(self.location).absolute()) if self.is_local else self.location

    @property
    def path(self) -> Path:
        """The file; for a URL only its name."""
        return Path(self.location if self.is_local else storage.name(self.location))


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
