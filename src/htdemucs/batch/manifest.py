"""The file beside a track's stems that tells how they were made: `htdemucs.json`.

By it, and not by names, is known whether a track needs to be separated again.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from htdemucs.audio.decoding import check_regular_file
from htdemucs.audio.failures import reporting
from htdemucs.files import replacing
from htdemucs.provenance import sha256, versions
from htdemucs.separation import OutputOptions, Separator
from htdemucs.separation.files import SeparatedFile
from htdemucs.separation.naming import Places

FORMAT = "htdemucs-track"
FORMAT_VERSION = 1
MAX_SIZE = 1 << 20  # bytes; no manifest of ours is larger


@dataclass(frozen=True)
class Recipe:
    """Everything but the track that its stems depend on.

    Attributes:
        model: name and hash of each of its files.
        separation: settings of the separator.
        output: what is written, and how.
    """

    model: Mapping[str, Any]
    separation: Mapping[str, Any]
    output: Mapping[str, Any]

    @classmethod
    def of(
        cls, name: str, hashes: Mapping[str, str], separator: Separator, options: OutputOptions
    ) -> "Recipe":
        """Of a model's name and the hashes of its files, and what is done with it."""
        return cls(
            model={"name": name, "sha256": dict(hashes)},
            separation=separator.settings(),
            output=dataclasses.asdict(options),
        )

    def stems_key(self, source: str) -> str:
        """Names what the network makes of the file with this hash; the same for every format."""
        return _digest(source, self.model, self.separation, versions())

    def key(self, source: str) -> str:
        """Names what is written for the file with this hash."""
        return _digest(self.stems_key(source), self.output)


def fingerprint(path: Path) -> dict[str, Any]:
    """What tells quickly whether a file is still the same, and its hash."""
    status = path.stat()
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": sha256(path)}


def is_same(path: Path, known: Any) -> bool:
    """Whether a file is the one of a `fingerprint`: the hash is computed if times differ."""
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
    track: Path,
    source: Mapping[str, Any],
    recipe: Recipe,
    places: Places,
    separated: SeparatedFile,
    seconds: float,
) -> None:
    """Write the manifest of a track that is separated; it appears only when whole.

    Raises:
        AudioError: it cannot be written.
    """
    here = places.manifest.parent
    document = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "key": recipe.key(str(source["sha256"])),
        "source": {
            "path": str(track.absolute()),
            **source,
            "length": separated.source_length,
        },
        "files": {
            name: {"path": os.path.relpath(path, here), **fingerprint(path)}
            for name, path in separated.files.items()
        },
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
    text = json.dumps(document, indent=2, ensure_ascii=False)
    with (
        reporting(places.manifest, "cannot be written", "check its folder and the free space"),
        replacing(places.manifest) as partial,
    ):
        partial.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def read_manifest(path: Path) -> dict[str, Any] | None:
    """A track's manifest; None if there is none that can be read."""
    try:
        return parse_manifest(path.read_bytes()) if path.stat().st_size <= MAX_SIZE else None
    except (OSError, ValueError):
        return None


def parse_manifest(data: bytes) -> dict[str, Any] | None:
    """The contents of a manifest; None if this is none."""
    try:
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    kinds = {"key": str, "source": dict, "files": dict, "duration": float, "levels": dict}
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        return None
    held = all(isinstance(document.get(name), kind) for name, kind in kinds.items())
    return document if held else None


def finished_files(document: Mapping[str, Any], key: str, targets: Mapping[str, Path]) -> bool:
    """Whether the manifest is of this work, and every file is there as it was written."""
    files = document["files"]
    if document["key"] != key or files.keys() != targets.keys():
        return False
    return all(is_same(path, files[name]) for name, path in targets.items())


def source_hash(track: Path, document: Mapping[str, Any] | None) -> dict[str, Any]:
    """The track's fingerprint, from its manifest if that knows this very file.

    Raises:
        AudioError: it cannot be read.
    """
    check_regular_file(track)
    known = (document or {}).get("source")
    with reporting(track, "cannot be read", "check the file"):
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


def _digest(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
