"""Where estimates come from: a model that separates now, or files separated earlier."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from htdemucs.audio import AudioFile, reblock
from htdemucs.errors import EvaluationError
from htdemucs.evaluation.naming import estimate_files
from htdemucs.evaluation.threads import threads
from htdemucs.evaluation.tracks import (
    MIXTURE,
    Track,
    TrackReader,
    audio_files,
    oddities,
    side_by_side,
)
from htdemucs.separation import Separator


class Estimates(ABC):
    """The estimated stems of one track, to be iterated once, as frames (S, C, L) of a second.

    The attributes are complete once the frames are.

    Attributes:
        files: path of every file read.
        seconds: time the separation took; None where it happened earlier.
        broken_samples: how many were NaN or infinite in files; a model that gives such is refused.
        notes: what was odd.
    """

    def __init__(self) -> None:
        self.files: dict[str, Path] = {}
        self.seconds: float | None = None
        self.broken_samples = 0
        self.notes: list[str] = []

    @abstractmethod
    def __iter__(self) -> Iterator[Tensor]: ...


class Estimator(ABC):
    """Gives the estimates of any track.

    Attributes:
        stems: which, and in which order.
        sample_rate, channels: what it works with; None for those of each track.
    """

    stems: tuple[str, ...]
    sample_rate: int | None = None
    channels: int | None = None

    @abstractmethod
    def estimates(self, reader: TrackReader) -> Estimates:
        """The estimates of the reader's track."""


class ModelEstimator(Estimator):
    """Separates each track's mixture."""

    def __init__(self, separator: Separator) -> None:
        self.separator = separator
        self.stems = separator.stems
        self.sample_rate = separator.sample_rate
        self.channels = separator.audio_channels
        self._threads = torch.get_num_threads()

    def estimates(self, reader: TrackReader) -> Estimates:
        """Runs while it is iterated, in memory that does not grow with the track."""
        return _Separated(self.separator, reader, self._threads)


class FileEstimator(Estimator):
    """Reads files that some program left in a folder, named in one of `naming.NAMINGS`."""

    def __init__(self, folder: Path, stems: Sequence[str]) -> None:
        self.folder = folder
        self.stems = tuple(stems)

    def estimates(self, reader: TrackReader) -> Estimates:
        """Files at another sample rate or number of channels are converted to the track's.

        Raises:
            EvaluationError: a stem has no file, or several.
        """
        name = reader.track.name
        files = estimate_files(self.folder, name, self.stems)
        missing = [stem for stem in self.stems if stem not in files]
        if missing:
            raise EvaluationError(
                f"there is no estimate of {', '.join(missing)} in {self.folder}; it should hold "
                f"{name}/{missing[0]}.wav"
            )
        return _Read(files, reader)


def estimated_stems(folder: Path, tracks: Sequence[Track]) -> tuple[str, ...]:
    """The stems that some track has an estimate and a reference for, in alphabetical order.

    Raises:
        EvaluationError: there are none.
    """
    if not folder.is_dir():
        raise EvaluationError(f"--estimates {folder} is not a folder; name one with TRACK/STEM.wav")
    stems = _stems_in(folder, tracks)
    if stems:
        return tuple(sorted(stems))
    inside = (path for path in sorted(folder.iterdir()) if path.is_dir())
    deeper = next((path for path in inside if _stems_in(path, tracks)), None)
    _estimated(folder, tracks[0])  # tells if there are estimates, but something is wrong with them
    raise EvaluationError(
        f"no estimates of {tracks[0].name} in {folder}; "
        + (f"try --estimates {deeper}" if deeper else f"it should hold {tracks[0].name}/STEM.wav")
    )


def _stems_in(folder: Path, tracks: Sequence[Track]) -> set[str]:
    stems: set[str] = set()
    for track in tracks:
        with suppress(EvaluationError):  # this track will be named when it is scored
            stems |= _estimated(folder, track)
    return stems


def _estimated(folder: Path, track: Track) -> set[str]:
    references = audio_files(track.folder).keys() - {MIXTURE}
    return set(estimate_files(folder, track.name, references))


class _Separated(Estimates):
    def __init__(self, separator: Separator, reader: TrackReader, count: int) -> None:
        super().__init__()
        self._separator, self._reader, self._threads = separator, reader, count
        self.seconds: float = 0.0

    def __iter__(self) -> Iterator[Tensor]:
        count = len(self._separator.stems)
        for block in reblock(self._blocks(), self._separator.sample_rate):
            yield block.unflatten(0, (count, -1))

    def _blocks(self) -> Iterator[Tensor]:
        """(S * C, L) each"""
        stream = self._separator.stream(self._reader.mixture())
        blocks = (torch.cat([stem.cpu() for stem in stems.values()]) for stems in stream)
        while (block := self._timed_next(blocks)) is not None:
            yield block

    def _timed_next(self, blocks: Iterator[Tensor]) -> Tensor | None:
        start = time.perf_counter()
        with threads(self._threads):
            block = next(blocks, None)
        self.seconds += time.perf_counter() - start
        return block


class _Read(Estimates):
    def __init__(self, files: dict[str, Path], reader: TrackReader) -> None:
        super().__init__()
        self.files = files
        self._reader = reader

    def __iter__(self) -> Iterator[Tensor]:
        rate, channels = self._reader.sample_rate, self._reader.channels
        opened = {
            name: AudioFile(path, sample_rate=rate, channels=channels)
            for name, path in self.files.items()
        }
        for blocks in side_by_side(list(opened.values())):
            yield torch.stack(blocks)
        lengths = {f.source_length / f.source_sample_rate for f in opened.values()}
        if (max(lengths) - min(lengths)) * rate >= 1:
            self.notes.append("the estimates differ in length")
        for name, file in opened.items():
            if file.source_sample_rate != rate:
                self.notes.append(f"the estimate {name} has {file.source_sample_rate} Hz")
            self.broken_samples += file.repaired_samples
            self.notes += oddities(f"the estimate {name}", file)
