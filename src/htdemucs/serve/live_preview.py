"""The preview of a track while it is separated, and parts that are separated early for listeners.

The engine calls `LivePreview` with each block of stems. If a client has asked to listen from a
later frame, `LivePreview` first runs the network from there on. The network's outputs for that part
are cached on disk until the files of the stems need them, so these files do not change.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import gcd
from pathlib import Path

import numpy as np
import torch
from sqlalchemy.exc import SQLAlchemyError
from torch import Tensor

from htdemucs.audio import AudioFile, Resampler, pad_or_trim
from htdemucs.errors import TrackTooLongError
from htdemucs.fsutil import fresh_folder
from htdemucs.serve.db import Row
from htdemucs.serve.jobs import JobCancelledError, Jobs
from htdemucs.serve.musical_key import KeyEstimator
from htdemucs.serve.preview import Preview, Ranges, add_range, range_end
from htdemucs.stems.observer import Observer, StreamFrom

REPORT_INTERVAL = 0.25  # seconds between reports of the progress
RESAMPLER_MARGIN = 0.1  # seconds after which a resampler's output does not depend on its start


def too_long(seconds: float, limit: float) -> TrackTooLongError:
    """Return the error for a track of this length."""
    return TrackTooLongError(
        f"the track lasts {seconds / 60:.1f} minutes; this server takes at most {limit / 60:.1f}"
    )


class DiskOutputCache:
    """An OutputCache on disk: the network's outputs for segments of parts separated early.

    Args:
        folder: of the cache; emptied first.
    """

    def __init__(self, folder: Path) -> None:
        self.is_early = False  # whether a part is being separated early
        self._folder = folder
        fresh_folder(folder)

    def get(self, start: int) -> Tensor | None:
        """Return the output for the segment that starts at this sample."""
        path = self._folder / f"{start}.npy"
        if not path.exists():
            return None
        output = torch.from_numpy(np.load(path))
        if not self.is_early:  # the files need each output once
            path.unlink()
        return output

    def put(self, start: int, output: Tensor) -> None:
        """Store an output, unless it is used immediately."""
        if self.is_early:
            np.save(self._folder / f"{start}.npy", output.cpu().numpy())


class LivePreview(Observer):
    """Writes the preview and the progress of one job, and serves seek requests.

    Args:
        jobs: the queue.
        row: of the track, with the stems of this job.
        worker: the name of this worker.
        max_seconds: longer tracks are refused.
        preview: to write.

    Attributes:
        error: the exception with which this observer ended the job: the track is too long, the job
            was cancelled, or the database failed. `Library.separate` returns a failed result
            instead; the worker raises the error again.
    """

    def __init__(
        self, jobs: Jobs, row: Row, worker: str, max_seconds: float, preview: Preview
    ) -> None:
        self._jobs, self._track, self._worker = jobs, str(row["id"]), worker
        self._stems = row["stems"]
        self._max_seconds, self._preview = max_seconds, preview
        self._ranges: Ranges = []
        self._seek_request: int | None = None  # frame
        self.error: Exception | None = None
        self._started = self._reported = time.monotonic()
        self._separated = 0  # samples, in any order
        preview.clear()
        self.outputs = self._cache = DiskOutputCache(preview.folder / "outputs")

    def on_start(self, source: AudioFile, length: int, stream_from: StreamFrom) -> None:
        """Report the track's length before its first block.

        Raises:
            TrackTooLongError: the track is too long.
            JobCancelledError: the job is not this worker's any more.
        """
        if length / source.sample_rate > self._max_seconds:
            self.error = too_long(length / source.sample_rate, self._max_seconds)
            raise self.error
        self._source, self._length, self._stream_from = source, length, stream_from
        self._frames = source.source_length
        self._started = time.monotonic()
        self._original = _OriginalLane(source, self._preview)
        self._main_run = self._run_from(0)
        self._key = KeyEstimator(source.sample_rate, self._stems)
        with self._recording_errors():
            self._jobs.update(
                self._track,
                self._worker,
                sample_rate=source.source_sample_rate,
                channels=source.channels,
                frames=self._frames,
            )

    def on_block(self, start: int, block: Tensor) -> None:
        """Write the next block to the preview, then separate later parts that a client waits for.

        Raises:
            JobCancelledError: the job is not this worker's any more.
        """
        self._separated += block.shape[-1]
        is_last = start + block.shape[-1] == self._length
        start, stop = self._main_run.write(block)
        self._key.push(block)
        self._original.write_until(stop)
        self._publish(start, stop, is_last=is_last)
        self._check()
        while self._seek_request is not None:
            self._separate_early(self._seek_request)

    def close(self) -> None:
        """Remove the cached outputs, however the job ended."""
        shutil.rmtree(self._preview.folder / "outputs", ignore_errors=True)

    def _check(self) -> None:
        """Get the current seek request; raise JobCancelledError if the job was cancelled."""
        with self._recording_errors():
            self._seek_request = self._jobs.check(self._track, self._worker)

    def _separate_early(self, frame: int) -> None:
        """Separate from a frame on, to the next part that is done or until another seek request."""
        first = range_end(self._ranges, min(frame, self._frames))
        if first < self._frames:
            run = self._run_from(first)
            self._cache.is_early = True
            for block, mixture in self._stream_from(run.start):
                self._separated += block.shape[-1]
                start, stop = run.write(torch.cat([block, mixture[None]]))
                has_met = range_end(self._ranges, stop) > stop
                self._publish(start, stop)
                self._check()
                if has_met or stop == self._frames or self._seek_request != frame:
                    break
            self._cache.is_early = False
        with self._recording_errors():
            self._jobs.clear_seek(self._track, self._worker, frame)
        self._check()

    def _run_from(self, first: int) -> "_Run":
        return _Run(self._source, self._length, self._preview, first)

    def _publish(self, start: int, stop: int, is_last: bool = False) -> None:
        """Let clients play the frames [start, stop), which all lanes have now."""
        if start < stop:
            self._preview.write_peaks(start, stop)
        is_new_range = start < stop and not any(a <= start < b for a, b in self._ranges)
        self._ranges = add_range(self._ranges, start, stop)
        now = time.monotonic()
        if is_new_range or is_last or now - self._reported >= REPORT_INTERVAL:
            self._reported = now
            elapsed = now - self._started
            speed = self._separated / self._source.sample_rate / elapsed if elapsed else None
            done = range_end(self._ranges, 0) / self._source.source_sample_rate
            values: Row = {"ranges": self._ranges, "done": done, "speed": speed}
            if is_last:
                values["key"] = self._key.key()
            with self._recording_errors():
                self._jobs.update(self._track, self._worker, **values)

    @contextmanager
    def _recording_errors(self) -> Iterator[None]:
        try:
            yield
        except (JobCancelledError, SQLAlchemyError) as error:
            self.error = error
            raise


class _OriginalLane:
    """Decodes the track itself to the last lane of its preview, after the main run.

    It replaces the mixture that early parts have there, which may be resampled and down-mixed.
    """

    def __init__(self, source: AudioFile, preview: Preview) -> None:
        self._blocks = iter(source.at_rate(source.source_sample_rate))
        self._preview, self._position = preview, 0

    def write_until(self, frame: int) -> None:
        """Write everything before this frame that is not written yet."""
        while self._position < frame and (block := next(self._blocks, None)) is not None:
            self._preview.write(self._preview.lanes - 1, self._position, block)
            self._position += block.shape[-1]


class _Run:
    """Writes consecutive blocks of lanes to the preview, resampled to the track's own rate.

    Args:
        source: the track.
        length: of the track in samples at the model's rate.
        preview: to write.
        first: frame at which the run begins in the preview.

    Attributes:
        start: sample at the model's rate at which the blocks have to begin.
    """

    def __init__(
        self,
        source: AudioFile,
        length: int,
        preview: Preview,
        first: int,
    ) -> None:
        model_rate, own_rate = source.sample_rate, source.source_sample_rate
        self._preview = preview
        self._length, self._frames = length, source.source_length
        step = own_rate // gcd(model_rate, own_rate)  # frames at which both rates have a sample
        margin = 0 if model_rate == own_rate else int(RESAMPLER_MARGIN * own_rate)
        begin = max(0, first - margin) // step * step
        self.start = begin * model_rate // own_rate
        self._received, self._written, self._first = self.start, begin, first
        self._resamplers = [
            Resampler(model_rate, own_rate, preview.channels) for _ in range(preview.lanes)
        ]

    def write(self, block: Tensor) -> tuple[int, int]:
        """Write the first lanes, (lane, C, L); return the frames [start, stop) that they got."""
        self._received += block.shape[-1]
        stems = [r.push(lane) for r, lane in zip(self._resamplers, block, strict=False)]
        if self._received >= self._length:
            tails = [resampler.flush() for resampler in self._resamplers[: len(stems)]]
            stems = [torch.cat(pair, dim=-1) for pair in zip(stems, tails, strict=True)]
            stems = [pad_or_trim(stem, self._frames - self._written) for stem in stems]
        frames = min(stems[0].shape[-1], self._frames - self._written)
        skipped = min(frames, max(0, self._first - self._written))  # the resampler's margin
        start, stop = self._written + skipped, self._written + frames
        for lane, stem in enumerate(stems):
            self._preview.write(lane, start, stem[:, skipped:frames])
        self._written = stop
        return start, stop
