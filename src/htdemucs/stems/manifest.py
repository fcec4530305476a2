"""`htdemucs.json`, the manifest beside a track's stems: how they were made.

It tells whether a track is finished, whose stems lie in a folder, and which files we wrote.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from htdemucs.audio.ffmpeg import audio_errors
from htdemucs.audio.read import check_regular_file
from htdemucs.environment import sha256, versions
from htdemucs.fsutil import atomic_write
from htdemucs.separation import Separator
from htdemucs.stems.output_options import OutputOptions
from htdemucs.stems.paths import OutputPaths
from htdemucs.stems.track import SeparatedFile

FORMAT = "htdemucs-track"
FORMAT_VERSION = 1
MAX_SIZE = 1 << 20  # bytes; no manifest of ours is larger
Document = Mapping[str, Any]  # a manifest, or one of its runs


@dataclass(frozen=True)
class RunFingerprint:
    """Everything but the track that its files depend on.

    Attributes:
        model: name and the hash of each of its files.
        separation: settings of the separator.
        output: fields of the `OutputOptions`.
    """

    model: Mapping[str, Any]
    separation: Mapping[str, Any]
    output: Mapping[str, Any]

    @classmethod
    def of(cls, separator: Separator, options: OutputOptions) -> "RunFingerprint":
        """Return the recipe for a separator and output options."""
        name = separator.origin.name if separator.origin else None
        return cls(
            model={"name": name, "sha256": separator.weights_sha256},
            separation=separator.settings(),
            output=dataclasses.asdict(options),
        )

    def stems_key(self, source: str) -> str:
        """Return a name for the network's stems of the track with this hash, in any format."""
        return _digest(source, self.output["align"], self.model, self.separation, versions())

    def key(self, source: str) -> str:
        """Return a name for the files of the track with this hash."""
        return _digest(self.stems_key(source), self.output)


def fingerprint(path: Path) -> dict[str, Any]:
    """Return size, time and hash of a file."""
    status = path.stat()
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": sha256(path)}


def is_same(path: Path, known: Any) -> bool:
    """Whether a file is still as a `fingerprint` says: its hash is computed if times differ."""
    if not isinstance(known, dict):
        return False
    try:
        status = path.stat()
        if not path.is_file() or status.st_size != known.get("bytes"):
            return False
        return status.st_mtime_ns == known.get("mtime_ns") or sha256(path) == known.get("sha256")
    except OSError:
        return False


def write_manifest(
    source: Document,
    recipe: RunFingerprint,
    places: OutputPaths,
    separated: SeparatedFile,
    seconds: float,
    known: Document | None = None,
) -> None:
    """Write the manifest of a separated track; it appears only when whole.

    Args:
        source: the track: its `fingerprint`, its "path", and the "version" of a file elsewhere.
        recipe: how its files were made.
        places: where they are.
        separated: the files.
        seconds: that it took.
        known: the manifest that was there: what it says of other files is kept, as "earlier".

    Raises:
        AudioError: it cannot be written.
    """
    here = places.manifest.parent
    files = {
        name: {"path": Path(os.path.relpath(path, here)).as_posix(), **fingerprint(path)}
        for name, path in separated.files.items()
    }
    document = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "key": recipe.key(str(source["sha256"])),
        "source": {**source, "length": separated.source_length},
        "files": files,
        "sample_rate": separated.sample_rate,
        "length": separated.length,
        "duration": separated.length / separated.sample_rate,
        "bit_depth": separated.bit_depth,
        "levels": {"gain": separated.gain, "peaks": separated.peaks},
        "warnings": list(separated.warnings),
        **dataclasses.asdict(recipe),
        "versions": versions(),
        "run": {"seconds": round(seconds, 3), "resumed": round(separated.resumed, 3)},
    }
    if earlier := list(_untouched(known, _paths(files))):
        document["earlier"] = earlier
    text = json.dumps(document, indent=2, ensure_ascii=False)
    with (
        audio_errors(places.manifest, "cannot be written", "check its folder and the free space"),
        atomic_write(places.manifest) as partial,
    ):
        partial.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Return a track's manifest; None if there is none that can be read."""
    try:
        return parse_manifest(path.read_bytes()) if path.stat().st_size <= MAX_SIZE else None
    except (OSError, ValueError):
        return None


def parse_manifest(data: bytes) -> dict[str, Any] | None:
    """Return the contents of a manifest; None if these bytes are none."""
    try:
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        return None
    return document if _is_run(document) and isinstance(document.get("source"), dict) else None


def find_run(document: Document | None, key: str) -> Document | None:
    """Return the run with this key, the latest or an earlier one; None if there is none."""
    return next((run for run in _runs(document) if run["key"] == key), None)


def written_files(document: Document, folder: Path) -> set[Path]:
    """Return the paths of all files that a manifest in `folder` says we wrote."""
    return {
        Path(os.path.normpath(folder / path))
        for run in _runs(document)
        for path in _paths(run["files"])
    }


def source_fingerprint(track: Path, document: Document | None) -> dict[str, Any]:
    """Return the track's fingerprint, from its manifest if that knows this very file.

    Raises:
        AudioError: it cannot be read.
    """
    check_regular_file(track)
    known = (document or {}).get("source")
    with audio_errors(track, "cannot be read", "check the file"):
        status = track.stat()
        if (
            isinstance(known, dict)
            and known.get("path") == str(track.absolute())
            and known.get("bytes") == status.st_size
            and known.get("mtime_ns") == status.st_mtime_ns
            and isinstance(known.get("sha256"), str)
        ):
            return {name: known[name] for name in ("bytes", "mtime_ns", "sha256")}
        return fingerprint(track)


def _runs(document: Document | None) -> Iterator[Document]:
    """Yield the latest run of a manifest, then earlier ones."""
    if document is None:
        return
    yield document
    earlier = document.get("earlier")
    yield from filter(_is_run, earlier if isinstance(earlier, list) else [])


def _is_run(value: Any) -> bool:
    kinds = {"key": str, "files": dict, "duration": float, "levels": dict}
    return isinstance(value, dict) and all(
        isinstance(value.get(name), kind) for name, kind in kinds.items()
    )


def _untouched(known: Document | None, written: set[str]) -> Iterator[Document]:
    """Yield the runs of a manifest of whose files none has been written anew."""
    for run in _runs(known):
        if not _paths(run["files"]) & written:
            kept = ("earlier", "format", "version", "source")
            yield {name: value for name, value in run.items() if name not in kept}


def _paths(files: Mapping[str, Any]) -> set[str]:
    paths = {about.get("path") for about in files.values() if isinstance(about, dict)}
    return {path for path in paths if isinstance(path, str)}


def _digest(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
