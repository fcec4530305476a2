"""Playlists as players of every system write them."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from htdemucs.audio.failures import printable
from htdemucs.errors import AudioError

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
