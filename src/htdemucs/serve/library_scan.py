"""Scanning the library folder: its tracks and stems are on the page, whoever put them there."""

import os
from collections.abc import Iterator, KeysView
from pathlib import Path
from typing import Any, NamedTuple

from htdemucs.batch import read_manifest
from htdemucs.batch.inputs import EXTENSIONS, manifest_paths, walk
from htdemucs.serve.db import DELETED, TRACKS, Row
from htdemucs.serve.settings import Settings
from htdemucs.serve.tracks import Tracks, storable_text, tag_columns
from htdemucs.stems.manifest import written_files

T = TRACKS.c
STEM_FILE = "stem file"  # key of a .stem.mp4 in a manifest, which has all stems in one file
MANIFEST = "htdemucs.json"  # with the default names of stems
MAX_ADDED = 500  # tracks in one change


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
        """Add new tracks, update those that were separated again, and delete missing ones."""
        separated, songs = self._find()
        rows = self._tracks.rows(T.kind == "library")
        uploads = self._tracks.rows(T.kind == "upload", T.manifest.is_not(None))
        busy = {  # folders in which a worker is writing stems
            Path(row["manifest"]).parent
            for row in (*rows, *uploads)
            if row["state"] == "separating" and row["manifest"]
        }
        songs = {path: mtime for path, mtime in songs.items() if Path(path).parent not in busy}
        sources = {item.columns["path"] for item in separated.values()}
        new = [
            *self._new_separated(separated, rows, uploads),
            *self._new_songs(songs, rows, sources),
        ]
        for start in range(0, len(new), MAX_ADDED):
            self._tracks.add_all([row | _tags(row) for row in new[start : start + MAX_ADDED]])
        self._delete_missing(rows, separated.keys(), songs.keys())

    def _find(self) -> tuple[dict[str, SeparatedTrack], dict[str, int]]:
        """Return the separated tracks by manifest, and other songs by path with their mtime_ns."""
        top = self._settings.library
        real, data = os.path.realpath(top), Path(os.path.realpath(self._settings.data))
        excluded = [] if Path(real).is_relative_to(data) else [data]
        folders = [
            (folder, names)
            for folder, names in walk(top, excluded, [])
            if Path(os.path.realpath(folder)).is_relative_to(real)  # not a link that leads out
        ]
        manifests = {path: self._read_manifest(path) for path in manifest_paths(folders)}
        self._manifests = {path: manifest for path, manifest in manifests.items() if manifest}
        separated: dict[str, SeparatedTrack] = {}
        written: set[Path] = set()
        for path, (mtime_ns, document) in self._manifests.items():
            if document:
                written |= written_files(document, path.parent)
                if columns := _columns(path, document, real):
                    source = document["source"].get("path")
                    columns |= {"manifest_mtime_ns": mtime_ns}
                    separated[str(path)] = SeparatedTrack(columns, source)
        # Other files in a folder with a manifest are stems of earlier runs.
        stem_folders = {path.parent for path in manifests if path.name == MANIFEST} - {top}
        songs = {}
        for folder, names in folders:
            for name in sorted(names) if folder not in stem_folders else ():
                path = folder / name
                is_audio = path.suffix.lower() in EXTENSIONS and not name.startswith(".")
                if (
                    is_audio
                    and _is_inside(path, real)
                    and Path(os.path.normpath(path)) not in written
                ):
                    songs[str(path)] = path.stat().st_mtime_ns
        return separated, songs

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
        self, songs: dict[str, int], rows: list[Row], sources: set[str]
    ) -> Iterator[Row]:
        """Yield rows of new songs without stems."""
        live = {row["path"] for row in rows if row["state"] != DELETED}
        deleted = {
            (row["path"], row["manifest_mtime_ns"]) for row in rows if row["state"] == DELETED
        }
        for path, mtime_ns in songs.items():
            if path not in live and path not in sources and (path, mtime_ns) not in deleted:
                yield {
                    "kind": "library",
                    "state": "unseparated",
                    "path": path,
                    "name": Path(path).name,
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


def _tags(row: Row) -> dict[str, str | None]:
    """Return the tags of a track; if its own file is gone, artist and album of a stem."""
    if row.get("path"):
        return tag_columns(Path(row["path"]))
    first = next(iter(row["files"].values()))["path"]
    return tag_columns(Path(first)) | {"title": None}
