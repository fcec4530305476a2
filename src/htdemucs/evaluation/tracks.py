"""Folders of tracks: stems and mixtures, read side by side in frames of a second."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from htdemucs.audio import AudioFile
from htdemucs.errors import EvaluationError

AUDIO_SUFFIXES = frozenset(
    {".wav", ".flac", ".aif", ".aiff", ".caf", ".w64", ".wv", ".mp3", ".ogg", ".opus", ".m4a"}
)
MIXTURE = "mixture"  # the file that is no stem
SUBSET = "test"  # what of a MUSDB18-HQ folder is for evaluation


class Frame(NamedTuple):
    """A second of a track, or what is left of one at its end."""

    mixture: Tensor  # (C, L)
    stems: Tensor  # (S, C, L), every stem the track's folder has


@dataclass(frozen=True)
class Track:
    """A folder with one audio file a stem, and mostly one named mixture."""

    name: str
    folder: Path


class TrackReader:
    """The audio of one track at one sample rate, read in frames as often as wanted.

    Without a mixture file, the mixture is the sum of all stems. Files shorter than the longest one
    are followed by silence.

    Attributes:
        track: what is read.
        stems: their names, in alphabetical order.
        sample_rate, channels: of the frames; by default the first file's, and 2 unless all files
            are mono.
        files: path of every file, the mixture last if there is one.

    Raises:
        EvaluationError: the folder holds no stems, or two files for one of them.
        AudioError: a file cannot be read.
    """

    def __init__(
        self, track: Track, sample_rate: int | None = None, channels: int | None = None
    ) -> None:
        found = audio_files(track.folder)
        self.stems = tuple(name for name in found if name != MIXTURE)
        if not self.stems:
            raise EvaluationError("there are no stems beside the mixture; add them")
        mixture = {MIXTURE: found[MIXTURE]} if MIXTURE in found else {}
        self.files = {name: found[name] for name in self.stems} | mixture
        probed = [AudioFile(path) for path in self.files.values()]
        self.sample_rate = sample_rate or probed[0].source_sample_rate
        self.channels = channels or min(2, max(file.source_channels for file in probed))
        self.track = track
        self._passed: list[AudioFile] = []

    @property
    def has_mixture(self) -> bool:
        """Whether the mixture is a file of its own."""
        return MIXTURE in self.files

    def columns(self, stems: Sequence[str]) -> list[int]:
        """Where these stems are among all of the track's.

        Raises:
            EvaluationError: the track lacks one of them.
        """
        missing = [stem for stem in stems if stem not in self.stems]
        if missing:
            raise EvaluationError(
                f"there is no {' and no '.join(missing)} beside {', '.join(self.stems)}; "
                "choose what to score with --stems"
            )
        return [self.stems.index(stem) for stem in stems]

    def frames(self) -> Iterator[Frame]:
        """Mixture and stems, a second at a time."""
        self._passed = [self._open(path) for path in self.files.values()]
        for blocks in side_by_side(self._passed):
            stems = torch.stack(blocks[: len(self.stems)])
            yield Frame(blocks[-1] if self.has_mixture else stems.sum(0), stems)

    def mixture(self) -> Iterable[Tensor]:
        """Blocks (C, L) of the mixture, to be read more than once."""
        if self.has_mixture:
            return self._open(self.files[MIXTURE])
        return _Sum([self._open(path) for path in self.files.values()])

    def notes(self) -> list[str]:
        """What was odd about the files, once `frames` has given all of them."""
        lengths = {
            name: file.source_length / file.source_sample_rate
            for name, file in zip(self.files, self._passed, strict=True)
        }
        longest = max(lengths.values())
        notes = [
            f"{name} is {longest - length:.3f} s shorter than the longest file"
            for name, length in lengths.items()
            if (longest - length) * self.sample_rate >= 1
        ]
        for name, file in zip(self.files, self._passed, strict=True):
            notes += oddities(name, file)
        return notes

    def _open(self, path: Path) -> AudioFile:
        return AudioFile(path, sample_rate=self.sample_rate, channels=self.channels)


def find_tracks(data: Path) -> list[Track]:
    """The tracks of a data folder, by name: its folders that hold audio files.

    A MUSDB18-HQ folder stands for its `test/`; name its `train/` for the other tracks. A folder
    that holds audio files itself, and no tracks, is one track.

    Raises:
        EvaluationError: it cannot be read, or holds no tracks.
    """
    try:
        if not data.is_dir():
            raise EvaluationError(f"{data} is not a folder; name one with a folder for each track")
        tracks = _track_folders(data / SUBSET) or _track_folders(data)
        if not tracks and audio_paths(data):
            tracks = [data.resolve()]
        if not tracks and (any(data.glob("*.stem.mp4")) or any(data.glob("test/*.stem.mp4"))):
            raise EvaluationError(f"{data} holds .stem.mp4 files; use the wav files of MUSDB18-HQ")
    except OSError as error:
        raise EvaluationError(f"cannot read {data}: {error.strerror or error}") from error
    if not tracks and _track_folders(data / "train"):
        raise EvaluationError(f"no tracks in {data / SUBSET}; try {data / 'train'}")
    if not tracks:
        raise EvaluationError(f"no tracks in {data}; it should hold files TRACK/STEM.wav (or flac)")
    return [Track(folder.name, folder) for folder in tracks]


def audio_files(folder: Path) -> dict[str, Path]:
    """The audio files of a folder by their name without its ending, in alphabetical order.

    Raises:
        EvaluationError: the folder cannot be read, or two files have the same name.
    """
    found: dict[str, Path] = {}
    for path in audio_paths(folder):
        if path.stem in found:
            raise EvaluationError(
                f"{folder} has both {found[path.stem].name} and {path.name}; remove one"
            )
        found[path.stem] = path
    return found


def audio_paths(folder: Path) -> list[Path]:
    """The audio files of a folder, in alphabetical order; none where there is no such folder.

    Raises:
        EvaluationError: the folder cannot be read.
    """
    try:
        return sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith(".")
        )
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise EvaluationError(f"cannot read {folder}: {error.strerror or error}") from error


def side_by_side(files: Sequence[Iterable[Tensor]]) -> Iterator[list[Tensor]]:
    """Blocks (C, L) of several files, of equal lengths: silence follows the shorter files.

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
    """What a file held that it should not, once it has been read."""
    return [f"{name}: {note}" for note in file.notes]


class _Sum:
    """The sum of several files, as blocks."""

    def __init__(self, files: Sequence[AudioFile]) -> None:
        self._files = files

    def __iter__(self) -> Iterator[Tensor]:
        return (torch.stack(blocks).sum(0) for blocks in side_by_side(self._files))


def _track_folders(data: Path) -> list[Path]:
    if not data.is_dir():
        return []
    folders = (path for path in data.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(folder for folder in folders if audio_paths(folder))
