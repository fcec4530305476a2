"""From what a user names, files, folders, patterns, playlists, to tracks."""

import glob
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from htdemucs.audio.failures import printable
from htdemucs.errors import AudioError

_AUDIO = (
    "aac ac3 aif aiff alac amr ape au caf dsf dts eac3 flac m4a m4b mka mp2 mp3 mpc oga ogg opus "
    "ra snd spx tak tta w64 wav wma wv"
)
_VIDEO = "3gp avi flv m4v mkv mov mp4 mpeg mpg ogv rm webm wmv"
# Taken from folders; a file that is named is tried whatever it is called.
EXTENSIONS = frozenset(f".{name}" for name in f"{_AUDIO} {_VIDEO}".split())
PLAYLISTS = frozenset({".m3u", ".m3u8"})
_GLOB = frozenset("*?[")


@dataclass(frozen=True)
class Track:
    """A file to separate.

    Attributes:
        path: of the file.
        folder: where it lies below the folder that was named; its stems go to the same place below
            the output folder.
        origin: if the file is a copy: where it is from, for the manifest.
    """

    path: Path
    folder: PurePath = field(default_factory=PurePath)
    origin: Mapping[str, Any] = field(default_factory=dict)


def find_tracks(
    words: Iterable[str | os.PathLike[str]], without: Path | None = None
) -> Iterator[Track | AudioError]:
    """The tracks that words name, each file once, in the order of the words and then of names.

    A word is a file, a folder (everything in it that is called like audio or video, recursively,
    hidden files left out), a pattern such as `album/*.flac`, or a playlist (.m3u, .m3u8). What
    leads nowhere is given as the error that says so; it stops nothing.

    Args:
        words: what is named.
        without: a folder to leave out: that of the stems.
    """
    seen: set[Path] = set()
    for word in words:
        for track in _tracks(Path(word), without):
            if isinstance(track, Track):
                real = Path(os.path.realpath(track.path))
                if real in seen:
                    continue
                seen.add(real)
            yield track


def _tracks(path: Path, without: Path | None) -> Iterator[Track | AudioError]:
    try:
        if path.is_dir():
            yield from _in_folder(path, without)
        elif path.suffix.lower() in PLAYLISTS and path.is_file():
            yield from _in_playlist(path, without)
        elif not os.path.lexists(path) and _GLOB & set(str(path)):
            yield from _matching(str(path), without)
        else:
            yield Track(path)
    except (OSError, ValueError) as error:
        yield AudioError(f"{printable(path)} cannot be read: {getattr(error, 'strerror', error)}")


def _in_folder(top: Path, without: Path | None) -> Iterator[Track | AudioError]:
    closed = Path(os.path.realpath(without)) if without else None
    entered: set[str] = set()  # real paths: links may lead around in circles
    problems: list[OSError] = []
    count = 0
    for place, folders, files in os.walk(top, onerror=problems.append, followlinks=True):
        real = os.path.realpath(place)
        if real in entered or (closed and Path(real) == closed):
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(place, name)
            if name.startswith(".") or path.suffix.lower() not in EXTENSIONS:
                continue
            if path.is_file():  # no devices, no pipes, no links that lead nowhere
                count += 1
                yield Track(path, path.parent.relative_to(top))
    for problem in problems:
        yield AudioError(f"{printable(Path(problem.filename))} cannot be read: {problem.strerror}")
    if not count and not problems:
        yield AudioError(f"{printable(top)} holds no audio files; name another folder")


def _in_playlist(path: Path, without: Path | None) -> Iterator[Track | AudioError]:
    text = path.read_bytes()
    try:
        lines = text.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        lines = text.decode("latin-1").splitlines()
    entries = [line.strip() for line in lines]
    entries = [entry for entry in entries if entry and not entry.startswith("#")]
    if not entries:
        yield AudioError(f"{printable(path)} lists no tracks; check the playlist")
    for entry in entries:
        if "://" in entry:
            yield AudioError(f"{printable(Path(entry))} is not a file; download it first")
            continue
        listed = path.parent / entry
        if listed.suffix.lower() in PLAYLISTS or listed.is_dir():
            yield AudioError(f"{printable(listed)}, in {printable(path)}, is no track; name it")
        elif without is None or not _lies_in(listed, without):
            yield Track(listed)


def _matching(pattern: str, without: Path | None) -> Iterator[Track | AudioError]:
    found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  absolute ones too
    if not found:
        yield AudioError(f"{printable(Path(pattern))} matches no file; check the pattern")
    for name in found:
        path = Path(name)
        if path.is_file() and not (without and _lies_in(path, without)):
            yield Track(path)


def _lies_in(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
