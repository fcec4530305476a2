"""Ranges of frames, [from, to), sorted and apart.

MERGED: Making the preview of a track while it is separated, later parts first where somebody wants.
MERGED: A worker: a process that takes tracks from the queue and separates them, its model at hand.

`python -m htdemucs.serve.worker` reads its name and the server's settings as a line of JSON from
standard input, then lines that wake it up. When standard input ends, so does the worker: its server
is gone.
"""

import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import gcd
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from sqlalchemy.exc import SQLAlchemyError
from torch import Tensor

from htdemucs.audio import AudioFile, Resampler, pad_or_trim
from htdemucs.batch import Library, Track, read_manifest
from htdemucs.errors import HTDemucsError, SeparationError
from htdemucs.fast import keep_freed_memory
from htdemucs.fsutil import fresh_folder, model_folder
from htdemucs.results import TrackResult
from htdemucs.separation import Separator
from htdemucs.serve.db import Database, Deletion, Jobs, Tracks, Values, WithdrawnError, tags
from htdemucs.serve.error_codes import TooLongError, code_of
from htdemucs.serve.preview import Preview, decode
from htdemucs.serve.settings import Settings
from htdemucs.stems.observer import Observer, StreamFrom
from htdemucs.stems.writer import BackgroundThread

Ranges = list[list[int]]


def added(ranges: Iterable[Iterable[int]], start: int, stop: int) -> Ranges:
    """Return the ranges together with [start, stop); what touches becomes one."""
    result: Ranges = []
    for first, last in sorted([*map(tuple, ranges), (start, stop)]):
        if first >= last:
            continue
        if result and first <= result[-1][1]:
            result[-1][1] = max(result[-1][1], last)
        else:
            result.append([first, last])
    return result


def end_of(ranges: Iterable[Iterable[int]], frame: int) -> int:
    """Return where the range that holds `frame` ends; `frame` itself if none does."""
    return next((last for first, last in ranges if first <= frame < last), frame)


EVERY = 0.25  # seconds between reports of one track
EDGE = 0.1  # seconds that a resampler needs to forget where it began


def too_long(seconds: float, longest: float) -> TooLongError:
    """Return the error for a track of so many seconds."""
    return TooLongError(
        f"the track lasts {seconds / 60:.1f} minutes; this server takes at most {longest / 60:.1f}"
    )


class KeptAnswers:
    """The network's answers to segments of later parts, on disk until the files need them.

    Args:
        folder: for the answers; emptied first.
        check: called before every segment; it may raise.
    """

    def __init__(self, folder: Path, check: Callable[[], None]) -> None:
        self.is_ahead = False  # whether a later part is being made
        self._folder, self._check = folder, check
        fresh_folder(folder)

    def get(self, start: int) -> Tensor | None:
        """Return the answer to the segment that starts there."""
        self._check()
        path = self._folder / f"{start}.npy"
        if not path.exists():
            return None
        answer = torch.from_numpy(np.load(path))
        if not self.is_ahead:
            path.unlink()
        return answer

    def put(self, start: int, answer: Tensor) -> None:
        """Keep an answer of a later part; those of the part that is next are used at once."""
        if self.is_ahead:
            np.save(self._folder / f"{start}.npy", answer.cpu().numpy())


class Listening(Observer):
    """Watches the separation of one track: its preview, its progress, and wishes.

    Args:
        row: the track.
        worker: who separates it.
        longest: seconds; longer tracks are refused.
        preview: for its lanes.

    Attributes:
        lost: why the database did not answer any more.
        refused: why the track is not separated.
    """

    def __init__(
        self, jobs: Jobs, row: Values, worker: str, longest: float, preview: Preview
    ) -> None:
        self._jobs, self._track, self._worker = jobs, str(row["id"]), worker
        self._longest, self._preview = longest, preview
        self._ranges: Ranges = []
        self._wish: int | None = None  # frame
        self.lost: SQLAlchemyError | None = None
        self.refused: TooLongError | None = None
        self._started = self._reported = time.monotonic()
        self._made = 0  # samples made by now, in any order
        preview.clear()
        self.outputs = self._kept = KeptAnswers(preview.folder / "answers", self._look)

    def on_start(self, source: AudioFile, length: int, stream_from: StreamFrom) -> None:
        """Hear of the track; tell the page its length.

        Raises:
            TooLongError: it is.
            WithdrawnError: the job is not this worker's any more.
        """
        if length / source.sample_rate > self._longest:
            self.refused = too_long(length / source.sample_rate, self._longest)
            raise self.refused
        self._source, self._length, self._stream_from = source, length, stream_from
        self._started = time.monotonic()
        self._frames = source.source_length
        self._original = _Original(source, self._preview)
        self._in_order = self._run(0)
        self._jobs.report(
            self._track,
            self._worker,
            sample_rate=source.source_sample_rate,
            channels=source.channels,
            frames=self._frames,
        )

    def on_block(self, start: int, block: Tensor) -> None:
        """Put the next block into the preview, then make later parts that somebody waits for.

        Raises:
            WithdrawnError: the job is not this worker's any more.
        """
        self._made += block.shape[-1]
        self._have(*self._in_order.push(block), last=start + block.shape[-1] == self._length)
        self._look()
        while self._wish is not None:
            self._go_ahead(self._wish)

    def end(self) -> None:
        """Finish with the track, however it ended."""
        shutil.rmtree(self._preview.folder / "answers", ignore_errors=True)

    def _look(self) -> None:
        """Look whether the job goes on, and from where somebody wants to listen."""
        with self._noticing():
            self._wish = self._jobs.look(self._track, self._worker)

    def _go_ahead(self, wish: int) -> None:
        """Make the part from a frame on until it meets what can be heard, or another wish."""
        first = end_of(self._ranges, min(wish, self._frames))
        if first < self._frames:
            run = self._run(first)
            self._kept.is_ahead = True
            with BackgroundThread(1) as beside:
                beside.submit(self._original.reach, first)
                for block in self._stream_from(run.start):
                    self._made += block.shape[-1]
                    start, stop = run.push(block)
                    met = end_of(self._ranges, stop) > stop
                    self._have(start, stop)
                    self._look()
                    if met or stop == self._frames or self._wish != wish:
                        break
            self._kept.is_ahead = False
        self._jobs.reached(self._track, self._worker, wish)
        self._look()

    def _run(self, first: int) -> "_Run":
        size = _Size(
            self._length, self._frames, self._source.sample_rate, self._source.source_sample_rate
        )
        return _Run(size, self._preview, self._original, first)

    def _have(self, start: int, stop: int, last: bool = False) -> None:
        """Let the page have what is in all lanes from frame `start` to `stop`."""
        if start < stop:
            self._preview.draw(start, stop)
        is_first = start < stop and not any(first <= start < end for first, end in self._ranges)
        self._ranges = added(self._ranges, start, stop)
        clock = time.monotonic()
        if is_first or last or clock - self._reported >= EVERY:
            self._reported = clock
            seconds = clock - self._started
            speed = self._made / self._source.sample_rate / seconds if seconds else None
            done = end_of(self._ranges, 0) / self._source.source_sample_rate
            with self._noticing():
                self._jobs.report(
                    self._track, self._worker, ranges=self._ranges, done=done, speed=speed
                )

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        """Notice when the database is lost: that is no fault of the track."""
        try:
            yield
        except SQLAlchemyError as error:
            self.lost = error
            raise


class _Original:
    """The track itself in the last lane of its preview, decoded as far as it was needed so far."""

    def __init__(self, source: AudioFile, preview: Preview) -> None:
        self._blocks = iter(source.at_rate(source.source_sample_rate))
        self._preview, self._reached, self._lock = preview, 0, Lock()

    def reach(self, frame: int) -> None:
        """Have everything before this frame, or before the track's end."""
        with self._lock:
            while self._reached < frame and (block := next(self._blocks, None)) is not None:
                self._preview.write(self._preview.lanes - 1, self._reached, block)
                self._reached += block.shape[-1]


class _Size(NamedTuple):
    """How long a track is: in samples at the model's rate, and in frames at its own."""

    length: int
    frames: int
    model_rate: int
    own_rate: int


class _Run:
    """Brings a run's blocks of stems from the model's rate to the track's, and into the preview.

    Args:
        size: of the track.
        preview, original: the lanes.
        first: frame from which on the run is heard.

    Attributes:
        start: sample at the model's rate with which the blocks begin.
    """

    def __init__(self, size: _Size, preview: Preview, original: _Original, first: int) -> None:
        model, own = size.model_rate, size.own_rate
        self._preview, self._original, self._size = preview, original, size
        step = own // gcd(model, own)  # frames between those that are samples of the model too
        edge = 0 if model == own else int(EDGE * own)
        begin = max(0, first - edge) // step * step
        self.start = begin * model // own
        self._taken, self._next, self._first = self.start, begin, first
        self._back = [Resampler(model, own, preview.channels) for _ in range(preview.lanes - 1)]

    def push(self, block: Tensor) -> tuple[int, int]:
        """Write (S, C, L); return the frames [start, stop) that are in all lanes now."""
        self._taken += block.shape[-1]
        stems = [back.push(stem) for back, stem in zip(self._back, block, strict=True)]
        if self._taken >= self._size.length:
            tails = [back.flush() for back in self._back]
            stems = [torch.cat(pair, dim=-1) for pair in zip(stems, tails, strict=True)]
            stems = [pad_or_trim(stem, self._size.frames - self._next) for stem in stems]
        frames = min(stems[0].shape[-1], self._size.frames - self._next)
        skipped = min(frames, max(0, self._first - self._next))
        start, stop = self._next + skipped, self._next + frames
        for lane, stem in enumerate(stems):
            self._preview.write(lane, start, stem[:, skipped:frames])
        self._original.reach(stop)
        self._next = stop
        return start, stop


LOG = logging.getLogger(__name__)
IDLE = 1.0  # seconds between looks at the queue, unless woken
MOST_COPIES = 1000  # of one name


class Worker:
    """Separates tracks from the queue, one after another.

    Args:
        settings: of the server.
        name: by which the queue knows this worker; its process has it to itself.
    """

    def __init__(self, settings: Settings, name: str, database: Database | None = None) -> None:
        self._settings, self._name = settings, name
        database = database or Database(settings.database)
        self._jobs = Jobs(database)
        self._deletion = Deletion(settings, Tracks(database), name)
        self._separators: dict[tuple[str, tuple[str, ...] | None], Separator] = {}

    def warm_up(self) -> None:
        """Load the model that most tracks want; a failure is told to the track that needs it."""
        try:
            separator = self._separator(self._settings.model, None)
            noise = 0.1 * torch.randn(separator.audio_channels, separator.segment_length)
            separator.separate(noise, separator.sample_rate)  # the first segment takes longer
        except HTDemucsError as error:
            LOG.warning("%s", error)

    def work(self) -> bool:
        """Separate the next track; return False if none waits."""
        row = self._jobs.claim(self._name)
        if row is None:
            return False
        try:
            self._separate(row)
        except WithdrawnError:
            self._let_go(row)
        except HTDemucsError as error:
            self._fail(row, str(error), code_of(error))
        return True

    def _separate(self, row: Values) -> None:
        wanted = tuple(row["wanted"]) if row["wanted"] else None
        separator = self._separator(row["model"], wanted)
        about = tags(Path(row["path"]))  # here, because nobody knows what an upload holds
        self._jobs.report(row["id"], self._name, stems=list(separator.stems), **about)
        library = Library(self._settings.library / model_folder(row["model"]))
        self._refuse_long(Path(row["path"]))
        track = self._placed(library, row)
        lanes = len(separator.stems) + 1
        preview = Preview(self._settings.previews / row["id"], lanes, separator.audio_channels)
        limits = self._settings.limits
        listening = Listening(self._jobs, row, self._name, limits.seconds, preview)
        try:
            outcome = library.separate(track, separator, observer=listening)
        finally:
            listening.end()
        if listening.lost:
            raise listening.lost  # this process ends; the job is resumed
        self._jobs.look(row["id"], self._name)  # raises if it was withdrawn
        if outcome.status == "failed":
            self._fail(row, outcome.error or "", code_of(listening.refused))
        else:
            self._finish(row | {"stems": list(separator.stems)}, outcome, preview)

    def _finish(self, row: Values, outcome: TrackResult, preview: Preview) -> None:
        files = {
            stem: {"path": path, "bytes": Path(path).stat().st_size}
            for stem, path in outcome.files.items()
        }
        manifest = Path(outcome.manifest or "")
        values: Values = {"warnings": list(outcome.warnings), "stamp": manifest.stat().st_mtime_ns}
        if outcome.status == "skipped":  # who listens has the preview made
            about = read_manifest(manifest) or {}
            values |= {"sample_rate": about.get("sample_rate"), "frames": about.get("length")}
            values["ranges"] = []
        elif outcome.gain != 1:  # the files hold something softer
            values["sample_rate"] = AudioFile(row["path"]).source_sample_rate
            for frames in decode(row | {"files": files}, values["sample_rate"], preview):
                self._jobs.look(row["id"], self._name)  # raises if it was withdrawn
                values |= {"frames": frames, "ranges": [[0, frames]]}
        self._jobs.finish(row["id"], self._name, files, done=outcome.duration or 0.0, **values)

    def _fail(self, row: Values, reason: str, code: str | None = None) -> None:
        try:
            self._jobs.fail(row["id"], self._name, self._for_clients(row, reason), code)
        except WithdrawnError:
            self._let_go(row)

    def _for_clients(self, row: Values, reason: str) -> str:
        """Return a reason without the paths of this machine, which are nobody's business."""
        return self._settings.without_folders(reason.replace(str(row["path"]), row["name"]))

    def _let_go(self, row: Values) -> None:
        """Leave a job that was withdrawn; what can be resumed stays, unless it was deleted."""
        shutil.rmtree(self._settings.previews / row["id"], ignore_errors=True)
        if not self._jobs.let_go(row["id"], self._name):
            self._deletion.remove_files(row["id"])

    def _refuse_long(self, path: Path) -> None:
        """Refuse what says itself that it is far too long, before it is decoded.

        Raises:
            AudioError: it is no audio.
            TooLongError: it is.
        """
        longest = self._settings.limits.seconds
        seconds = AudioFile(path).duration or 0.0
        if seconds > 1.1 * longest:  # an estimate
            raise too_long(seconds, longest)

    def _separator(self, model: str, wanted: tuple[str, ...] | None) -> Separator:
        """Return the separator of a model; the last one stays in memory."""
        key = (model, wanted)
        if key not in self._separators:
            self._separators.clear()
            self._separators[key] = Separator(model, stems=wanted, shifts=1)
            keep_freed_memory()
        return self._separators[key]

    def _placed(self, library: Library, row: Values) -> Track:
        """Return the track with a place that no other track has."""
        folder = _folder(Path(row["path"]), self._settings.library)
        track = Track(row["path"], folder)
        copies = [row["copy"]] if row["copy"] else []
        first = library.assign_output(track).duplicate_index
        for copy in [*copies, *range(first, first + MOST_COPIES)]:
            track = replace(track, duplicate_index=copy)
            manifest = library.output_paths_for(track).manifest
            if self._jobs.place(row, self._name, str(manifest), copy):
                return track
        raise SeparationError(f"there are too many tracks called {row['name']}; rename it")


def _folder(path: Path, library: Path) -> str:
    """Return where a track lies below the library; "" if it is elsewhere."""
    inside = path.parent.is_relative_to(library)
    return str(path.parent.relative_to(library)) if inside else ""


def main() -> None:
    """Work until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server decides when to stop
    told = json.loads(sys.stdin.readline())
    settings = Settings.from_json(told["settings"])
    woken = threading.Event()

    def wait_for_the_end() -> None:
        for _ in sys.stdin:
            woken.set()
        os._exit(0)  # in the midst of a segment too

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    worker = Worker(settings, told["name"])
    worker.warm_up()
    while True:
        woken.clear()
        while worker.work():
            pass
        woken.wait(IDLE)


if __name__ == "__main__":
    main()
