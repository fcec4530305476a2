"""Stems on their way to a track's files, in threads of their own."""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from torch import Tensor

from htdemucs.audio import AudioFile, AudioWriter, StemFileWriter, copy_tags, resampled_length
from htdemucs.separation.mixdown import MIXTURE, Mixdown, Waveforms
from htdemucs.separation.naming import Places
from htdemucs.separation.options import OutputOptions
from htdemucs.separation.pipeline import Worker

WAITING = 2  # blocks between decoding, the network and encoding


class Job:
    """What is to be written of one track.

    `resumable` says that the track's files are this process's alone, and so are their temporary
    names.
    """

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


class _Writer(Protocol):
    """Of files: one each, or one for all."""

    def write(self, waveforms: Waveforms) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class Output:
    """Stems on their way to their files, in threads of their own.

    As a context manager it leaves the finished files, or nothing of them.
    """

    def __init__(self, job: Job, gain: float = 1.0) -> None:
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
        self.abort()

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
        self._worker.stop()
        self._files.abort()


class _FileEach:
    """A file for each waveform, encoded in a thread for each."""

    def __init__(self, job: Job) -> None:
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

    def __init__(self, job: Job) -> None:
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


def _finish(job: Job, stem: str | None) -> Callable[[Path], None]:
    """What is done to a file before it gets its name."""

    def finish(encoded: Path) -> None:
        path = job.source.path
        if job.options.copy_tags:
            copy_tags(path, encoded, format=job.encoding.format, title_suffix=stem)
        if job.options.keep_times:
            status = path.stat()
            os.utime(encoded, ns=(status.st_atime_ns, status.st_mtime_ns))

    return finish


def _temporary(job: Job, target: Path) -> Path | None:
    """A name that the next attempt takes again, where no other process can be at work here."""
    if not job.resumable:
        return None
    digest = hashlib.sha256(target.name.encode("utf-8", "surrogateescape")).hexdigest()
    return target.with_name(f".htdemucs-{digest[:16]}.partial")
