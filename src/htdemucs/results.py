"""The result of separating one track, from which events, table rows and manifests are made."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from htdemucs.errors import HTDemucsError

Status = Literal["separated", "skipped", "failed"]
STATUSES: tuple[Status, ...] = ("separated", "skipped", "failed")


@dataclass(frozen=True)
class TrackResult:
    """The result of separating one track.

    Attributes:
        track: path or URL; "-" is standard input, "" an argument that is not a track.
        status: separated now, skipped because it was finished before, or failed.
        error: the reason for a failure, in one line.
        code: short name of this kind of failure, for programs; None if it has none.
        files: path or URL of each file by the name of its stem.
        manifest: path or URL of the track's manifest.
        duration: seconds of audio; None if unknown.
        seconds: seconds of work.
        resumed: seconds of audio that an earlier attempt had finished.
        sample_rate: Hz of the files.
        length: samples in each file.
        source_length: samples in the track, at the track's own sample rate.
        bit_depth: bits of the files; None in lossy formats.
        gain: factor on all stems, below 1 if one would have clipped; None if unknown.
        peaks: greatest absolute sample of each file before the gain.
        warnings: sentences about what is unusual or damaged in the track.
    """

    track: str
    status: Status
    error: str | None = None
    code: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    manifest: str | None = None
    duration: float | None = None
    seconds: float = 0.0
    resumed: float = 0.0
    sample_rate: int | None = None
    length: int | None = None
    source_length: int | None = None
    bit_depth: int | None = None
    gain: float | None = None
    peaks: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @classmethod
    def of_error(cls, track: str, error: HTDemucsError) -> Self:
        """Return the result of a track that failed."""
        return cls(track, "failed", str(error), error.code)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, as JSON can hold them."""
        return {**asdict(self), "warnings": list(self.warnings)}


def summary(results: Iterable[TrackResult]) -> dict[str, Any]:
    """Return the counts, the duration of what was separated, and every result, for JSON."""
    results = list(results)
    counts: dict[str, Any] = {s: sum(r.status == s for r in results) for s in STATUSES}
    return {
        "format": "htdemucs-summary",
        "version": 1,
        **counts,
        "duration": sum((r.duration or 0.0 for r in results if r.status == "separated"), 0.0),
        "tracks": [result.to_dict() for result in results],
    }


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, such as "1 track" or "2 tracks"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
