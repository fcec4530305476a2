"""The events that `on_progress` receives and `--progress json` prints.

Programs read the JSON: kinds and fields may be added, but not renamed or removed.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from htdemucs.results import TrackResult


@dataclass(frozen=True)
class Event:
    """Base of all events. `track` is a path or URL; None if the event concerns no single track."""

    def as_json(self) -> dict[str, Any]:
        """Return the fields, and as "event" the name of the class in lower case."""
        return {"event": type(self).__name__.lower(), **asdict(self)}


EventCallback = Callable[[Event], None]


@dataclass(frozen=True)
class Found(Event):
    """The inputs were resolved.

    Attributes:
        tracks: number of tracks, unreadable ones included.
    """

    tracks: int


@dataclass(frozen=True)
class Loading(Event):
    """A model is being located, and downloaded if it is not on this machine."""

    model: str


@dataclass(frozen=True)
class Downloading(Event):
    """More of a model's file has arrived.

    Attributes:
        file: its name.
        done, total: bytes. A resumed download starts above 0; `total` is None if unknown.
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
class Waiting(Event):
    """Only tracks that other processes are separating are left, and this is one of them."""

    track: str


@dataclass(frozen=True)
class Started(Event):
    """Work on a track begins."""

    track: str


@dataclass(frozen=True)
class Reading(Event):
    """More of a track was decoded and measured, before its separation begins.

    Attributes:
        done, total: seconds of audio; `total` is never below `done`, and None if unknown.
    """

    track: str
    done: float
    total: float | None


@dataclass(frozen=True)
class Progress(Event):
    """More of a track is finished.

    Attributes:
        done, total: seconds of audio; `total` is never below `done`, and None if unknown. `done`
            includes what an earlier attempt had finished.
        speed: seconds of audio per second of work; None at first.
    """

    track: str | None
    done: float
    total: float | None
    speed: float | None = None


@dataclass(frozen=True)
class Written(Event):
    """A file of a track is complete.

    Attributes:
        stem: its content, such as vocals or no_vocals.
        path: path or URL; "-" is standard output.
    """

    track: str
    stem: str
    path: str


@dataclass(frozen=True)
class Warned(Event):
    """Something is unusual, but the work continues. `text` is a sentence for people."""

    track: str | None
    text: str


@dataclass(frozen=True)
class Failed(Event):
    """A track failed; if `track` is None, an argument or the whole command.

    Attributes:
        error: the reason, in one line.
    """

    track: str | None
    error: str


@dataclass(frozen=True)
class Finished(Event):
    """A track was separated, or skipped because it was finished before."""

    result: TrackResult

    @property
    def track(self) -> str:
        """Path or URL of the track."""
        return self.result.track

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the result."""
        return {"event": "finished", **self.result.to_dict()}


@dataclass(frozen=True)
class Noted(Event):
    """A log line for people."""

    text: str


@dataclass(frozen=True)
class Ended(Event):
    """The command ends. This is always its last event."""

    exit_code: int


def ignore_events(event: Event) -> None:
    """Do nothing with an event."""


def result_events(result: TrackResult) -> Iterator[Event]:
    """Yield the events that report a result."""
    if result.status == "failed":
        yield Failed(result.track or None, result.error or "")
        return
    for text in result.warnings:
        yield Warned(result.track, text)
    if result.status == "separated":
        for stem, path in result.files.items():
            yield Written(result.track, stem, path)
    yield Finished(result)


class ProgressTracker:
    """Makes `Progress` events with the speed of the work.

    Args:
        track: as in the events.
        total: seconds of audio; None if unknown.
        done: seconds that were finished before the work began.
    """

    def __init__(self, track: str | None, total: float | None, done: float = 0.0) -> None:
        self._track, self._total, self._done_before = track, total, done
        self._started = time.monotonic()

    def at(self, done: float) -> Progress:
        """Return the event for `done` seconds."""
        seconds = time.monotonic() - self._started
        done_now = done - self._done_before
        speed = done_now / seconds if done_now > 0 and seconds > 0 else None
        total = None if self._total is None else max(self._total, done)
        return Progress(self._track, done, total, speed)


class ProgressBar:
    """A callback that shows progress as a bar, in a terminal or a notebook.

    It is for one track at a time: `separate_file("mini", "song.mp3", on_progress=ProgressBar())`.
    """

    def __init__(self) -> None:
        self._bar: Any = None
        self._name: str | None = None

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case Downloading(file, done, total):
                self._show(file, done / 1e6, total and total / 1e6, "MB")
            case Progress(track, done, total):
                self._show(os.path.basename(track or ""), done, total, "s")  # noqa: PTH119
            case Loaded() | Finished() | Failed():
                self._close()

    def _show(self, name: str, done: float, total: float | None, unit: str) -> None:
        from tqdm.auto import tqdm

        if self._bar is None or name != self._name:
            self._close()
            form = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} {unit}, {remaining} left"
            self._bar = tqdm(desc=name, total=total, unit=unit, bar_format=total and form)
            self._name = name
        self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
