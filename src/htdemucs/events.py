"""What happens during the work, as it is told to `on_progress` and by the command's JSON lines.

Programs read these: kinds and fields are only added, never renamed or removed.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Event:
    """Base of all events. A `track` is its path or URL; None: the event is of no single track."""

    def as_json(self) -> dict[str, Any]:
        """Return its kind, the class's name in small letters, and its fields."""
        return {"event": type(self).__name__.lower(), **asdict(self)}


EventCallback = Callable[[Event], None]


@dataclass(frozen=True)
class Found(Event):
    """The command has looked at its words.

    Attributes:
        tracks: number of tracks; those that cannot be read count too.
    """

    tracks: int


@dataclass(frozen=True)
class Loading(Event):
    """A model is looked for, and downloaded if it is not on this machine."""

    model: str


@dataclass(frozen=True)
class Downloading(Event):
    """A file of a model arrives.

    Attributes:
        file: its name.
        done, total: bytes; a resumed download begins above 0. `total` is None where unknown.
    """

    file: str
    done: int
    total: int | None


@dataclass(frozen=True)
class Loaded(Event):
    """A model is ready.

    Attributes:
        model: its name.
        device: where it runs, such as cpu or cuda:0.
    """

    model: str
    device: str


@dataclass(frozen=True)
class Started(Event):
    """The work on a track begins."""

    track: str


@dataclass(frozen=True)
class Progress(Event):
    """More of a track is finished.

    Attributes:
        done, total: seconds of audio; `total` is never below `done`, and None where unknown. What
            an earlier attempt had finished counts as done.
        speed: seconds of audio for each second of work; None before the first.
    """

    track: str | None
    done: float
    total: float | None
    speed: float | None = None


@dataclass(frozen=True)
class Written(Event):
    """A file of a track is whole and in its place.

    Attributes:
        stem: what it holds, such as vocals or no_vocals.
        path: path or URL; "-" is standard output.
    """

    track: str
    stem: str
    path: str


@dataclass(frozen=True)
class Warned(Event):
    """Something is unusual, and the work goes on. `text` is a sentence for people."""

    track: str | None
    text: str


@dataclass(frozen=True)
class Failed(Event):
    """A track, or without one the whole command, failed. `reason` is a line for people."""

    track: str | None
    reason: str


@dataclass(frozen=True)
class Finished(Event):
    """The work on a track ended well.

    Attributes:
        status: separated now, or skipped because it was finished before.
        files: path or URL of each file by its stem's name.
        duration: seconds of audio; None where unknown.
        seconds: of work.
        resumed: seconds of audio that an earlier attempt had finished.
        gain: factor on all stems, below 1 where one would clip; None where unknown.
    """

    track: str
    status: Literal["separated", "skipped"]
    files: Mapping[str, str] = field(default_factory=dict)
    duration: float | None = None
    seconds: float = 0.0
    resumed: float = 0.0
    gain: float | None = None


@dataclass(frozen=True)
class Noted(Event):
    """A line that is for people only: of the log, or of a library below."""

    text: str


@dataclass(frozen=True)
class Ended(Event):
    """The command ends; always its last event."""

    exit_code: int


def ignore_events(event: Event) -> None:
    """Listen to nothing."""


def results(finished: Finished, warnings: Iterable[str]) -> Iterator[Event]:
    """Yield the events of a track that ended well."""
    for text in warnings:
        yield Warned(finished.track, text)
    if finished.status == "separated":
        for stem, path in finished.files.items():
            yield Written(finished.track, stem, path)
    yield finished


class ProgressTracker:
    """Makes the progress events of one piece of work, with its speed.

    Args:
        track: as in the events.
        total: seconds of audio; None if unknown.
        done: seconds that were finished before the work began.
    """

    def __init__(self, track: str | None, total: float | None, done: float = 0.0) -> None:
        self._track, self._total, self._before = track, total, done
        self._started = time.monotonic()

    def at(self, done: float) -> Progress:
        """Return the event for `done` seconds."""
        seconds = time.monotonic() - self._started
        fresh = done - self._before
        speed = fresh / seconds if fresh > 0 and seconds > 0 else None
        total = None if self._total is None else max(self._total, done)
        return Progress(self._track, done, total, speed)
