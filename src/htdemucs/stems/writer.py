"""Writing the stems of a track to its files, while the network computes the next ones.

`StemWriter` passes blocks of stems through `Postprocessor` (sample rate, two stems, residual,
limits) to one encoder for each file. Each of these runs in a background thread. `read_ahead` does
the same for the decoder.
"""

import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
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
    read_chapters,
    read_tags,
    resampled_length,
    write_tags,
)
from htdemucs.audio.wav_chunks import chunks_of_stems, read_wav_chunks, write_wav_chunks
from htdemucs.errors import SeparationError
from htdemucs.fast import use_this_thread_only
from htdemucs.stems.output_options import RESIDUAL, OutputOptions
from htdemucs.stems.paths import OutputPaths

MAX_PENDING = 2  # blocks that wait between the decoder, the network and an encoder
CLAMP = 0.99  # the limit of the clip mode "clamp"
MIXTURE = "mixture"
Waveforms = dict[str, Tensor]  # (C, L) at the files' sample rate, by the name of the stem
T = TypeVar("T")
_END: Any = object()


class OutputFiles:
    """The files of a track: their paths, encoding, sample rate, length, tags and chapters.

    Args:
        stems: names of the stems that the network gives.
        source: the track, read to its end, at the model's sample rate and channels.
        paths: where the files go.
        options: which files are written, and how.
        exclusive: whether no other process can write these files. Names of temporary files are
            then reused after a kill.
    """

    def __init__(
        self,
        stems: tuple[str, ...],
        source: AudioFile,
        paths: OutputPaths,
        options: OutputOptions,
        exclusive: bool,
    ) -> None:
        self.stems, self.source, self.options = stems, source, options
        self.tags = read_tags(source.path) if options.copy_tags else Tags()
        self.encoding = options.encoding_for(source.bit_depth)
        has_chapters = options.copy_tags and self.encoding.format == "m4a"
        self.chapters = read_chapters(source.path) if has_chapters else []
        self.paths = options.stem_paths(paths, stems)
        self.sample_rate = self.encoding.stored_rate(
            options.sample_rate or source.source_sample_rate
        )
        self.length = resampled_length(
            source.source_length, source.source_sample_rate, self.sample_rate
        )
        self._exclusive = exclusive
        self._wav_chunks: dict[bytes, bytes] = {}
        if options.copy_tags and self.encoding.format == "wav":
            self._wav_chunks = chunks_of_stems(
                read_wav_chunks(source.path), source.source_sample_rate, self.sample_rate
            )

    def temporary_path(self, path: Path) -> Path | None:
        """Return the name of an unfinished file; None for a random one."""
        if not self._exclusive:
            return None
        digest = hashlib.sha256(path.name.encode("utf-8", "surrogateescape")).hexdigest()
        return path.with_name(f".htdemucs-{digest[:16]}.partial")

    def tag(self, encoded: Path, stem: str | None = None) -> None:
        """Write tags, cover art and times to an encoded file."""
        write_wav_chunks(encoded, self._wav_chunks)
        write_tags(self.tags, encoded, format=self.encoding.format, title_suffix=stem)
        if self.options.keep_times:
            status = self.source.path.stat()
            os.utime(encoded, ns=(status.st_atime_ns, status.st_mtime_ns))


class StemWriter:
    """Writes the stems of one track to its files, in background threads.

    The files get their names in `close`. As a context manager it removes them if they were not
    closed.

    Args:
        files: the files to write.
        gain: factor for all of them.
    """

    def __init__(self, files: OutputFiles, gain: float = 1.0) -> None:
        self._length = files.length
        self._postprocessor = Postprocessor(files, gain)
        self._encoder: _Encoder = (
            _StemFileEncoder(files) if files.options.stem_file else _FileEncoders(files)
        )
        self._thread = BackgroundThread(MAX_PENDING)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def write(self, stems: Tensor) -> None:
        """Append (S, C, L) at the model's sample rate."""
        self._thread.submit(lambda: self._encoder.write(self._postprocessor.push(stems)))

    def finish(self) -> dict[str, float]:
        """Append the tails of the resamplers; return the peak of each file."""
        self._thread.submit(lambda: self._encoder.write(self._postprocessor.finish(self._length)))
        self._thread.wait()
        return self._postprocessor.peaks

    def close(self) -> None:
        """Complete the files and give them their names."""
        self._encoder.close()

    def abort(self) -> None:
        """Remove what was written of the files, unless they are complete."""
        self._thread.stop()
        self._encoder.abort()


class _Encoder(Protocol):
    def write(self, waveforms: Waveforms) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class _FileEncoders:
    """Encodes each waveform to a file, in a thread for each."""

    def __init__(self, files: OutputFiles) -> None:
        self._writers: dict[str, AudioWriter] = {}
        self._threads: dict[str, BackgroundThread] = {}
        try:
            for name, path in files.paths.items():
                self._writers[name] = AudioWriter(
                    path,
                    files.sample_rate,
                    files.source.channels,
                    files.encoding,
                    finish=partial(files.tag, stem=name),
                    temporary=files.temporary_path(path),
                    chapters=files.chapters,
                )
                self._threads[name] = BackgroundThread(MAX_PENDING)
        except BaseException:
            self.abort()
            raise

    def write(self, waveforms: Waveforms) -> None:
        for name, waveform in waveforms.items():
            self._threads[name].submit(self._writers[name].write, waveform)

    def close(self) -> None:
        for name, thread in self._threads.items():
            thread.submit(self._writers[name].close)
        for thread in self._threads.values():
            thread.wait()
        self.abort()

    def abort(self) -> None:
        for thread in self._threads.values():
            thread.stop()
        for writer in self._writers.values():
            writer.abort()


class _StemFileEncoder:
    """Encodes the mixture and all stems to one .stem.mp4 for DJ programs."""

    def __init__(self, files: OutputFiles) -> None:
        [path] = files.paths.values()
        self._writer = StemFileWriter(
            path,
            files.sample_rate,
            files.stems,
            bitrate=files.encoding.bitrate,
            finish=files.tag,
            temporary=files.temporary_path(path),
        )

    def write(self, waveforms: Waveforms) -> None:
        stems = {name: waveform for name, waveform in waveforms.items() if name != MIXTURE}
        self._writer.write(waveforms[MIXTURE], stems)

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        self._writer.abort()


class Postprocessor:
    """Turns stems at the model's sample rate into the waveforms of the files.

    The rest of the mixture and the residual are computed from the track itself, at the files'
    sample rate, so that nothing is lost on the way to the model's rate and back.

    Args:
        files: the files that receive the waveforms.
        gain: factor for all of them.

    Attributes:
        peaks: the greatest absolute sample of each waveform so far.
    """

    def __init__(self, files: OutputFiles, gain: float = 1.0) -> None:
        self._stems, self._options, self._gain = files.stems, files.options, gain
        self._steps = files.encoding.full_scale
        self._range = _sample_range(files.options, files.encoding)
        source = files.source
        self._resamplers = [
            Resampler(source.sample_rate, files.sample_rate, source.channels) for _ in files.stems
        ]
        self._pushed = 0  # samples at the files' rate
        self._mixture = None
        if self._options.needs_mixture:
            blocks = iter(source.at_rate(files.sample_rate))
            self._mixture = _SampleReader(blocks, source.channels)
        self.peaks: dict[str, float] = {}

    def push(self, stems: Tensor) -> Waveforms:
        """(S, C, L) -> (C, L') each at the files' sample rate; L' may be 0."""
        pairs = zip(self._resamplers, stems, strict=True)
        return self._process([resampler.push(stem) for resampler, stem in pairs])

    def finish(self, length: int) -> Waveforms:
        """Return the rest, up to `length` samples in all: resampling twice may round by one."""
        missing = length - self._pushed
        tails = [resampler.flush() for resampler in self._resamplers]
        return self._process([pad_or_trim(tail, missing) for tail in tails])

    def _process(self, resampled: list[Tensor]) -> Waveforms:
        length = resampled[0].shape[-1]
        self._pushed += length
        mixture = self._mixture.read(length) if self._mixture else resampled[0]
        if self._gain != 1:
            resampled = [self._gain * stem for stem in resampled]
            mixture = self._gain * mixture
        stems = dict(zip(self._stems, resampled, strict=True))
        waveforms = self._select(stems, mixture)
        if self._options.residual != "none":
            waveforms = self._add_residual(waveforms, mixture)
        elif self._options.clip_mode == "clamp":
            waveforms = {n: waveform.clamp(-CLAMP, CLAMP) for n, waveform in waveforms.items()}
        if self._options.stem_file:
            waveforms = {MIXTURE: mixture, **waveforms}
        for name, waveform in waveforms.items():
            lowest, highest = waveform.aminmax() if length else (0.0, 0.0)
            self.peaks[name] = max(self.peaks.get(name, 0.0), -float(lowest), float(highest))
        return waveforms

    def _select(self, stems: Waveforms, mixture: Tensor) -> Waveforms:
        """Return all stems or, with `two_stems`, that stem and the rest of the mixture."""
        stem, method = self._options.two_stems, self._options.other_method
        if stem is None:
            return stems
        waveforms = {stem: stems[stem]}
        if method == "add":
            others = [other for name, other in stems.items() if name != stem]
            waveforms["no_" + stem] = torch.stack(others).sum(0)
        elif method == "minus":
            waveforms["minus_" + stem] = mixture - stems[stem]
        return waveforms

    def _add_residual(self, waveforms: Waveforms, mixture: Tensor) -> Waveforms:
        """Return waveforms that add up to the mixture, within the range of the files.

        All but the last are rounded to the files' integer steps. The last is the difference, so
        rounding cancels out if the mixture has these steps too. What the last file cannot hold
        goes to the one before it, and so on.

        Raises:
            SeparationError: the mixture is louder than all files at their limits.
        """
        if self._options.residual == "spread":
            total = torch.stack(list(waveforms.values())).double().sum(0)
            share = ((mixture - total) / len(waveforms)).float()
            waveforms = {name: waveform + share for name, waveform in waveforms.items()}
        else:
            waveforms = {**waveforms, RESIDUAL: torch.zeros_like(mixture)}
        limited = {
            name: self._round(waveform).double().clamp(*self._range)
            for name, waveform in waveforms.items()
        }
        rest = mixture - torch.stack(list(limited.values())).sum(0)
        for name in reversed(limited):
            whole = limited[name] + rest
            limited[name] = whole.clamp(*self._range)
            rest = whole - limited[name]
            if not (rest.abs() > 0).any():
                return {name: waveform.float() for name, waveform in limited.items()}
        raise SeparationError(
            f"the track is too loud for {len(limited)} files to add up to it without clipping; "
            "set the clip mode to rescale"
        )

    def _round(self, waveform: Tensor) -> Tensor:
        """Return the waveform at the files' integer steps, if they have any."""
        if self._steps is None:
            return waveform
        return (waveform * self._steps).round() / self._steps


def _sample_range(options: OutputOptions, encoding: AudioEncoding) -> tuple[float, float]:
    """Return the lowest and highest sample that the files may contain."""
    steps = encoding.full_scale
    if options.clip_mode == "clamp":
        highest = CLAMP if steps is None else math.floor(CLAMP * steps) / steps
        return -highest, highest
    if options.clip_mode == "none" and steps is not None:
        return -1.0, (steps - 1) / steps
    return -math.inf, math.inf  # floats and lossy formats hold more; "rescale" needs true peaks


class _SampleReader:
    """Reads a track's blocks in portions of any length; after its end come zeros."""

    def __init__(self, blocks: Iterator[Tensor], channels: int) -> None:
        self._blocks = blocks
        self._buffer = torch.zeros(channels, 0)

    def read(self, count: int) -> Tensor:
        """Return the next samples, (C, count)."""
        while self._buffer.shape[-1] < count and (block := next(self._blocks, None)) is not None:
            self._buffer = torch.cat([self._buffer, block], dim=-1)
        samples, self._buffer = self._buffer[:, :count], self._buffer[:, count:]
        return pad_or_trim(samples, count)


class BackgroundThread:
    """Runs calls in another thread, in order; at most `max_pending` of them wait.

    As a context manager it ends after its last call or, on an exception, after the running one.
    An exception in a call is raised by a later `submit` or by `wait`.
    """

    def __init__(self, max_pending: int) -> None:
        self._max_pending = max_pending
        self._pool = ThreadPoolExecutor(1, "stem writer", use_this_thread_only)
        self._pending: deque[Future[object]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)

    def stop(self) -> None:
        """End after the running call."""
        self._pool.shutdown(cancel_futures=True)

    def submit(self, call: Callable[..., object], *arguments: object) -> None:
        """Run a call after those before it."""
        self._pending.append(self._pool.submit(call, *arguments))
        while len(self._pending) > self._max_pending:
            self._pending.popleft().result()

    def wait(self) -> None:
        """Wait until every call so far has returned."""
        while self._pending:
            self._pending.popleft().result()


def read_ahead(items: Iterable[T], count: int) -> Generator[T, None, None]:
    """Yield the same items while another thread makes the next `count`.

    An exception in that thread is raised where its item would be yielded. Close the generator to
    end the thread early.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(1, "read ahead", use_this_thread_only) as pool:
        pending = deque(pool.submit(next, iterator, _END) for _ in range(count))
        try:
            while (item := pending.popleft().result()) is not _END:
                pending.append(pool.submit(next, iterator, _END))
                yield item
        finally:
            pool.shutdown(cancel_futures=True)
