"""Where estimates come from: a model that separates now, or files separated earlier."""

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from htdemucs.audio import AudioFile, reblock
from htdemucs.errors import EvaluationError
from htdemucs.evaluation.threads import threads
from htdemucs.evaluation.tracks import (
    MIXTURE,
    SUBSET,
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
        broken_samples: how many were NaN or infinite.
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
    """Reads FOLDER/TRACK/STEM.EXT, as any tool may have written it."""

    def __init__(self, folder: Path, stems: Sequence[str]) -> None:
        self.folder = folder
        self.stems = tuple(stems)

    def estimates(self, reader: TrackReader) -> Estimates:
        """Files at another sample rate or number of channels are converted to the track's.

        Raises:
            EvaluationError: there is no such folder, or a stem is not in it.
        """
        return _Read(_track_files(self.folder, reader.track, self.stems), reader)


def estimated_stems(folder: Path, tracks: Sequence[Track]) -> tuple[str, ...]:
    """The stems that some track has an estimate and a reference for, in alphabetical order.

    Raises:
        EvaluationError: there are none.
    """
    if not folder.is_dir():
        raise EvaluationError(f"--estimates {folder} is not a folder; name one with TRACK/STEM.wav")
    stems: set[str] = set()
    for track in tracks:
        with contextlib.suppress(EvaluationError):  # this track will be named when it is scored
            found = audio_files(_track_folder(folder, track)).keys()
            stems |= (found & audio_files(track.folder).keys()) - {MIXTURE}
    if not stems:
        raise EvaluationError(
            f"no estimates in {folder}; there should be files such as {tracks[0].name}/vocals.wav"
        )
    return tuple(sorted(stems))


class _Separated(Estimates):
    def __init__(self, separator: Separator, reader: TrackReader, count: int) -> None:
        super().__init__()
        self._separator, self._reader, self._threads = separator, reader, count
        self.seconds: float = 0.0

    def __iter__(self) -> Iterator[Tensor]:
        count = len(self._separator.stems)
        for block in reblock(self._blocks(), self._separator.sample_rate):
            yield block.unflatten(0, (count, -1))
        if self.broken_samples:
            self.notes.append(f"the model gave {self.broken_samples} NaN or infinite samples")

    def _blocks(self) -> Iterator[Tensor]:
        """(S * C, L) each"""
        stream = self._separator.stream(self._reader.mixture())
        blocks = (torch.cat([stem.cpu() for stem in stems.values()]) for stems in stream)
        while (block := self._timed_next(blocks)) is not None:
            self.broken_samples += block.numel() - int(block.isfinite().sum())
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


def _track_folder(folder: Path, track: Track) -> Path:
    """FOLDER/TRACK, or FOLDER/test/TRACK as museval has it."""
    nested = folder / SUBSET / track.name
    return nested if nested.is_dir() and not (folder / track.name).is_dir() else folder / track.name


def _track_files(folder: Path, track: Track, stems: Sequence[str]) -> dict[str, Path]:
    found = _track_folder(folder, track)
    if not found.is_dir():
        raise EvaluationError(f"there are no estimates: no folder {found}")
    files = audio_files(found)
    missing = [stem for stem in stems if stem not in files]
    if missing:
        raise EvaluationError(f"there is no estimate of {', '.join(missing)} in {found}")
    return {stem: files[stem] for stem in stems}
