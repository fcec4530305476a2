"""The two origins of estimates: a model that separates now, or files separated earlier."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from htdemucs.audio import AudioFile, reblock
from htdemucs.errors import AudioError, EvaluationError
from htdemucs.evaluation.dataset import (
    Multitrack,
    MultitrackReader,
    choose_stems,
    decode_warnings,
    estimate_files,
    read_multitrack,
    side_by_side,
)
from htdemucs.fast.runtime import threads
from htdemucs.separation import Separator


class Estimates(ABC):
    """The estimated stems of one multitrack, to be iterated once, as frames (S, C, L) of a second.

    The attributes are complete once the frames are.

    Attributes:
        files: path of every file read.
        seconds: time the separation took; None where it happened earlier.
        broken_samples: how many were NaN or infinite in files; a model that gives such is refused.
        notes: anything odd about the files.
    """

    def __init__(self) -> None:
        self.files: dict[str, Path] = {}
        self.seconds: float | None = None
        self.broken_samples = 0
        self.notes: list[str] = []

    @abstractmethod
    def __iter__(self) -> Iterator[Tensor]: ...


class Estimator(ABC):
    """Gives the estimates of any multitrack.

    Attributes:
        stems: the stems that it estimates, in order.
        sources: all stems that a song has for it; empty if unknown.
        sample_rate, channels: of its audio; None for those of each multitrack.
    """

    stems: tuple[str, ...]
    sources: tuple[str, ...] = ()
    sample_rate: int | None = None
    channels: int | None = None

    @abstractmethod
    def estimates(self, reader: MultitrackReader) -> Estimates:
        """Return the estimates of the reader's multitrack."""


class ModelEstimator(Estimator):
    """Separates each multitrack's mixture."""

    def __init__(self, separator: Separator) -> None:
        self.separator = separator
        self.stems = separator.stems
        self.sources = separator.sources
        self.sample_rate = separator.sample_rate
        self.channels = separator.audio_channels
        self._threads = torch.get_num_threads()

    def estimates(self, reader: MultitrackReader) -> Estimates:
        """Return estimates that are made while they are iterated, in bounded memory."""
        return _Separated(self.separator, reader, self._threads)


class FileEstimator(Estimator):
    """Reads files that some program left in a folder, named in one of `naming.NAMINGS`."""

    def __init__(self, folder: Path, stems: Sequence[str]) -> None:
        self.folder = folder
        self.stems = tuple(stems)

    def estimates(self, reader: MultitrackReader) -> Estimates:
        """Return the files' estimates, at the multitrack's sample rate and number of channels.

        Raises:
            EvaluationError: a stem has no file, or several.
        """
        name = reader.multitrack.name
        files = estimate_files(self.folder, name, self.stems)
        missing = [stem for stem in self.stems if stem not in files]
        if missing:
            raise EvaluationError(
                f"there is no estimate of {', '.join(missing)} in {self.folder}; it should hold "
                f"{name}/{missing[0]}.wav"
            )
        return _Read(files, reader)


def estimated_stems(folder: Path, data: Sequence[Path]) -> tuple[str, ...]:
    """Return the stems that have an estimate and a reference somewhere, in alphabetical order.

    A stem that is the sum of others is not among them.

    Args:
        folder: of estimates.
        data: folders of multitracks.

    Raises:
        EvaluationError: there are none.
    """
    if not folder.is_dir():
        raise EvaluationError(f"{folder} is not a folder; name one with estimates TRACK/STEM.wav")
    stems = _estimated_somewhere(folder, data)
    if stems:
        return tuple(sorted(stems - _sums_among(stems, data)))
    inside = (path for path in sorted(folder.iterdir()) if path.is_dir())
    deeper = next((path for path in inside if _estimated_somewhere(path, data)), None)
    _estimated(folder, read_multitrack(data[0]))  # raises if something is wrong with those there
    name = data[0].name
    raise EvaluationError(
        f"no estimates of {name} in {folder}; "
        + (f"try {deeper}" if deeper else f"it should hold {name}/STEM.wav")
    )


def _estimated_somewhere(folder: Path, data: Sequence[Path]) -> set[str]:
    stems: set[str] = set()
    for path in data:
        with suppress(EvaluationError):  # it will be named when it is scored
            stems |= _estimated(folder, read_multitrack(path))
    return stems


def _estimated(folder: Path, multitrack: Multitrack) -> set[str]:
    return set(estimate_files(folder, multitrack.name, multitrack.stems))


def _sums_among(stems: set[str], data: Sequence[Path]) -> set[str]:
    """Return the stems that are sums of others, in the first multitrack that can be read."""
    for path in data:
        with suppress(EvaluationError, AudioError):
            multitrack = read_multitrack(path)
            if not multitrack.missing(stems):
                return set(choose_stems(multitrack, list(stems)).missing(stems))
    return set()


class _Separated(Estimates):
    def __init__(self, separator: Separator, reader: MultitrackReader, count: int) -> None:
        super().__init__()
        self._separator, self._reader, self._threads = separator, reader, count
        self.seconds: float = 0.0

    def __iter__(self) -> Iterator[Tensor]:
        count = len(self._separator.stems)
        for block in reblock(self._blocks(), self._separator.sample_rate):
            yield block.unflatten(0, (count, -1))

    def _blocks(self) -> Iterator[Tensor]:
        """Yield blocks (S * C, L)."""
        stream = self._separator.stream(self._reader.mixture())
        blocks = (torch.cat(list(stems.values())).cpu() for stems in stream)
        while (block := self._timed_next(blocks)) is not None:
            yield block

    def _timed_next(self, blocks: Iterator[Tensor]) -> Tensor | None:
        start = time.perf_counter()
        with threads(self._threads):
            block = next(blocks, None)
        self.seconds += time.perf_counter() - start
        return block


class _Read(Estimates):
    def __init__(self, files: dict[str, Path], reader: MultitrackReader) -> None:
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
            self.broken_samples += file.replaced_samples
            self.notes += decode_warnings(f"the estimate {name}", file)
