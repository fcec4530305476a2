"""The library folder: what is in it, whoever made it, is on the page too.

MERGED: What is done from time to time: the library is looked through, old things go.
"""

import logging
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from htdemucs.batch import read_manifest
from htdemucs.batch.inputs import EXTENSIONS, manifest_paths, walk
from htdemucs.errors import HTDemucsError
from htdemucs.fast import use_this_thread_only
from htdemucs.serve.app_state import Service
from htdemucs.serve.db import DELETED, TRACKS, Tracks, Values, clean, now, tags
from htdemucs.serve.settings import Settings
from htdemucs.stems.manifest import written_files

T = TRACKS.c
STEM_FILE = "stem file"  # all stems in one, for DJ programs
MANIFEST = "htdemucs.json"  # with the usual names of stems
MOST_ADDED = 500  # tracks in one change


class Finished(NamedTuple):
    """A finished track of the library: columns of its row, and what it was made from."""

    columns: Values
    source: str | None


class Scanner:
    """Compares the library folder with the list of tracks."""

    def __init__(self, settings: Settings, tracks: Tracks) -> None:
        self._settings, self._tracks = settings, tracks
        self._documents: dict[Path, tuple[int, dict[str, Any] | None]] = {}  # by mtime_ns

    def scan(self) -> None:
        """Add what is new, change what was separated anew, take off what is gone."""
        separated, found = self._look()
        rows = self._tracks.all(T.kind == "library")
        uploads = self._tracks.all(T.kind == "upload", T.place.is_not(None))
        busy = {
            Path(row["place"]).parent
            for row in (*rows, *uploads)
            if row["state"] == "separating" and row["place"]
        }  # their stems are appearing
        found = {path: stamp for path, stamp in found.items() if Path(path).parent not in busy}
        news = [
            *self._separated(separated, rows, uploads),
            *self._found(found, rows, {item.columns["path"] for item in separated.values()}),
        ]
        for start in range(0, len(news), MOST_ADDED):
            self._tracks.add_all([row | _tags(row) for row in news[start : start + MOST_ADDED]])
        self._take_off(rows, separated.keys(), found.keys())

    def _look(self) -> tuple[dict[str, Finished], dict[str, int]]:
        """Return the finished tracks by place, and the times of songs that nobody separated."""
        top = self._settings.library
        real, data = os.path.realpath(top), Path(os.path.realpath(self._settings.data))
        closed = [] if Path(real).is_relative_to(data) else [data]
        folders = [
            (folder, names)
            for folder, names in walk(top, closed, [])
            if Path(os.path.realpath(folder)).is_relative_to(real)  # a link may lead elsewhere
        ]
        documents = {path: self._manifest(path) for path in manifest_paths(folders)}
        self._documents = {path: about for path, about in documents.items() if about}
        separated: dict[str, Finished] = {}
        written: set[Path] = set()
        for path, (stamp, document) in self._documents.items():
            if document:
                written |= written_files(document, path.parent)
                if columns := _columns(path, document, real):
                    source = document["source"].get("path")
                    separated[str(path)] = Finished(columns | {"stamp": stamp}, source)
        # A folder with a manifest is one track's: what else is there are stems of earlier runs.
        stems = {path.parent for path in documents if path.name == MANIFEST} - {top}
        songs = _songs([item for item in folders if item[0] not in stems], real)
        found = {str(p): time for p, time in songs if Path(os.path.normpath(p)) not in written}
        return separated, found

    def _manifest(self, path: Path) -> tuple[int, dict[str, Any] | None] | None:
        """Return a manifest and its time; one that has not changed is not read again."""
        try:
            stamp = path.stat().st_mtime_ns
            _utf8(path)
        except (OSError, ValueError):
            return None
        known = self._documents.get(path)
        return known if known and known[0] == stamp else (stamp, read_manifest(path))

    def _separated(
        self, separated: dict[str, Finished], rows: list[Values], uploads: list[Values]
    ) -> Iterator[Values]:
        """Yield rows for finished tracks that are new; change those that are not."""
        by_place: dict[str, list[Values]] = {}
        for row in (*rows, *uploads):
            by_place.setdefault(row["place"] or "", []).append(row)
        waiting = {str(row["path"]): row for row in rows if row["state"] == "found"}
        for place, item in separated.items():
            known, about = by_place.get(place, []), item.columns
            live = [row for row in known if row["state"] != DELETED]
            changed = (row for row in live if row["stamp"] != about["stamp"])
            for row in changed:
                if (row["kind"], row["state"]) == ("library", "finished"):
                    self._tracks.change(row["id"], ranges=[], **about)
            if live or any(_is_buried(row, item) for row in known):
                continue
            values = {"state": "finished", "place": place, "ranges": [], **about}
            path = str(about["path"])
            if path in waiting:
                self._tracks.change(waiting[path]["id"], T.state == "found", **values)
                waiting[path].update(values)  # so that it is not taken off
            else:
                yield {"kind": "library", **values}

    def _found(
        self, found: dict[str, int], rows: list[Values], sources: set[str]
    ) -> Iterator[Values]:
        live = {row["path"] for row in rows if row["state"] != DELETED}
        buried = {(row["path"], row["stamp"]) for row in rows if row["state"] == DELETED}
        for path, stamp in found.items():
            if path not in live and path not in sources and (path, stamp) not in buried:
                name = Path(path).name
                yield {
                    "kind": "library", "state": "found", "path": path, "name": name,
                    "stamp": stamp,
                }  # fmt: skip

    def _take_off(self, rows: list[Values], places: Any, songs: Any) -> None:
        for row in rows:
            gone = {"found": row["path"] not in songs, "finished": row["place"] not in places}
            if gone.get(row["state"], False):
                # Without a stamp: what comes back later is shown again.
                self._tracks.change(
                    row["id"], T.state == row["state"], state=DELETED, stamp=None, ranges=[]
                )


def _is_buried(row: Values, item: Finished) -> bool:
    """Whether a deleted track is what a manifest tells of, and not of a later separation."""
    if row["kind"] == "upload" and row["stamp"] is None:  # deleted before it was finished
        return bool(row["path"] == item.source)
    return bool(row["stamp"] == item.columns["stamp"])


def _columns(path: Path, document: dict[str, Any], real: str) -> Values | None:
    """Return the columns of a finished track; None if none of its files is there."""
    files = {}
    for stem, entry in document["files"].items():
        file = Path(os.path.normpath(path.parent / str(entry.get("path"))))
        if _is_inside(file, real):
            files[clean(stem)] = {"path": str(file), "bytes": file.stat().st_size}
    if not files:
        return None
    source = Path(str(document["source"].get("path") or path.parent))
    rate, length = document.get("sample_rate"), document.get("length")
    model = document.get("model")
    return {
        "name": clean(source.name) or path.parent.name,
        "path": str(source) if _is_as_told(source, document["source"]) else None,
        "files": files,
        "stems": [stem for stem in files if stem != STEM_FILE],
        "model": clean(str(model.get("name"))) if isinstance(model, dict) else None,
        "sample_rate": rate if isinstance(rate, int) and rate > 0 else None,
        "frames": length if isinstance(length, int) and length > 0 else None,
        "done": document["duration"],
        "warnings": [clean(str(text)) for text in document.get("warnings") or []],
    }


def _is_as_told(source: Path, told: dict[str, Any]) -> bool:
    """Whether a manifest's track is there, unchanged: a forged one knows no other files' times."""
    try:
        status = source.stat()
        _utf8(source)
    except (OSError, ValueError):
        return False
    return (status.st_size, status.st_mtime_ns) == (told.get("bytes"), told.get("mtime_ns"))


def _songs(folders: list[tuple[Path, list[str]]], real: str) -> Iterator[tuple[Path, int]]:
    for folder, names in folders:
        for name in sorted(names):
            path = folder / name
            is_song = path.suffix.lower() in EXTENSIONS and not name.startswith(".")
            if is_song and _is_inside(path, real):
                yield path, path.stat().st_mtime_ns


def _is_inside(path: Path, real: str) -> bool:
    """Whether a file is there, in the library, with a name that every program can read."""
    try:
        _utf8(path)
        return path.is_file() and Path(os.path.realpath(path)).is_relative_to(real)
    except (OSError, ValueError):
        return False


def _utf8(path: Path) -> None:
    """Raise a ValueError if a path's name is not Unicode: no database takes it."""
    str(path).encode("utf-8")


def _tags(row: Values) -> dict[str, str | None]:
    """Return what the track's tags say; its stems' know artist and album too."""
    if row.get("path"):
        return tags(Path(row["path"]))
    first = next(iter(row["files"].values()))["path"]
    return tags(Path(first)) | {"title": None}


LOG = logging.getLogger(__name__)
EVERY = 20.0  # seconds
DAY = 24 * 3600.0  # seconds


class Maintenance:
    """A thread of its own, from the server's start to its end."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._scanner = Scanner(service.settings, service.tracks)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="housekeeping", daemon=True)

    def start(self) -> None:
        """Begin; uploads may come only after this."""
        self._remove_strays(self._service.settings.uploads)
        self._thread.start()

    def stop(self) -> None:
        """End after the round that is under way."""
        self._stopping.set()
        self._thread.join(10)

    def _work(self) -> None:
        use_this_thread_only()
        while True:
            try:
                self.scan()
                self.expire()
                self.sweep()
                self._service.filler.make_room("")
            except Exception:  # the disk or the database may be away for a while
                LOG.exception("housekeeping")
            if self._stopping.wait(EVERY):
                return

    def scan(self) -> None:
        """Bring the list in line with the library folder."""
        self._scanner.scan()

    def expire(self) -> None:
        """Delete uploaded tracks that ended long ago."""
        days = self._service.settings.limits.keep_days
        if days is None:
            return
        old = (TRACKS.c.kind == "upload", TRACKS.c.ended < now() - days * DAY)
        for row in self._service.tracks.all(*old, TRACKS.c.state != DELETED):
            try:
                self._service.deletion.delete(row["id"], *old)
            except HTDemucsError:  # deleted or queued again meanwhile
                continue

    def sweep(self) -> None:
        """Remove what is left of deleted tracks."""
        self._service.deletion.sweep()
        self._remove_strays(self._service.settings.previews)

    def _remove_strays(self, top: Path) -> None:
        """Remove the folders of unknown tracks, which a crash may have left."""
        folders = list(top.iterdir())  # listed first: a track is added before its preview
        live = {row["id"] for row in self._service.tracks.all(TRACKS.c.state != DELETED)}
        for folder in folders:
            if folder.name not in live:
                shutil.rmtree(folder, ignore_errors=True)
