"""Decoding before the network and encoding after it, at the same time as it.

MERGED: From the network's stems to the waveforms of the files.
MERGED: Writing a track's files in threads of their own.
"""

import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor

from htdemucs.audio import (
    AudioEncoding,
    AudioFile,
    AudioWriter,
    Resampler,
    StemFileWriter,
    Tags,
    pad_or_trim,
    read_tags,
    resampled_length,
    write_tags,
)
from htdemucs.errors import SeparationError
from htdemucs.fast import use_this_thread_only
from htdemucs.stems.output_options import RESIDUAL, OutputOptions
from htdemucs.stems.paths import OutputPaths

T = TypeVar("T")
_END: Any = object()


def read_ahead(items: Iterable[T], count: int) -> Generator[T, None, None]:
    """Yield the same items while another thread makes the next `count`.

    An exception in that thread is raised where its item would be yielded. Close the generator to
    end the thread early.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(1, "read ahead", use_this_thread_only) as pool:
        coming = deque(pool.submit(next, iterator, _END) for _ in range(count))
        try:
            while (item := coming.popleft().result()) is not _END:
                coming.append(pool.submit(next, iterator, _END))
                yield item
        finally:
            pool.shutdown(cancel_futures=True)


class Worker:
    """Runs calls in a thread of its own, in order, with at most `count` of them waiting.

    As a context manager it ends with its last call or, on an exception, with the running one. An
    exception in a call is raised by a later `submit` or by `wait`.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool = ThreadPoolExecutor(1, "worker", use_this_thread_only)
        self._waiting: deque[Future[object]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)

    def stop(self) -> None:
        """End with the running call."""
        self._pool.shutdown(cancel_futures=True)

    def submit(self, call: Callable[..., object], *arguments: object) -> None:
        """Run it after those before it."""
        self._waiting.append(self._pool.submit(call, *arguments))
        while len(self._waiting) > self._count:
            self._waiting.popleft().result()

    def wait(self) -> None:
        """Until every call so far has returned."""
        while self._waiting:
            self._waiting.popleft().result()


CLAMP = 0.99  # where "clamp" cuts
MIXTURE = "mixture"
Waveforms = dict[str, Tensor]


class Mixdown:
    """Resamples, adds, subtracts and levels: stems at the model's rate in, waveforms of files out.

    The rest of the mixture and the residual are computed from the track itself at the files' rate,
    so that nothing is lost on the way to the model's rate and back.

    Args:
        stems: names of the waveforms pushed, in order.
        source: the track, at the model's rate and channels.
        sample_rate: of the files.
        options, encoding: which waveforms are written, and how.
        gain: factor for everything.

    Attributes:
        peaks: the greatest absolute sample of each waveform so far.
    """

    def __init__(
        self,
        stems: tuple[str, ...],
        source: AudioFile,
        sample_rate: int,
        options: OutputOptions,
        encoding: AudioEncoding,
        gain: float = 1.0,
    ) -> None:
        self._stems, self._options, self._gain = stems, options, gain
        self._steps = encoding.full_scale
        self._range = _range(options, encoding.full_scale)
        self._back = [Resampler(source.sample_rate, sample_rate, source.channels) for _ in stems]
        self._given = 0
        self._mixture = None
        if options.needs_mixture:
            self._mixture = _Samples(iter(source.at_rate(sample_rate)), source.channels)
        self.peaks: dict[str, float] = {}

    def push(self, stems: Tensor) -> Waveforms:
        """(S, C, L) -> each (C, L') at the files' rate; L' may be 0."""
        return self._mixed([back.push(stem) for back, stem in zip(self._back, stems, strict=True)])

    def finish(self, length: int) -> Waveforms:
        """Return the rest, `length` samples in all: resampling there and back may round by one."""
        missing = length - self._given
        tails = [back.flush() for back in self._back]
        return self._mixed([pad_or_trim(tail, missing) for tail in tails])

    def _mixed(self, stems: list[Tensor]) -> Waveforms:
        length = stems[0].shape[-1]
        self._given += length
        mixture = self._mixture.take(length) if self._mixture else stems[0]
        if self._gain != 1:
            stems, mixture = [self._gain * stem for stem in stems], self._gain * mixture
        named = dict(zip(self._stems, stems, strict=True))
        waveforms = self._wanted(named, mixture)
        if self._options.residual != "none":
            waveforms = self._completed(waveforms, mixture)
        elif self._options.clip_mode == "clamp":
            waveforms = {n: waveform.clamp(-CLAMP, CLAMP) for n, waveform in waveforms.items()}
        if self._options.stem_file:
            waveforms = {MIXTURE: mixture, **waveforms}
        for name, waveform in waveforms.items():
            lowest, highest = waveform.aminmax() if length else (0.0, 0.0)
            self.peaks[name] = max(self.peaks.get(name, 0.0), -float(lowest), float(highest))
        return waveforms

    def _wanted(self, stems: Waveforms, mixture: Tensor) -> Waveforms:
        wanted, method = self._options.two_stems, self._options.other_method
        if wanted is None:
            return stems
        waveforms = {wanted: stems[wanted]}
        if method == "add":
            others = [stem for name, stem in stems.items() if name != wanted]
            waveforms["no_" + wanted] = torch.stack(others).sum(0)
        elif method == "minus":
            waveforms["minus_" + wanted] = mixture - stems[wanted]
        return waveforms

    def _completed(self, waveforms: Waveforms, mixture: Tensor) -> Waveforms:
        """Return waveforms that add up to the mixture, within the range of the files.

        All are at the file's own steps but the last one, which is the difference, so that rounding
        adds up to nothing where the mixture is at these steps itself. What it cannot hold goes to
        the one before it, and so on.

        Raises:
            SeparationError: the mixture is louder than all files at their limit.
        """
        if self._options.residual == "spread":
            total = torch.stack(list(waveforms.values())).double().sum(0)
            share = ((mixture - total) / len(waveforms)).float()
            waveforms = {name: waveform + share for name, waveform in waveforms.items()}
        else:
            waveforms = {**waveforms, RESIDUAL: torch.zeros_like(mixture)}
        held = {
            name: self._rounded(waveform).double().clamp(*self._range)
            for name, waveform in waveforms.items()
        }
        rest = mixture - torch.stack(list(held.values())).sum(0)
        for name in reversed(held):
            whole = held[name] + rest
            held[name] = whole.clamp(*self._range)
            rest = whole - held[name]
            if not (rest.abs() > 0).any():
                return {name: waveform.float() for name, waveform in held.items()}
        raise SeparationError(
            f"the track is too loud for {len(held)} files to add up to it without clipping; "
            "set the clip mode to rescale"
        )

    def _rounded(self, waveform: Tensor) -> Tensor:
        """Return the waveform at the file's integer steps, where it has any."""
        if self._steps is None:
            return waveform
        return (waveform * self._steps).round() / self._steps


def _range(options: OutputOptions, steps: int | None) -> tuple[float, float]:
    """Return the lowest and highest sample of files with so many integer steps, if any."""
    if options.clip_mode == "clamp":
        highest = CLAMP if steps is None else math.floor(CLAMP * steps) / steps
        return -highest, highest
    if options.clip_mode == "none" and steps is not None:
        return -1.0, (steps - 1) / steps
    return -math.inf, math.inf  # floats and lossy formats hold more; "rescale" needs the true peaks


class _Samples:
    """A track's samples in any portions, silent after its end."""

    def __init__(self, blocks: Iterator[Tensor], channels: int) -> None:
        self._blocks = blocks
        self._held = torch.zeros(channels, 0)

    def take(self, count: int) -> Tensor:
        """Return the next samples, (C, count)."""
        while self._held.shape[-1] < count and (block := next(self._blocks, None)) is not None:
            self._held = torch.cat([self._held, block], dim=-1)
        taken, self._held = self._held[:, :count], self._held[:, count:]
        return pad_or_trim(taken, count)


WAITING = 2  # blocks between decoding, the network and encoding


class TrackFiles:
    """The files of one track: their paths, encoding, rate and length.

    Args:
        stems: names of the waveforms they are made of.
        source: the track, read to its end, at the model's rate and channels.
        places: where they go.
        options: which are written, and how.
        exclusive: no other process can write them, so temporary names may be used again.
    """

    def __init__(
        self,
        stems: tuple[str, ...],
        source: AudioFile,
        places: OutputPaths,
        options: OutputOptions,
        exclusive: bool,
    ) -> None:
        self.stems, self.source, self.options = stems, source, options
        self.exclusive = exclusive
        self.tags = read_tags(source.path) if options.copy_tags else Tags()
        self.encoding = options.encoding_for(source.bit_depth)
        self.targets = options.targets(places, stems)
        self.sample_rate = options.sample_rate or source.source_sample_rate
        self.length = resampled_length(
            source.source_length, source.source_sample_rate, self.sample_rate
        )


class _Writer(Protocol):
    """Writes waveforms to one file each, or all to one file."""

    def write(self, waveforms: Waveforms) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class Output:
    """Writes the stems of one track to its files, in threads of its own.

    As a context manager it leaves the finished files, or nothing of them.
    """

    def __init__(self, files: TrackFiles, gain: float = 1.0) -> None:
        self._length = files.length
        self._mixdown = Mixdown(
            files.stems, files.source, files.sample_rate, files.options, files.encoding, gain
        )
        self._files: _Writer = (_OneFile if files.options.stem_file else _FileEach)(files)
        self._worker = Worker(WAITING)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def write(self, stems: Tensor) -> None:
        """Append (S, C, L) at the model's rate."""
        self._worker.submit(lambda: self._files.write(self._mixdown.push(stems)))

    def finish(self) -> dict[str, float]:
        """Append the tail of the resamplers; return the peak of each file."""
        self._worker.submit(lambda: self._files.write(self._mixdown.finish(self._length)))
        self._worker.wait()
        return self._mixdown.peaks

    def close(self) -> None:
        """Finish the files and give them their names."""
        self._files.close()

    def abort(self) -> None:
        """Remove what was written of the files."""
        self._worker.stop()
        self._files.abort()


class _FileEach:
    """One file for each waveform, each encoded in its own thread."""

    def __init__(self, files: TrackFiles) -> None:
        self._writers: dict[str, AudioWriter] = {}
        self._workers: dict[str, Worker] = {}
        try:
            for name, target in files.targets.items():
                self._writers[name] = AudioWriter(
                    target,
                    files.sample_rate,
                    files.source.channels,
                    files.encoding,
                    finish=_finish(files, name),
                    temporary=_temporary(files, target),
                )
                self._workers[name] = Worker(WAITING)
        except BaseException:
            self.abort()
            raise

    def write(self, waveforms: Waveforms) -> None:
        for name, waveform in waveforms.items():
            self._workers[name].submit(self._writers[name].write, waveform)

    def close(self) -> None:
        for name, worker in self._workers.items():
            worker.submit(self._writers[name].close)
        for worker in self._workers.values():
            worker.wait()
        self.abort()

    def abort(self) -> None:
        for worker in self._workers.values():
            worker.stop()
        for writer in self._writers.values():
            writer.abort()


class _OneFile:
    """One file of the mixture and all stems, for DJ programs."""

    def __init__(self, files: TrackFiles) -> None:
        [target] = files.targets.values()
        self._writer = StemFileWriter(
            target,
            files.sample_rate,
            files.stems,
            bitrate=files.encoding.bitrate,
            finish=_finish(files, None),
            temporary=_temporary(files, target),
        )

    def write(self, waveforms: Mapping[str, Tensor]) -> None:
        stems = {name: w for name, w in waveforms.items() if name != MIXTURE}
        self._writer.write(waveforms[MIXTURE], stems)

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        self._writer.abort()


def _finish(files: TrackFiles, stem: str | None) -> Callable[[Path], None]:
    """Return the last step before a file gets its name: tags and times."""

    def finish(encoded: Path) -> None:
        write_tags(files.tags, encoded, format=files.encoding.format, title_suffix=stem)
        if files.options.keep_times:
            status = files.source.path.stat()
            os.utime(encoded, ns=(status.st_atime_ns, status.st_mtime_ns))

    return finish


def _temporary(files: TrackFiles, target: Path) -> Path | None:
    """Return a name that the next attempt uses again; None where another process may be writing."""
    if not files.exclusive:
        return None
    digest = hashlib.sha256(target.name.encode("utf-8", "surrogateescape")).hexdigest()
    return target.with_name(f".htdemucs-{digest[:16]}.partial")
