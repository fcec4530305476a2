"""Making the preview of a track while it is separated, later parts first where somebody wants."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import gcd
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from sqlalchemy.exc import SQLAlchemyError
from torch import Tensor

from htdemucs.audio import AudioFile, Resampler, fitted
from htdemucs.files import fresh_folder
from htdemucs.serve.jobs import Jobs
from htdemucs.serve.preview import Preview
from htdemucs.serve.problems import TooLongError
from htdemucs.serve.ranges import Ranges, added, end_of
from htdemucs.serve.tables import Values
from htdemucs.stems.pipeline import Worker
from htdemucs.stems.watching import Watcher

EVERY = 0.25  # seconds between reports of one track
EDGE = 0.1  # seconds that a resampler needs to forget where it began
Way = Callable[[int], Iterator[Tensor]]


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


class Listening(Watcher):
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
        self.answers = self._kept = KeptAnswers(preview.folder / "answers", self._look)

    def begin(self, source: AudioFile, length: int, way: Way) -> None:
        """Hear of the track; tell the page its length.

        Raises:
            TooLongError: it is.
            WithdrawnError: the job is not this worker's any more.
        """
        if length / source.sample_rate > self._longest:
            self.refused = too_long(length / source.sample_rate, self._longest)
            raise self.refused
        self._source, self._length, self._way = source, length, way
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

    def heard(self, start: int, block: Tensor) -> None:
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
            with Worker(1) as beside:
                beside.submit(self._original.reach, first)
                for block in self._way(run.start):
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
            stems = [fitted(stem, self._size.frames - self._next) for stem in stems]
        frames = min(stems[0].shape[-1], self._size.frames - self._next)
        skipped = min(frames, max(0, self._first - self._next))
        start, stop = self._next + skipped, self._next + frames
        for lane, stem in enumerate(stems):
            self._preview.write(lane, start, stem[:, skipped:frames])
        self._original.reach(stop)
        self._next = stop
        return start, stop
