"""Scanning the library folder: its tracks and stems are on the page, whoever put them there."""

import os
import time
from collections.abc import Iterable, Iterator, KeysView
from pathlib import Path
from typing import Any, NamedTuple

from htdemucs.batch import read_manifest
from htdemucs.batch.inputs import EXTENSIONS, manifest_paths, walk
from htdemucs.serve.db import DELETED, TRACKS, Row
from htdemucs.serve.settings import Settings
from htdemucs.serve.tracks import Tracks, folder_in, storable_text, tag_columns
from htdemucs.stems.manifest import written_files

T = TRACKS.c
STEM_FILE = "stem file"  # key of a .stem.mp4 in a manifest, which has all stems in one file
MANIFEST = "htdemucs.json"  # with the default names of stems
MAX_ADDED = 100  # tracks in one change
MAX_WAIT = 0.5  # seconds


class SeparatedTrack(NamedTuple):
    """A track with a manifest: columns of its row, and the path of the track's own file."""

    columns: Row
    source: str | None


class Scanner:
    """Compares the library folder with the table of tracks."""

    def __init__(self, settings: Settings, tracks: Tracks) -> None:
        self._settings, self._tracks = settings, tracks
        self._manifests: dict[Path, tuple[int, dict[str, Any] | None]] = {}  # with mtime_ns

    def scan(self) -> None:
        """Add new tracks, update those that were separated again, and delete missing ones.

        New tracks are added while others are still being found.
        """
        top, real = self._settings.library, os.path.realpath(self._settings.library)
        data = Path(os.path.realpath(self._settings.data))
        excluded = [] if Path(real).is_relative_to(data) else [data]
        folders = [
            (folder, names)
            for folder, names in walk(top, excluded, [])
            if Path(os.path.realpath(folder)).is_relative_to(real)  # not a link that leads out
        ]
        separated, written = self._find_separated(folders, real)
        # Other files in a folder with a manifest are stems of earlier runs.
        manifests = [path for path in manifest_paths(folders) if path.name == MANIFEST]
        stem_folders = {path.parent for path in manifests} - {top}
        rows = self._tracks.rows(T.kind == "library")
        uploads = self._tracks.rows(T.kind == "upload", T.manifest.is_not(None))
        busy = {  # folders in which a worker is writing stems
            Path(row["manifest"]).parent
            for row in (*rows, *uploads)
            if row["state"] == "separating" and row["manifest"]
        }
        self._add(self._new_separated(separated, rows, uploads))
        candidates = [
            folder / name
            for folder, names in folders
            if folder not in stem_folders | busy
            for name in sorted(names)
        ]
        songs: dict[str, int] = {}  # mtime_ns by path
        sources = {item.columns["path"] for item in separated.values()}

        def find_songs() -> Iterator[tuple[str, int]]:
            for path in candidates:
                if _is_song(path, real) and Path(os.path.normpath(path)) not in written:
                    songs[str(path)] = path.stat().st_mtime_ns
                    yield str(path), songs[str(path)]

        self._add(self._new_songs(find_songs(), rows, sources))
        self._delete_missing(rows, separated.keys(), songs.keys())

    def _add(self, rows: Iterator[Row]) -> None:
        """Add new rows, with their tags, at most `MAX_WAIT` after they were found."""
        batch: list[Row] = []
        started = time.monotonic()
        for row in rows:
            batch.append(row | _tags(row))
            if len(batch) == MAX_ADDED or time.monotonic() - started > MAX_WAIT:
                self._tracks.add_all(batch)
                batch, started = [], time.monotonic()
        if batch:
            self._tracks.add_all(batch)

    def _find_separated(
        self, folders: list[tuple[Path, list[str]]], library: str
    ) -> tuple[dict[str, SeparatedTrack], set[Path]]:
        """Return the separated tracks by manifest, and all files that manifests name."""
        manifests = {path: self._read_manifest(path) for path in manifest_paths(folders)}
        self._manifests = {path: manifest for path, manifest in manifests.items() if manifest}
        separated: dict[str, SeparatedTrack] = {}
        written: set[Path] = set()
        for path, (mtime_ns, document) in self._manifests.items():
            if document:
                written |= written_files(document, path.parent)
                if columns := _columns(path, document, library):
                    columns["folder"] = self._folder(path, columns["path"])
                    columns["manifest_mtime_ns"] = mtime_ns
                    source = document["source"].get("path")
                    separated[str(path)] = SeparatedTrack(columns, source)
        return separated, written

    def _folder(self, manifest: Path, source: str | None) -> str:
        """Return the folder of a separated track: its file's or, outside the library, its stems'.

        Stems are in `MODEL/FOLDER/TRACK/`.
        """
        library = self._settings.library
        if source and (folder := folder_in(library, Path(source).parent)) is not None:
            return folder
        return (folder_in(library, manifest.parent.parent) or "").partition("/")[2]

    def _read_manifest(self, path: Path) -> tuple[int, dict[str, Any] | None] | None:
        """Return mtime_ns and contents of a manifest, which is read again only if it changed."""
        try:
            mtime_ns = path.stat().st_mtime_ns
            _check_unicode(path)
        except (OSError, ValueError):
            return None
        known = self._manifests.get(path)
        return known if known and known[0] == mtime_ns else (mtime_ns, read_manifest(path))

    def _new_separated(
        self, separated: dict[str, SeparatedTrack], rows: list[Row], uploads: list[Row]
    ) -> Iterator[Row]:
        """Yield rows of separated tracks that are new; update the known ones that changed."""
        by_manifest: dict[str, list[Row]] = {}
        for row in (*rows, *uploads):
            by_manifest.setdefault(row["manifest"] or "", []).append(row)
        unseparated = {str(row["path"]): row for row in rows if row["state"] == "unseparated"}
        for manifest, item in separated.items():
            known, columns = by_manifest.get(manifest, []), item.columns
            live = [row for row in known if row["state"] != DELETED]
            for row in live:
                is_changed = row["manifest_mtime_ns"] != columns["manifest_mtime_ns"]
                if is_changed and (row["kind"], row["state"]) == ("library", "finished"):
                    self._tracks.update(row["id"], ranges=[], **columns)
            if live or any(_is_tombstone_of(row, item) for row in known):
                continue
            values = {"state": "finished", "manifest": manifest, "ranges": [], **columns}
            path = str(columns["path"])
            if path in unseparated:
                row = unseparated[path]
                self._tracks.update(row["id"], T.state == "unseparated", **values)
                row.update(values)  # so that `_delete_missing` keeps it
            else:
                yield {"kind": "library", **values}

    def _new_songs(
        self, songs: Iterable[tuple[str, int]], rows: list[Row], sources: set[str]
    ) -> Iterator[Row]:
        """Yield rows of new songs without stems."""
        live = {row["path"] for row in rows if row["state"] != DELETED}
        deleted = {
            (row["path"], row["manifest_mtime_ns"]) for row in rows if row["state"] == DELETED
        }
        for path, mtime_ns in songs:
            if path not in live and path not in sources and (path, mtime_ns) not in deleted:
                yield {
                    "kind": "library",
                    "state": "unseparated",
                    "path": path,
                    "name": Path(path).name,
                    "folder": folder_in(self._settings.library, Path(path).parent),
                    "manifest_mtime_ns": mtime_ns,
                }

    def _delete_missing(
        self, rows: list[Row], manifests: KeysView[str], songs: KeysView[str]
    ) -> None:
        for row in rows:
            is_missing = {
                "unseparated": row["path"] not in songs,
                "finished": row["manifest"] not in manifests,
            }
            if is_missing.get(row["state"], False):
                # Without its time the tombstone does not hide a file that comes back later.
                deleted: Row = {"state": DELETED, "manifest_mtime_ns": None, "ranges": []}
                self._tracks.update(row["id"], T.state == row["state"], **deleted)


def _is_tombstone_of(row: Row, item: SeparatedTrack) -> bool:
    """Return whether a deleted track was this separation, and not an earlier one."""
    if row["kind"] == "upload" and row["manifest_mtime_ns"] is None:  # deleted before it finished
        return bool(row["path"] == item.source)
    return bool(row["manifest_mtime_ns"] == item.columns["manifest_mtime_ns"])


def _columns(path: Path, document: dict[str, Any], library: str) -> Row | None:
    """Return the columns of a separated track; None if all of its files are missing."""
    files = {}
    for stem, entry in document["files"].items():
        file = Path(os.path.normpath(path.parent / str(entry.get("path"))))
        if _is_inside(file, library):
            files[storable_text(stem)] = {"path": str(file), "bytes": file.stat().st_size}
    if not files:
        return None
    source = Path(str(document["source"].get("path") or path.parent))
    rate, length = document.get("sample_rate"), document.get("length")
    model = document.get("model")
    return {
        "name": storable_text(source.name) or path.parent.name,
        "path": str(source) if _is_as_recorded(source, document["source"]) else None,
        "files": files,
        "stems": [stem for stem in files if stem != STEM_FILE],
        "model": storable_text(str(model.get("name"))) if isinstance(model, dict) else None,
        "sample_rate": rate if isinstance(rate, int) and rate > 0 else None,
        "frames": length if isinstance(length, int) and length > 0 else None,
        "done": document["duration"],
        "warnings": [storable_text(str(text)) for text in document.get("warnings") or []],
    }


def _is_as_recorded(source: Path, recorded: dict[str, Any]) -> bool:
    """Return whether a track is as its manifest recorded it.

    This also protects other files: a forged manifest would have to know their size and time.
    """
    try:
        status = source.stat()
        _check_unicode(source)
    except (OSError, ValueError):
        return False
    known = (recorded.get("bytes"), recorded.get("mtime_ns"))
    return (status.st_size, status.st_mtime_ns) == known


def _is_song(path: Path, library: str) -> bool:
    """Return whether a file of the library has an audio extension and is not hidden."""
    is_audio = path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")
    return is_audio and _is_inside(path, library)


def _is_inside(path: Path, library: str) -> bool:
    """Return whether a file exists in the library and its name is valid Unicode."""
    try:
        _check_unicode(path)
        return path.is_file() and Path(os.path.realpath(path)).is_relative_to(library)
    except (OSError, ValueError):
        return False


def _check_unicode(path: Path) -> None:
    """Raise a ValueError if a name is not valid Unicode, because databases refuse it."""
    str(path).encode("utf-8")


def _tags(row: Row) -> Row:
    """Return the tags of a track; if its own file is gone, artist and album of a stem."""
    if row.get("path"):
        return tag_columns(Path(row["path"]))
    first = next(iter(row["files"].values()))["path"]
    return tag_columns(Path(first)) | {"title": None}
