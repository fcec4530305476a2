"""From an audio file to files of stems."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from htdemucs.audio import (
    AudioFile,
    AudioWriter,
    Spool,
    StemFileWriter,
    copy_tags,
    resampled_length,
)
from htdemucs.separation.mixdown import MIXTURE, Mixdown, Waveforms
from htdemucs.separation.naming import Places
from htdemucs.separation.normalization import measure
from htdemucs.separation.options import OutputOptions
from htdemucs.separation.pipeline import Worker, read_ahead

if TYPE_CHECKING:
    from htdemucs.separation.separator import Progress, Separator

WAITING = 2  # blocks between decoding, the network and encoding
BLOCK_LENGTH = 1 << 18  # samples read back from a spool at a time


class Resumption(NamedTuple):
    """Where unfinished work is kept, and the key that says what it belongs to."""

    spool: Path
    key: str


@dataclass(frozen=True)
class SeparatedFile:
    """What came of a track.

    Attributes:
        files: by the name of what they hold.
        sample_rate, length: of the files: Hz, samples.
        source_length: samples at the track's own rate.
        bit_depth: of the files; None in lossy formats.
        gain: on everything, so that nothing clips.
        peaks: greatest absolute sample of each file before the gain.
        warnings: what was wrong with the track.
        resumed: seconds that an earlier attempt had finished.
    """

    files: dict[str, Path]
    sample_rate: int
    length: int
    source_length: int
    bit_depth: int | None
    gain: float
    peaks: dict[str, float]
    warnings: tuple[str, ...]
    resumed: float


def separate_file(
    separator: "Separator",
    path: Path,
    places: Places,
    options: OutputOptions,
    on_progress: "Callable[[Progress], None] | None" = None,
    resumption: Resumption | None = None,
) -> SeparatedFile:
    """Separate the file at `path`.

    With a `resumption` what is separated is kept on disk at every segment, and an earlier attempt
    under the same key gone on with: the result is the same to the bit.

    Raises:
        AudioError: the file cannot be read, or a stem cannot be written.
        SeparationError: the options do not fit the model.
    """
    options.needed_stems(separator.stems)  # refuses a stem that is not there
    source = AudioFile(path, sample_rate=separator.sample_rate, channels=separator.audio_channels)
    normalization = measure(source)
    separator.check_length(normalization.length)
    job = _Job(separator.stems, source, places, options, resumption is not None)
    with ExitStack() as stack:
        spool = stack.enter_context(_spool(job, resumption))
        finished = spool.length
        output = stack.enter_context(_Output(job))
        for block in _stems(spool, source.channels):
            output.write(block)
        blocks = stack.enter_context(closing(read_ahead(source, WAITING)))
        done = finished
        for separated in separator.stream(blocks, normalization, skip=finished):
            block = torch.stack([stem.cpu() for stem in separated.values()])
            spool.write(block.flatten(0, 1))
            output.write(block)
            done += block.shape[-1]
            if on_progress:
                on_progress(separator.progress(done, normalization.length))
        peaks = output.finish()
        gain = options.gain(max(peaks.values()), job.encoding)
        if gain != 1:  # seldom: everything is encoded once more
            output.abort()
            output = stack.enter_context(_Output(job, gain))
            for block in _stems(spool, source.channels):
                output.write(block)
            output.finish()
        output.close()
    return job.result(gain, peaks, finished)


class _Job:
    """What is to be written of one track."""

    def __init__(
        self,
        stems: tuple[str, ...],
        source: AudioFile,
        places: Places,
        options: OutputOptions,
        resumable: bool,
    ) -> None:
        self.stems, self.source, self.options = stems, source, options
        self.resumable = resumable
        self.encoding = options.encoding_for(source.bit_depth)
        self.targets = options.targets(places, stems)
        self.sample_rate = options.sample_rate or source.source_sample_rate
        self.length = resampled_length(
            source.source_length, source.source_sample_rate, self.sample_rate
        )

    def result(self, gain: float, peaks: dict[str, float], finished: int) -> SeparatedFile:
        source = self.source
        warnings = []
        if source.skipped_packets:
            warnings.append(f"{source.skipped_packets} damaged packets were left out")
        if source.repaired_samples:
            warnings.append(f"{source.repaired_samples} samples were not finite and became 0")
        return SeparatedFile(
            files=self.targets,
            sample_rate=self.sample_rate,
            length=self.length,
            source_length=source.source_length,
            bit_depth=self.encoding.depth,
            gain=gain,
            peaks=peaks,
            warnings=tuple(warnings),
            resumed=finished / source.sample_rate,
        )


class _Writer(Protocol):
    """Of files: one each, or one for all."""

    def write(self, waveforms: Waveforms) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class _Output:
    """Stems on their way to their files, in threads of their own.

    As a context manager it leaves the finished files, or nothing of them.
    """

    def __init__(self, job: _Job, gain: float = 1.0) -> None:
        self._length = job.length
        self._mixdown = Mixdown(
            job.stems, job.source, job.sample_rate, job.options, job.encoding, gain
        )
        self._files: _Writer = (_OneFile if job.options.stem_file else _FileEach)(job)
        self._worker = Worker(WAITING)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._worker.__exit__(kind, error, trace)
        self._files.abort()

    def write(self, stems: Tensor) -> None:
        """Append (S, C, L) at the model's rate."""
        self._worker.submit(lambda: self._files.write(self._mixdown.push(stems)))

    def finish(self) -> dict[str, float]:
        """Append what is still on its way; give the peaks of all files."""
        self._worker.submit(lambda: self._files.write(self._mixdown.finish(self._length)))
        self._worker.wait()
        return self._mixdown.peaks

    def close(self) -> None:
        """Give the files their names."""
        self._files.close()

    def abort(self) -> None:
        """Leave nothing of the files."""
        self._files.abort()


class _FileEach:
    """A file for each waveform, encoded in a thread for each."""

    def __init__(self, job: _Job) -> None:
        self._writers: dict[str, AudioWriter] = {}
        self._workers: dict[str, Worker] = {}
        try:
            for name, target in job.targets.items():
                self._writers[name] = AudioWriter(
                    target,
                    job.sample_rate,
                    job.source.channels,
                    job.encoding,
                    finish=_finish(job, name),
                    temporary=_temporary(job, target),
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

    def __init__(self, job: _Job) -> None:
        [target] = job.targets.values()
        self._writer = StemFileWriter(
            target,
            job.sample_rate,
            job.stems,
            bitrate=job.encoding.bitrate,
            finish=_finish(job, None),
            temporary=_temporary(job, target),
        )

    def write(self, waveforms: Mapping[str, Tensor]) -> None:
        stems = {name: w for name, w in waveforms.items() if name != MIXTURE}
        self._writer.write(waveforms[MIXTURE], stems)

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        self._writer.abort()


def _spool(job: _Job, resumption: Resumption | None) -> Spool:
    channels = len(job.stems) * job.source.channels
    if resumption is None:
        return Spool(next(iter(job.targets.values())).parent, channels)
    return Spool.kept(resumption.spool, channels, resumption.key)


def _stems(spool: Spool, channels: int) -> Iterator[Tensor]:
    """What a spool holds, in blocks (S, C, L)."""
    for block in spool.blocks(BLOCK_LENGTH):
        yield block.unflatten(0, (-1, channels))


def _finish(job: _Job, stem: str | None) -> Callable[[Path], None]:
    """What is done to a file before it gets its name."""

    def finish(encoded: Path) -> None:
        path = job.source.path
        if job.options.copy_tags:
            copy_tags(path, encoded, format=job.encoding.format, title_suffix=stem)
        if job.options.keep_times:
            status = path.stat()
            os.utime(encoded, ns=(status.st_atime_ns, status.st_mtime_ns))

    return finish


def _temporary(job: _Job, target: Path) -> Path | None:
    """A name that the next attempt takes again, where no other process can be at work here."""
    if not job.resumable:
        return None
    digest = hashlib.sha256(target.name.encode("utf-8", "surrogateescape")).hexdigest()
    return target.with_name(f".htdemucs-{digest[:16]}.partial")
