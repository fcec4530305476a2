"""Multitracks: songs whose stems are known, each a folder with one audio file per stem.

`find_multitracks` lists the folders of a data set, `read_multitrack` tells from the names which
file of a folder is the mixture and which stem each other file is, `choose_stems` drops the files
that do not belong to an evaluation, and `MultitrackReader` reads the rest in frames of a second.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from htdemucs.audio import AudioFile, zip_blocks
from htdemucs.errors import EvaluationError
from htdemucs.formats import AUDIO_EXTENSIONS

SUBSET = "test"  # the part of a MUSDB18-HQ folder that is for evaluation

# Names are compared without case, spaces and punctuation: "No_Vocals" is "novocals".
#
# The first mixture name that exists is the mixture. In MUSDB, linear_mixture is beside the
# published mixture, which is not the sum of the stems.
MIXTURE_NAMES = ("mixture", "mix", "fullmix", "mixdown", "master", "linearmixture")
ACCOMPANIMENT = "accompaniment"  # everything except the vocals; it contains other stems
VOCALS = "vocals"
STEM_ALIASES = {  # the stems of the usual data sets and models, with other names for them
    VOCALS: ("vocal", "vox", "voice"),
    "drums": ("drum", "drumkit"),
    "bass": ("bassguitar",),
    "other": ("others",),
    "guitar": ("guitars",),
    "piano": (),
    "keys": ("keyboard", "keyboards"),
    "synth": ("synths", "synthesizer"),
    "percussion": (),
    "strings": (),
    "wind": ("winds",),
    "brass": (),
    "other_keys": (),  # these three in MoisesDB
    "other_plucked": (),
    "bowed_strings": (),
    ACCOMPANIMENT: ("instrumental", "instruments", "novocals", "minusvocals", "karaoke"),
}


@dataclass(frozen=True)
class Multitrack:
    """A song whose stems are known.

    Attributes:
        name: its folder's name.
        folder: where its files are.
        stems: the file of each stem by `stem_key` of its name, in alphabetical order.
        mixture: the file of the mixture, or None.
        left_out: the names of audio files that are neither, each with the reason.
    """

    name: str
    folder: Path
    stems: Mapping[str, Path]
    mixture: Path | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)

    def file(self, stem: str) -> Path:
        """Return the file of a stem that exists."""
        return self.stems[stem_key(stem)]

    def missing(self, stems: Iterable[str]) -> list[str]:
        """Return those of the stems that have no file."""
        return [stem for stem in stems if stem_key(stem) not in self.stems]


def stem_key(name: str) -> str:
    """Return a stem's name in the form that its spellings and aliases share."""
    return _KNOWN_STEMS.get(_letters(name)) or _spelling(name)


def _spelling(name: str) -> str:
    """Return a name in the form that does not depend on case and encoding."""
    return unicodedata.normalize("NFC", name).casefold().strip()


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", _spelling(name))


_KNOWN_STEMS = {
    _letters(alias): stem for stem, aliases in STEM_ALIASES.items() for alias in (stem, *aliases)
}


def read_multitrack(folder: Path, suffixes: Collection[str] = AUDIO_EXTENSIONS) -> Multitrack:
    """Tell from the names which file of a folder is the mixture, and which stem each other one is.

    The mixture has one of `MIXTURE_NAMES`, with or without the folder's name in front.

    Raises:
        EvaluationError: the folder cannot be read, or two files have the name of one stem.
    """
    mixtures: list[tuple[int, Path]] = []  # with the rank of the name
    others: list[Path] = []
    for path in audio_paths(folder, suffixes):
        letters = _letters(path.stem)
        names = (letters, letters.removeprefix(_letters(folder.name)))
        ranks = [MIXTURE_NAMES.index(name) for name in names if name in MIXTURE_NAMES]
        if ranks:
            mixtures.append((ranks[0], path))
        else:
            others.append(path)
    stems, left_out = assign_stems({path: path.stem for path in others})
    mixtures.sort()
    mixture = mixtures[0][1] if mixtures else None
    if mixture:
        left_out |= {path.name: f"{mixture.name} is the mixture" for _, path in mixtures[1:]}
    return Multitrack(folder.name, folder, stems, mixture, left_out)


def assign_stems(names: Mapping[Path, str]) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the file of each stem, in alphabetical order, and the files that are left out.

    If a stem has a file with its own name, files with its aliases are left out.

    Args:
        names: each file with the name of its stem.

    Raises:
        EvaluationError: two files have the same name, or two aliases of one stem.
    """
    candidates: dict[str, list[Path]] = {}
    for path, name in names.items():
        candidates.setdefault(stem_key(name), []).append(path)
    stems: dict[str, Path] = {}
    left_out: dict[str, str] = {}
    for key, paths in sorted(candidates.items()):
        exact = [path for path in paths if _letters(names[path]) == _letters(key)]
        first, *rest = exact or paths
        if rest:
            raise EvaluationError(
                f"{first.parent} has both {first.name} and {rest[0].name}; remove one of them"
            )
        stems[key] = first
        left_out |= {p.name: f"{first.name} is the same stem" for p in paths if p != first}
    return stems, left_out


def choose_stems(
    multitrack: Multitrack, targets: Sequence[str], sources: Sequence[str] = ()
) -> Multitrack:
    """Return the multitrack with the files that are its stems; the others are left out.

    If all sources of a model have a file, they are the stems. Otherwise, the targets are, and the
    other files whose name is in `STEM_ALIASES`. The accompaniment contains all stems but the
    vocals: it is a stem only if it is a target, or if there are only vocals besides it.

    Args:
        multitrack: the multitrack with all files of its folder.
        targets: stems to score.
        sources: all sources of the model; empty if unknown.

    Raises:
        EvaluationError: both the accompaniment and a part of it are targets.
    """
    target_keys = set(map(stem_key, targets))
    if sources and not multitrack.missing(sources):
        keys = set(map(stem_key, sources))
        reasons = {key: "not a source of the model" for key in multitrack.stems if key not in keys}
        return _without(multitrack, reasons)
    known = {key for key in multitrack.stems if key in STEM_ALIASES or key in target_keys}
    reasons = {key: "not a known stem" for key in multitrack.stems if key not in known}
    parts = sorted(known - {ACCOMPANIMENT, VOCALS})
    if ACCOMPANIMENT in target_keys:
        if both := [key for key in parts if key in target_keys]:
            raise EvaluationError(f"{both[0]} is part of {ACCOMPANIMENT}; score one at a time")
        reasons |= dict.fromkeys(parts, f"part of {ACCOMPANIMENT}")
    elif ACCOMPANIMENT in known and parts:
        reasons[ACCOMPANIMENT] = f"contains {', '.join(parts)}"
    return _without(multitrack, reasons)


def _without(multitrack: Multitrack, reasons: Mapping[str, str]) -> Multitrack:
    """Return the multitrack without some stems, each given with the reason."""
    stems = {key: path for key, path in multitrack.stems.items() if key not in reasons}
    files = {multitrack.stems[key].name: reason for key, reason in reasons.items()}
    return replace(multitrack, stems=stems, left_out={**multitrack.left_out, **files})


def find_multitracks(data: Path) -> list[Path]:
    """Return the folders of a data folder's multitracks, by name.

    Of a MUSDB18-HQ folder these are the tracks in `test/`; for the others, pass its `train/`. A
    folder that has audio files itself, and no multitracks, is one multitrack.

    Raises:
        EvaluationError: the folder cannot be read, or has no multitracks.
    """
    try:
        if not data.is_dir():
            raise EvaluationError(
                f"{data} is not a folder; specify one with a folder for each track"
            )
        folders = multitrack_folders(data / SUBSET) or multitrack_folders(data)
        if not folders and audio_paths(data):
            folders = [data.resolve()]
        if folders:
            return folders
        hint = layout_hint(data) or "it should hold files TRACK/STEM.wav (or flac)"
    except OSError as error:
        raise EvaluationError(f"cannot read {data}: {error.strerror or error}") from error
    raise EvaluationError(f"no tracks in {data}; {hint}")


def skipped_folders(data: Path) -> list[str]:
    """Return a note for each folder whose audio files are too deep for a multitrack."""
    root = data / SUBSET if multitrack_folders(data / SUBSET) else data
    hints = {path: nested_audio_hint(path) for path in _subfolders(root) if not audio_paths(path)}
    return [f"{path} is skipped: {hint}" for path, hint in hints.items() if hint]


def multitrack_folders(folder: Path) -> list[Path]:
    """Return the subfolders that have audio files, by name."""
    return [path for path in _subfolders(folder) if audio_paths(path)]


def audio_paths(folder: Path, suffixes: Collection[str] = AUDIO_EXTENSIONS) -> list[Path]:
    """Return the audio files of a folder, in alphabetical order; none if it does not exist.

    Raises:
        EvaluationError: the folder cannot be read.
    """
    try:
        return sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() in suffixes
            and not path.name.startswith(".")
            and not path.is_dir()
        )
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise EvaluationError(f"cannot read {folder}: {error.strerror or error}") from error


def layout_hint(data: Path) -> str:
    """Return what to do about a folder without multitracks; empty if it has no audio at all."""
    if any(data.glob("*.stem.mp4")) or any(data.glob("test/*.stem.mp4")):
        return "it holds .stem.mp4 files; use the wav files of MUSDB18-HQ"
    if multitrack_folders(data / "train"):
        return f"try {data / 'train'}"
    for folder in _subfolders(data):
        if hint := nested_audio_hint(folder):
            return f"{hint}, or name {folder}"
    return ""


def nested_audio_hint(folder: Path) -> str:
    """Return a hint about subfolders that have audio files; empty if there are none."""
    names = [path.name for path in multitrack_folders(folder)]
    if not names:
        return ""
    listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f"audio lies deeper, in {folder.name}/{{{listed}}}; mix each stem to one file"


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


class Frame(NamedTuple):
    """A second of a multitrack; its last frame may be shorter."""

    mixture: Tensor  # (C, L)
    stems: Tensor  # (S, C, L), every stem of the multitrack


class MultitrackReader:
    """Reads the audio of one multitrack at one sample rate, any number of times.

    Without a mixture file, the mixture is the sum of the stems. Files shorter than the longest one
    are padded with silence.

    Attributes:
        multitrack: what is read.
        stems: the names of the stems, in alphabetical order.
        sample_rate, channels: those of the frames; by default the first file's rate, and 2 channels
            unless all files are mono.
        files: the path of every file, the mixture last if it has a file.

    Raises:
        EvaluationError: the multitrack has no stems.
        AudioError: a file cannot be read.
    """

    def __init__(
        self, multitrack: Multitrack, sample_rate: int | None = None, channels: int | None = None
    ) -> None:
        self.multitrack = multitrack
        self.stems = tuple(multitrack.stems)
        if not self.stems:
            hint = nested_audio_hint(multitrack.folder) or self._left_out_note()
            raise EvaluationError(f"there are no stems beside the mixture; {hint or 'add them'}")
        mixture = {"mixture": multitrack.mixture} if multitrack.mixture else {}
        self.files = {**multitrack.stems, **mixture}
        probed = [AudioFile(path) for path in self.files.values()]
        self.sample_rate = sample_rate or probed[0].source_sample_rate
        self.channels = channels or min(2, max(file.source_channels for file in probed))
        self._opened: list[AudioFile] = []

    def columns(self, stems: Sequence[str]) -> list[int]:
        """Return the positions of some stems among all of the multitrack's.

        Raises:
            EvaluationError: the multitrack lacks one of them.
        """
        if missing := self.multitrack.missing(stems):
            note = self._left_out_note()
            raise EvaluationError(
                f"there is no {' and no '.join(missing)} beside {', '.join(self.stems)}"
                + (f" ({note})" if note else "")
                + "; name the files after the stems, or choose which stems to score"
            )
        return [self.stems.index(stem_key(stem)) for stem in stems]

    def frames(self) -> Iterator[Frame]:
        """Yield mixture and stems, a second at a time."""
        self._opened = [self._open(path) for path in self.files.values()]
        for blocks in zip_blocks(self._opened, self.sample_rate):
            stems = blocks[: len(self.stems)]
            yield Frame(blocks[-1] if self.multitrack.mixture else stems.sum(0), stems)

    def mixture(self) -> Iterable[Tensor]:
        """Return the mixture as blocks (C, L) that can be iterated more than once."""
        if self.multitrack.mixture:
            return self._open(self.multitrack.mixture)
        return _Sum([self._open(path) for path in self.files.values()], self.sample_rate)

    def notes(self) -> list[str]:
        """Return notes about unusual files, once `frames` has been read to its end."""
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
            notes += decode_warnings(name, file)
        left_out = self._left_out_note()
        return [*notes, left_out] if left_out else notes

    def _open(self, path: Path) -> AudioFile:
        return AudioFile(path, sample_rate=self.sample_rate, channels=self.channels)

    def _left_out_note(self) -> str:
        files = (f"{file} ({reason})" for file, reason in self.multitrack.left_out.items())
        return f"left out: {', '.join(files)}" if self.multitrack.left_out else ""


def decode_warnings(name: str, file: AudioFile) -> list[str]:
    """Return what was wrong with a file that has been read to its end."""
    return [f"{name}: {note}" for note in file.warnings]


class _Sum:
    """The sum of several files, as blocks that can be iterated more than once."""

    def __init__(self, files: Sequence[AudioFile], length: int) -> None:
        self._files, self._length = files, length

    def __iter__(self) -> Iterator[Tensor]:
        return (blocks.sum(0) for blocks in zip_blocks(self._files, self._length))
