"""Where many tracks go, which of them are done, and what became of each."""

import logging
import time
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from htdemucs.audio import AudioFile
from htdemucs.audio.failures import printable, reason
from htdemucs.batch import manifest
from htdemucs.batch.inputs import Track
from htdemucs.errors import AudioError, HTDemucsError
from htdemucs.separation import OutputOptions, Progress, Separator
from htdemucs.separation.files import Resumption, separate_file
from htdemucs.separation.naming import Places

LOG = logging.getLogger(__name__)
UNEXPECTED = "unexpected"
Status = Literal["separated", "skipped", "failed"]


@dataclass(frozen=True)
class Outcome:
    """What became of a track.

    Attributes:
        track: its path.
        status: separated now, skipped because it was before, or failed.
        reason: of a failure, in one line.
        files: by the name of what they hold.
        manifest: the file that says how they were made.
        duration: seconds of audio.
        seconds: that it took.
        resumed: seconds of audio that an earlier attempt had finished.
        gain: on all stems, so that none clips.
        warnings: what was wrong with the track.
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


@dataclass(frozen=True)
class Job:
    """A track and the place of its files, which is no other track's."""

    track: Track
    places: Places
    number: int


class Library:
    """Where tracks go, and how they get there.

    Args:
        name: of the model.
        hashes: of the model's files.
        options: what is written.
        folder: of the stems.
        skip_existing: leave out tracks whose manifest says that the same was done to the same
            file, and whose stems are as they were written.
    """

    def __init__(
        self,
        name: str,
        hashes: Mapping[str, str],
        options: OutputOptions,
        folder: Path,
        *,
        skip_existing: bool = True,
    ) -> None:
        self.name, self.hashes, self.options = name, dict(hashes), options
        self.folder, self.skip_existing = folder, skip_existing
        self._taken: set[str] = set()
        self._numbers: dict[str, int] = {}  # the last given, by the name without one

    def place(self, track: Track) -> Job:
        """Give a track its place: if an earlier one has it, that of its name with a number.

        Raises:
            SeparationError: the template and its name or tags lead out of the folder.
        """
        number, places = 1, self._places(track, 1)
        first = name = _name(places)
        while name in self._taken:
            number = self._numbers[first] = self._numbers.get(first, 1) + 1
            places = self._places(track, number)
            name = _name(places)
        self._taken.add(name)
        return Job(track, places, number)

    def separate(
        self,
        job: Job,
        separator: Separator,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Outcome:
        """Separate a track, unless it is done already. A failure is an outcome too."""
        started = time.monotonic()
        try:
            return self._separate(job, separator, on_progress, started)
        except HTDemucsError as error:
            return failed(job.track.path, error, time.monotonic() - started)
        except Exception as error:  # a mistake of ours, or no memory: other tracks may be well
            LOG.debug("%s", job.track.path, exc_info=True)
            told = f"{printable(job.track.path)}: {UNEXPECTED} {type(error).__name__}"
            return failed(
                job.track.path,
                HTDemucsError(f"{told} ({reason(error)}); please report it"),
                time.monotonic() - started,
            )

    def state(self, job: Job, separator: Separator) -> str:
        """What `separate` would do: "separate", "go on" or "skip".

        Raises:
            AudioError: the track cannot be read.
        """
        known = manifest.read_manifest(job.places.manifest)
        source = manifest.source_hash(job.track.path, known)
        AudioFile(job.track.path)  # refuses what is no audio
        recipe = manifest.Recipe.of(self.name, self.hashes, separator, self.options)
        if known and self._is_finished(job, separator, known, recipe.key(source["sha256"])):
            return "skip"
        return "go on" if job.places.spool.exists() else "separate"

    def skipped(self, job: Job, separator: Separator, known: dict[str, Any]) -> Outcome:
        """The outcome of a track that this manifest says is done."""
        targets = self.options.targets(job.places, separator.stems)
        return Outcome(
            track=str(job.track.path),
            status="skipped",
            files={name: str(target) for name, target in targets.items()},
            manifest=str(job.places.manifest),
            duration=known["duration"],
            gain=known["levels"].get("gain"),
        )

    def _separate(
        self,
        job: Job,
        separator: Separator,
        on_progress: Callable[[Progress], None] | None,
        started: float,
    ) -> Outcome:
        path, places = job.track.path, job.places
        known = manifest.read_manifest(places.manifest)
        source = manifest.source_hash(path, known)
        recipe = manifest.Recipe.of(self.name, self.hashes, separator, self.options)
        if known and self._is_finished(job, separator, known, recipe.key(source["sha256"])):
            places.spool.unlink(missing_ok=True)
            return self.skipped(job, separator, known)
        resumption = Resumption(places.spool, recipe.stems_key(source["sha256"]))
        done = separate_file(separator, path, places, self.options, on_progress, resumption)
        if not manifest.is_same(path, source):
            places.spool.unlink(missing_ok=True)
            raise AudioError(f"{printable(path)} changed while it was read; separate it again")
        seconds = time.monotonic() - started
        known_source = {**source, **job.track.origin}
        manifest.write_manifest(path, known_source, recipe, places, done, seconds)
        places.spool.unlink(missing_ok=True)
        return Outcome(
            track=str(path),
            status="separated",
            files={name: str(target) for name, target in done.files.items()},
            manifest=str(places.manifest),
            duration=done.length / done.sample_rate,
            seconds=seconds,
            resumed=done.resumed,
            gain=done.gain,
            warnings=done.warnings,
        )

    def _places(self, track: Track, number: int) -> Places:
        return self.options.places(track.path, self.folder / track.folder, number)

    def _is_finished(self, job: Job, separator: Separator, known: dict[str, Any], key: str) -> bool:
        targets = self.options.targets(job.places, separator.stems)
        return self.skip_existing and manifest.finished_files(known, key, targets)


def _name(places: Places) -> str:
    """What a place is known by: some file systems ignore case and composition."""
    return unicodedata.normalize("NFC", str(places.manifest)).casefold()


def failed(track: str | Path | None, error: Exception, seconds: float = 0.0) -> Outcome:
    """The outcome of a track that cannot be separated."""
    return Outcome(
        track=str(track) if track else "", status="failed", reason=str(error), seconds=seconds
    )


def summary(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Counts and every track, as JSON can hold them."""
    tracks = list(outcomes)
    counts = {
        status: sum(o.status == status for o in tracks)
        for status in ("separated", "skipped", "failed")
    }
    return {
        "format": "htdemucs-summary",
        "version": 1,
        **counts,
        "duration": sum((o.duration or 0.0 for o in tracks if o.status == "separated"), 0.0),
        "tracks": [asdict(outcome) for outcome in tracks],
    }
