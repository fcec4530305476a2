"""How the work on each track ended."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from htdemucs.audio.ffmpeg import printable, reason
from htdemucs.events import Event, Failed, Finished, results

Status = Literal["separated", "skipped", "failed"]
STATUSES: tuple[Status, ...] = ("separated", "skipped", "failed")


@dataclass(frozen=True)
class Outcome:
    """How the work on a track ended.

    Attributes:
        track: its path or URL.
        status: separated now, skipped because it was finished before, or failed.
        reason: of a failure, in one line.
        files: path or URL of each file by its stem's name.
        manifest: path or URL of the track's manifest.
        duration: seconds of audio.
        seconds: of work.
        resumed: seconds of audio that an earlier attempt had finished.
        gain: factor on all stems, below 1 where one would clip.
        warnings: sentences about what was unusual or damaged in the track.
    """

    track: str
    status: Status
    reason: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    manifest: str | None = None
    duration: float | None = None
    seconds: float = 0.0
    resumed: float = 0.0
    gain: float | None = None
    warnings: tuple[str, ...] = ()

    def events(self) -> Iterator[Event]:
        """Yield the events that tell it."""
        if self.status == "failed":
            yield Failed(self.track or None, self.reason or "")
            return
        finished = Finished(
            track=self.track,
            status=self.status,
            files=dict(self.files),
            duration=self.duration,
            seconds=self.seconds,
            resumed=self.resumed,
            gain=self.gain,
        )
        yield from results(finished, self.warnings)


def failed(track: str | None, error: Exception) -> Outcome:
    """Return the outcome of a track that cannot be separated, for a reason we expect."""
    return Outcome(track=track or "", status="failed", reason=str(error))


def failed_unexpectedly(track: str, error: Exception) -> Outcome:
    """Return the outcome of a track that met a mistake of ours, or no memory."""
    kind = type(error).__name__
    return failed(
        track,
        RuntimeError(
            f"{printable(Path(track))}: unexpected {kind} ({reason(error)}); please report it"
        ),
    )


def summary(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Return counts and every outcome as JSON can hold them."""
    tracks = list(outcomes)
    counts: dict[str, Any] = {s: sum(o.status == s for o in tracks) for s in STATUSES}
    return {
        "format": "htdemucs-summary",
        "version": 1,
        **counts,
        "duration": sum((o.duration or 0.0 for o in tracks if o.status == "separated"), 0.0),
        "tracks": [asdict(outcome) for outcome in tracks],
    }
