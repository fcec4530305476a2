"""Multitracks read in frames of a second: the mixture and all stems side by side."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from htdemucs.audio import AudioFile
from htdemucs.errors import EvaluationError
from htdemucs.evaluation.multitracks import Multitrack, deeper_audio, stem_key

MIXTURE = "mixture"


class Frame(NamedTuple):
    """A second of a multitrack; its last frame may be shorter."""

    mixture: Tensor  # (C, L)
    stems: Tensor  # (S, C, L), every stem of the multitrack


class MultitrackReader:
    """The audio of one multitrack at one sample rate, read in frames as often as wanted.

    Without a mixture file, the mixture is the sum of the stems. Files shorter than the longest one
    are followed by silence.

    Attributes:
        multitrack: what is read.
        stems: their names, in alphabetical order.
        sample_rate, channels: of the frames; by default the first file's, and 2 unless all files
            are mono.
        files: path of every file, the mixture last if there is one.

    Raises:
        EvaluationError: the multitrack has no stems.
        AudioError: a file cannot be read.
    """

    def __init__(
        self, multitrack: Multitrack, sample_rate: int | None = None, channels: int | None = None
    ) -> None:
        self.stems = tuple(multitrack.stems)
        if not self.stems:
            hint = deeper_audio(multitrack.folder)
            raise EvaluationError(f"there are no stems beside the mixture; {hint or 'add them'}")
        mixture = {MIXTURE: multitrack.mixture} if multitrack.mixture else {}
        self.files = {**multitrack.stems, **mixture}
        probed = [AudioFile(path) for path in self.files.values()]
        self.sample_rate = sample_rate or probed[0].source_sample_rate
        self.channels = channels or min(2, max(file.source_channels for file in probed))
        self.multitrack = multitrack
        self._opened: list[AudioFile] = []

    def columns(self, stems: Sequence[str]) -> list[int]:
        """Return the positions of some stems among all of the multitrack's.

        Raises:
            EvaluationError: the multitrack lacks one of them.
        """
        missing = self.multitrack.missing(stems)
        if missing:
            raise EvaluationError(self._why_missing(missing))
        return [self.stems.index(stem_key(stem)) for stem in stems]

    def frames(self) -> Iterator[Frame]:
        """Yield mixture and stems, a second at a time."""
        self._opened = [self._open(path) for path in self.files.values()]
        for blocks in side_by_side(self._opened):
            stems = torch.stack(blocks[: len(self.stems)])
            yield Frame(blocks[-1] if self.multitrack.mixture else stems.sum(0), stems)

    def mixture(self) -> Iterable[Tensor]:
        """Return the mixture as blocks (C, L), to be read more than once."""
        if self.multitrack.mixture:
            return self._open(self.multitrack.mixture)
        return _Sum([self._open(path) for path in self.files.values()])

    def notes(self) -> list[str]:
        """Return what was odd about the files, once `frames` has given all of them."""
        lengths = {
            name: file.source_length / file.source_sample_rate
            for name, file in zip(self.files, self._opened, strict=True)
        }
        longest = max(lengths.values())
        notes = [
            f"{name} is {longest - length:.3f} s shorter than the longest file"
            for name, length in lengths.items()
            if (longest - length) * self.sample_rate >= 1
        ]
        for name, file in zip(self.files, self._opened, strict=True):
            notes += oddities(name, file)
        if self.multitrack.left_out:
            files = (f"{file} ({why})" for file, why in self.multitrack.left_out.items())
            notes.append(f"left out: {', '.join(files)}")
        return notes

    def _open(self, path: Path) -> AudioFile:
        return AudioFile(path, sample_rate=self.sample_rate, channels=self.channels)

    def _why_missing(self, stems: Sequence[str]) -> str:
        reasons = {
            file: why
            for file, why in self.multitrack.left_out.items()
            if stem_key(Path(file).stem) in map(stem_key, stems)
        }
        hint = "; ".join(f"{file} is {why}" for file, why in reasons.items())
        return f"there is no {' and no '.join(stems)} beside {', '.join(self.stems)}; " + (
            hint or "name the files after the stems, or choose which stems to score"
        )


def side_by_side(files: Sequence[Iterable[Tensor]]) -> Iterator[list[Tensor]]:
    """Yield blocks (C, L) of several files, of equal lengths: silence follows the shorter files.

    All files must come in blocks of one length, but for their last one.
    """
    for blocks in zip_longest(*files):
        length = max(block.shape[-1] for block in blocks if block is not None)
        channels = next(block.shape[0] for block in blocks if block is not None)
        yield [
            torch.zeros(channels, length)
            if block is None
            else F.pad(block, (0, length - block.shape[-1]))
            for block in blocks
        ]


def oddities(name: str, file: AudioFile) -> list[str]:
    """Return what was wrong in a file that has been read to its end."""
    return [f"{name}: {note}" for note in file.notes]


class _Sum:
    """The sum of several files, as blocks."""

    def __init__(self, files: Sequence[AudioFile]) -> None:
        self._files = files

    def __iter__(self) -> Iterator[Tensor]:
        return (torch.stack(blocks).sum(0) for blocks in side_by_side(self._files))
