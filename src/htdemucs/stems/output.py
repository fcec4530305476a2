"""Writing a track's files in threads of their own."""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, Self

from torch import Tensor

from htdemucs.audio import (
    AudioFile,
    AudioWriter,
    StemFileWriter,
    Tags,
    read_tags,
    resampled_length,
    write_tags,
)
from htdemucs.stems.mixdown import MIXTURE, Mixdown, Waveforms
from htdemucs.stems.naming import Places
from htdemucs.stems.options import OutputOptions
from htdemucs.stems.pipeline import Worker

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
        places: Places,
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
