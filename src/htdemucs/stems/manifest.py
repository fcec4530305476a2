"""`htdemucs.json`, the manifest beside a track's stems, which records how they were made.

With it a finished track is skipped, and stems that this package wrote are not taken for songs.
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
from htdemucs.results import TrackResult
from htdemucs.separation import Separator
from htdemucs.stems.output_options import OutputOptions
from htdemucs.stems.paths import OutputPaths

FORMAT = "htdemucs-track"
FORMAT_VERSION = 1
MAX_SIZE = 1 << 20  # bytes; larger files are not manifests
Document = Mapping[str, Any]  # a manifest, or one of its runs


@dataclass(frozen=True)
class RunFingerprint:
    """Everything that a track's files depend on, except the track.

    Attributes:
        model: its name and its hashes.
        separation: the settings of the separator.
        output: the fields of the `OutputOptions`.
    """

    model: Mapping[str, Any]
    separation: Mapping[str, Any]
    output: Mapping[str, Any]

    @classmethod
    def of(cls, separator: Separator, options: OutputOptions) -> "RunFingerprint":
        """Return the fingerprint of runs with a separator and output options."""
        name = separator.origin.name if separator.origin else None
        return cls(
            model={"name": name, "sha256": separator.weights_sha256},
            separation=separator.settings(),
            output=dataclasses.asdict(options),
        )

    def stems_key(self, source_sha256: str) -> str:
        """Return a key for the network's stems of a track, whatever their format."""
        return _digest(source_sha256, self.output["align"], self.model, self.separation, versions())

    def key(self, source_sha256: str) -> str:
        """Return a key for the files of a track."""
        return _digest(self.stems_key(source_sha256), self.output)


def _digest(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def file_fingerprint(path: Path) -> dict[str, Any]:
    """Return size, time and hash of a file."""
    status = path.stat()
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": sha256(path)}


def matches_fingerprint(path: Path, fingerprint: Any) -> bool:
    """Whether a file matches its `file_fingerprint`. The hash is computed only if times differ."""
    if not isinstance(fingerprint, dict):
        return False
    try:
        status = path.stat()
        if not path.is_file() or status.st_size != fingerprint.get("bytes"):
            return False
        if status.st_mtime_ns == fingerprint.get("mtime_ns"):
            return True
        return sha256(path) == fingerprint.get("sha256")
    except OSError:
        return False


def track_fingerprint(track: Path, manifest: Document | None) -> dict[str, Any]:
    """Return a track's fingerprint. Its hash is not computed if the manifest has it.

    Raises:
        AudioError: the track cannot be read.
    """
    check_regular_file(track)
    source = (manifest or {}).get("source")
    with audio_errors(track, "cannot be read", "check the file"):
        status = track.stat()
        if (
            isinstance(source, dict)
            and source.get("path") == str(track.absolute())
            and source.get("bytes") == status.st_size
            and source.get("mtime_ns") == status.st_mtime_ns
            and isinstance(source.get("sha256"), str)
        ):
            return {name: source[name] for name in ("bytes", "mtime_ns", "sha256")}
        return file_fingerprint(track)


def write_manifest(
    result: TrackResult,
    source: Document,
    run: RunFingerprint,
    paths: OutputPaths,
    previous: Document | None = None,
) -> None:
    """Write the manifest of a separated track; it appears only when it is complete.

    Args:
        result: the result of the separation.
        source: the track: its fingerprint, its "path", and the "version" of a remote file.
        run: how the files were made.
        paths: where the manifest and the files are.
        previous: the manifest there. Its runs with other files are kept, as "earlier".

    Raises:
        AudioError: the manifest cannot be written.
    """
    manifest = _to_manifest(result, source, run, paths.manifest.parent)
    if earlier := list(_runs_with_other_files(previous, _paths(manifest["files"]))):
        manifest["earlier"] = earlier
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    with (
        audio_errors(paths.manifest, "cannot be written", "check its folder and the free space"),
        atomic_write(paths.manifest) as partial,
    ):
        partial.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def _to_manifest(
    result: TrackResult, source: Document, run: RunFingerprint, folder: Path
) -> dict[str, Any]:
    """Return the manifest of a result, for a file in `folder`."""
    fields = result.to_dict()
    source_length = fields.pop("source_length")
    for name in ("track", "status", "error", "manifest"):
        del fields[name]
    fields["files"] = {
        name: {
            "path": Path(os.path.relpath(path, folder)).as_posix(),
            **file_fingerprint(Path(path)),
        }
        for name, path in result.files.items()
    }
    fields |= {name: round(fields[name], 3) for name in ("seconds", "resumed")}
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "key": run.key(str(source["sha256"])),
        "source": {**source, "length": source_length},
        **fields,
        **dataclasses.asdict(run),
        "versions": versions(),
    }


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Return a track's manifest; None if it does not exist or is not valid."""
    try:
        return parse_manifest(path.read_bytes()) if path.stat().st_size <= MAX_SIZE else None
    except (OSError, ValueError):
        return None


def parse_manifest(data: bytes) -> dict[str, Any] | None:
    """Return the contents of a manifest; None if it is not valid."""
    try:
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        return None
    return document if _is_run(document) and isinstance(document.get("source"), dict) else None


def find_run(manifest: Document | None, key: str) -> Document | None:
    """Return the run with this key, be it the latest or an earlier one; None if there is none."""
    return next((run for run in _runs(manifest) if run["key"] == key), None)


def written_files(manifest: Document, folder: Path) -> set[Path]:
    """Return the paths of all files that a manifest in `folder` lists."""
    return {
        Path(os.path.normpath(folder / path))
        for run in _runs(manifest)
        for path in _paths(run["files"])
    }


def _runs(manifest: Document | None) -> Iterator[Document]:
    """Yield the latest run of a manifest, then earlier ones."""
    if manifest is None:
        return
    yield manifest
    earlier = manifest.get("earlier")
    yield from filter(_is_run, earlier if isinstance(earlier, list) else [])


def _is_run(value: Any) -> bool:
    kinds = {"key": str, "files": dict, "duration": float, "gain": float}
    return isinstance(value, dict) and all(
        isinstance(value.get(name), kind) for name, kind in kinds.items()
    )


def _runs_with_other_files(manifest: Document | None, paths: set[str]) -> Iterator[Document]:
    """Yield the runs of a manifest that wrote none of these files."""
    for run in _runs(manifest):
        if not _paths(run["files"]) & paths:
            of_manifest = ("earlier", "format", "version", "source")
            yield {name: value for name, value in run.items() if name not in of_manifest}


def _paths(files: Mapping[str, Any]) -> set[str]:
    paths = {entry.get("path") for entry in files.values() if isinstance(entry, dict)}
    return {path for path in paths if isinstance(path, str)}
