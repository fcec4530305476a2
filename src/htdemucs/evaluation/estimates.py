"""Estimates of the stems: from a model that separates now, or from files separated earlier."""

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from htdemucs.audio import AudioFile, reblock, zip_blocks
from htdemucs.errors import EvaluationError
from htdemucs.evaluation.dataset import (
    ACCOMPANIMENT,
    VOCALS,
    MultitrackReader,
    assign_stems,
    audio_paths,
    decode_warnings,
    read_multitrack,
    stem_key,
)
from htdemucs.fast.runtime import threads
from htdemucs.separation import Separator

NAMINGS = (  # paths in the folder, without the suffix; * stands for anything
    "{track}/{stem}",  # htdemucs, demucs, Spleeter, Open-Unmix
    "test/{track}/{stem}",  # museval
    "train/{track}/{stem}",
    "{track}/mixture_({stem})*",  # audio-separator, given a folder for each track's mixture
    "{track}_{stem}",
    "{track} - {stem}",
    "{track}_({stem})*",  # audio-separator
    "{number}_{track}_({stem})",  # Ultimate Vocal Remover
)


class Estimates(ABC):
    """The estimated stems of one multitrack, as frames (S, C, L) of a second.

    They can be iterated once. The attributes are complete after the last frame.

    Attributes:
        files: the path of every file that was read.
        seconds: the time that the separation took; None for files.
        nonfinite_samples: count of NaN and infinite samples in files; a model with such output is
            an error.
        notes: notes about unusual files.
    """

    def __init__(self) -> None:
        self.files: dict[str, Path] = {}
        self.seconds: float | None = None
        self.nonfinite_samples = 0
        self.notes: list[str] = []

    @abstractmethod
    def __iter__(self) -> Iterator[Tensor]: ...


class Estimator(ABC):
    """Returns the estimates of any multitrack.

    Attributes:
        stems: the stems that it estimates, in order.
        sources: all stems that a song consists of for the model; empty if unknown.
        sample_rate, channels: those of its audio; None for those of each multitrack.
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
        """Return estimates that are computed during their iteration, in bounded memory."""
        return _ModelEstimates(self.separator, reader, self._threads)


class FileEstimator(Estimator):
    """Reads files that any program has written to a folder, with names as in `NAMINGS`."""

    def __init__(self, folder: Path, stems: Sequence[str]) -> None:
        self.folder = folder
        self.stems = tuple(stems)

    def estimates(self, reader: MultitrackReader) -> Estimates:
        """Return the estimates, at the multitrack's sample rate and number of channels.

        Raises:
            EvaluationError: a stem has no file, or two.
        """
        name = reader.multitrack.name
        files = estimate_files(self.folder, name, self.stems)
        missing = [stem for stem in self.stems if stem not in files]
        if missing:
            raise EvaluationError(
                f"there is no estimate of {', '.join(missing)} in {self.folder}; it should hold "
                f"{name}/{missing[0]}.wav"
            )
        return _FileEstimates(files, reader)


def estimate_files(folder: Path, track: str, stems: Iterable[str]) -> dict[str, Path]:
    """Return the file of each of the stems that has one, by the first naming that finds any.

    Raises:
        EvaluationError: the folder cannot be read, or two files have the name of one stem.
    """
    for naming in NAMINGS:
        subfolder, _, name = naming.rpartition("/")
        pattern = _file_name_pattern(name, track)
        matches = {
            path: match["stem"]
            for path in audio_paths(folder / subfolder.format(track=track))
            if (match := pattern.fullmatch(path.stem))
        }
        keys = {stem_key(stem): stem for stem in stems}
        found = {path: name for path, name in matches.items() if stem_key(name) in keys}
        if found:
            files, _ = assign_stems(found)
            return {stem: files[key] for key, stem in keys.items() if key in files}
    return {}


def _file_name_pattern(name: str, track: str) -> re.Pattern[str]:
    """Return the pattern of a file name in `NAMINGS`, with the group "stem"."""
    fields = {
        "{track}": re.escape(track),
        "{stem}": "(?P<stem>.+?)",
        "{number}": r"\d+",
        "*": ".*",
    }
    pieces = re.split(r"(\{\w+\}|\*)", name)
    return re.compile("".join(fields.get(piece, re.escape(piece)) for piece in pieces), re.DOTALL)


def estimated_stems(folder: Path, data: Sequence[Path]) -> tuple[str, ...]:
    """Return the stems that have an estimate and a reference somewhere, in alphabetical order.

    The accompaniment is one of them only if there are no estimates of its parts.

    Args:
        folder: of estimates.
        data: folders of multitracks.

    Raises:
        EvaluationError: there are none.
    """
    if not folder.is_dir():
        raise EvaluationError(
            f"{folder} is not a folder; specify one with estimates TRACK/STEM.wav"
        )
    stems = _stems_with_estimates(folder, data)
    if stems:
        has_parts = bool(stems - {VOCALS, ACCOMPANIMENT})
        return tuple(sorted(stems - {ACCOMPANIMENT} if has_parts else stems))
    name = data[0].name
    estimate_files(folder, name, read_multitrack(data[0]).stems)  # raises what was suppressed
    subfolders = (path for path in sorted(folder.iterdir()) if path.is_dir())
    nested = next((path for path in subfolders if _stems_with_estimates(path, data)), None)
    hint = f"try {nested}" if nested else f"it should hold {name}/STEM.wav"
    raise EvaluationError(f"no estimates of {name} in {folder}; {hint}")


def _stems_with_estimates(folder: Path, data: Sequence[Path]) -> set[str]:
    stems: set[str] = set()
    for path in data:
        with suppress(EvaluationError):  # reported when the track is scored
            stems |= set(estimate_files(folder, path.name, read_multitrack(path).stems))
    return stems


class _ModelEstimates(Estimates):
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


class _FileEstimates(Estimates):
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
        yield from zip_blocks(list(opened.values()), rate)
        lengths = {f.source_length / f.source_sample_rate for f in opened.values()}
        if (max(lengths) - min(lengths)) * rate >= 1:
            self.notes.append("the estimates differ in length")
        for name, file in opened.items():
            if file.source_sample_rate != rate:
                self.notes.append(f"the estimate {name} has {file.source_sample_rate} Hz")
            self.nonfinite_samples += file.replaced_samples
            self.notes += decode_warnings(f"the estimate {name}", file)
