"""Multitracks read in frames of a second: the mixture and all stems side by side.

MERGED: The files that hold the estimates of a track, as the usual programs name them.
MERGED: Choose the files of a multitrack that are its stems: together the song, and nothing twice.
MERGED: Multitracks: songs whose stems are known, each a folder with one audio file per stem.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from htdemucs.audio import AudioFile
from htdemucs.errors import AudioError, EvaluationError
from htdemucs.formats import AUDIO_EXTENSIONS

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
        self, multitrack: "Multitrack", sample_rate: int | None = None, channels: int | None = None
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
            notes += decode_warnings(name, file)
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


def decode_warnings(name: str, file: AudioFile) -> list[str]:
    """Return what was wrong in a file that has been read to its end."""
    return [f"{name}: {note}" for note in file.warnings]


class _Sum:
    """The sum of several files, as blocks."""

    def __init__(self, files: Sequence[AudioFile]) -> None:
        self._files = files

    def __iter__(self) -> Iterator[Tensor]:
        return (torch.stack(blocks).sum(0) for blocks in side_by_side(self._files))


NAMINGS = (  # below the folder, without the ending; * stands for anything
    "{track}/{stem}",  # htdemucs, demucs, Spleeter, Open-Unmix
    "test/{track}/{stem}",  # museval
    "train/{track}/{stem}",
    "{track}/mixture_({stem})*",  # audio-separator, given a folder for each track's mixture
    "{track}_{stem}",
    "{track} - {stem}",
    "{track}_({stem})*",  # audio-separator
    "{number}_{track}_({stem})",  # Ultimate Vocal Remover
)


def estimate_files(folder: Path, track: str, stems: Iterable[str]) -> dict[str, Path]:
    """Return the files of those stems that have one, by the first of `NAMINGS` that finds any.

    Capital letters in the names of stems make no difference.

    Raises:
        EvaluationError: the folder cannot be read, or two files fit one stem.
    """
    for naming in NAMINGS:
        place, _, name = naming.rpartition("/")
        paths = audio_paths(folder / place.format(track=track))
        files = {stem: _the_one(paths, _pattern(name, track, stem)) for stem in stems}
        if any(files.values()):
            return {stem: path for stem, path in files.items() if path}
    return {}


def _pattern(name: str, track: str, stem: str) -> re.Pattern[str]:
    parts = {
        "{track}": re.escape(track),
        "{stem}": f"(?i:{re.escape(stem)})",
        "{number}": r"\d+",
        "*": ".*",
    }
    pieces = re.split(r"(\{\w+\}|\*)", name)
    return re.compile("".join(parts.get(piece, re.escape(piece)) for piece in pieces), re.DOTALL)


def _the_one(paths: Iterable[Path], pattern: re.Pattern[str]) -> Path | None:
    """Return the path whose name fits; none is fine, two are refused."""
    fitting = [path for path in paths if pattern.fullmatch(path.stem)]
    if len(fitting) > 1:
        first, second, *_ = fitting
        raise EvaluationError(
            f"{first.parent} has both {first.name} and {second.name}; remove one of them"
        )
    return fitting[0] if fitting else None


ROUNDING = 2 / 2**15  # root mean square by which files of 16 bits may differ from their sum
FAITHFUL = 40.0  # dB of a mixture over its difference from the stems' sum; less is worth a note
MOST_FILES = 12  # every subset of so many is tried; of more files, none is taken for a sum


def choose_stems(
    multitrack: "Multitrack", targets: Sequence[str], sources: Sequence[str] = ()
) -> "Multitrack":
    """Return the multitrack with the files that are its stems; the others are left out.

    Where all sources of a model are there, they are the stems. Otherwise every file is one but for
    those that equal the sum of others, to rounding, and those without which the others add up to
    the mixture.

    Args:
        multitrack: as its folder is.
        targets: stems to score.
        sources: everything that the model gives; empty if unknown.

    Raises:
        AudioError: a file cannot be read.
    """
    if sources and not multitrack.missing(sources):
        return _with_sources(multitrack, {stem_key(source) for source in sources})
    if multitrack.missing(targets) or not 2 < len(multitrack.stems) <= MOST_FILES:
        return multitrack
    names, mixture = list(multitrack.stems), multitrack.mixture
    files = {**multitrack.stems, **({MIXTURE: mixture} if mixture else {})}
    content = _Content(files)
    content.read(
        lambda: (
            any(content.may_be_sum(name, names) for name in names)
            or bool(mixture and not content.is_mixture(names))
        )
    )
    target_keys = {stem_key(stem) for stem in targets}
    reasons = _sums(content, names, names, target_keys)
    if mixture:
        rest = [name for name in names if name not in reasons]
        reasons |= _outside_mixture(content, rest, target_keys)
    return multitrack.without(reasons)


def _with_sources(multitrack: "Multitrack", sources: Collection[str]) -> "Multitrack":
    others = [name for name in multitrack.stems if name not in sources]
    reasons = dict.fromkeys(others, "no source of the model")
    if others and len(multitrack.stems) <= MOST_FILES:
        content = _Content(multitrack.stems)
        with suppress(AudioError):  # a file that is not scored may be damaged
            content.read(lambda: any(content.may_be_sum(name, sources) for name in others))
            reasons |= _sums(content, others, sources, sources)
    return multitrack.without(reasons)


def _sums(
    content: "_Content", names: Sequence[str], among: Collection[str], targets: Collection[str]
) -> dict[str, str]:
    """Return the names that repeat others, each with the reason.

    A sum is one and not its members, unless only the sum is a target.
    """
    reasons: dict[str, str] = {}
    for name in names:
        if name in reasons:
            continue
        members = content.members_of_sum(name, [n for n in among if n not in reasons])
        if members and name in targets and not members & set(targets):
            alike = "part of" if len(members) > 1 else "the same as"
            reasons |= dict.fromkeys(sorted(members), f"{alike} {name}")
        elif members:
            *most, last = sorted(members)
            alike = f"the sum of {', '.join(most)} and {last}" if most else f"the same as {last}"
            reasons[name] = alike
    return reasons


def _outside_mixture(
    content: "_Content", names: Sequence[str], targets: Collection[str]
) -> dict[str, str]:
    """Return the names without which the others add up to the mixture, each with the reason."""
    if content.is_mixture(names):
        return {}
    members = content.members_of_mixture(names, [name for name in names if name in targets])
    outside = [name for name in names if members and name not in members]
    return dict.fromkeys(outside, "not in the mixture")


class _Content:
    """Inner products of the waveforms of files, by which every sum of them can be tested."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files
        self._products = np.zeros((len(files), len(files)))
        self._samples = 0  # of all channels

    def read(self, going_on: Callable[[], bool]) -> None:
        """Read all files side by side, for as long as `going_on` says.

        Raises:
            AudioError: a file cannot be read.
        """
        sample_rate = AudioFile(next(iter(self._files.values()))).source_sample_rate
        opened = [AudioFile(p, sample_rate=sample_rate, channels=2) for p in self._files.values()]
        for blocks in side_by_side(opened):
            block = torch.stack(blocks).flatten(1).double().numpy()
            self._products += block @ block.T
            self._samples += block.shape[1]
            if not going_on():
                return

    def may_be_sum(self, name: str, among: Collection[str]) -> bool:
        """Return whether a file is the sum of some others, or has not sounded yet."""
        return self._silent(name) or bool(self.members_of_sum(name, among))

    def members_of_sum(self, name: str, among: Collection[str]) -> set[str]:
        """Return the files whose sum a file is, to rounding; none if it is no sum, or silent."""
        others = [other for other in among if other != name]
        return set() if self._silent(name) else self._members(name, others, (), self._rounding)

    def is_mixture(self, names: Sequence[str]) -> bool:
        """Return whether some files together are the mixture."""
        return bool(self._members(MIXTURE, names, names, self._mixture_limit))

    def members_of_mixture(self, names: Sequence[str], needed: Sequence[str]) -> set[str]:
        """Return the files that together are the mixture, and all silent ones; else none."""
        members = self._members(MIXTURE, names, needed, self._mixture_limit)
        return members | {name for name in names if members and self._silent(name)}

    @property
    def _rounding(self) -> float:
        return self._samples * ROUNDING**2

    @property
    def _mixture_limit(self) -> float:
        return self._energy(MIXTURE) * 10 ** (-FAITHFUL / 10)

    def _energy(self, name: str) -> float:
        [i] = self._indices([name])
        return float(self._products[i, i])

    def _silent(self, name: str) -> bool:
        return self._energy(name) <= 4 * self._rounding

    def _indices(self, names: Sequence[str]) -> list[int]:
        order = list(self._files)
        return [order.index(name) for name in names]

    def _members(
        self, total: str, among: Sequence[str], needed: Sequence[str], limit: float
    ) -> set[str]:
        """Return those whose sum is nearest to `total`, if the error's energy is within `limit`.

        For 0 or 1 as the weight w of each file x: |t - sum w x|^2 = t.t - 2 w.(x.t) + w.(x.x)w.
        """
        weights = (np.arange(2 ** len(among))[:, None] >> np.arange(len(among))) & 1
        fixed = [name in needed for name in among]
        weights = weights[weights[:, fixed].all(1)]
        rows, [t] = self._indices(among), self._indices([total])
        own, crossed = self._products[np.ix_(rows, rows)], self._products[rows, t]
        errors = self._products[t, t] - 2 * weights @ crossed + ((weights @ own) * weights).sum(1)
        best = int(errors.argmin())
        if errors[best] > limit:
            return set()
        return {name for name, weight in zip(among, weights[best], strict=True) if weight}


# Letters of the names that data sets give to the mixture. The first that exists is the mixture: in
# MUSDB, linear_mixture lies beside the published mixture, which is not the sum of the stems.
MIXTURE_NAMES = ("mixture", "mix", "fullmix", "mixdown", "master", "linearmixture")
SUBSET = "test"  # the part of a MUSDB18-HQ folder that is for evaluation


@dataclass(frozen=True)
class Multitrack:
    """A song whose stems are known.

    Attributes:
        name: its folder's name.
        folder: where its files are.
        stems: file of each stem by `stem_key` of its name, in alphabetical order.
        mixture: file of the mixture; None where there is none.
        left_out: names of audio files that are neither, each with the reason.
    """

    name: str
    folder: Path
    stems: Mapping[str, Path]
    mixture: Path | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)

    def file(self, stem: str) -> Path:
        """Return the file of a stem that is there."""
        return self.stems[stem_key(stem)]

    def missing(self, stems: Iterable[str]) -> list[str]:
        """Return those of the stems that have no file."""
        return [stem for stem in stems if stem_key(stem) not in self.stems]

    def without(self, reasons: Mapping[str, str]) -> "Multitrack":
        """Return the multitrack without some stems, each given with the reason."""
        stems = {name: path for name, path in self.stems.items() if name not in reasons}
        names = {self.stems[name].name: reason for name, reason in reasons.items()}
        return replace(self, stems=stems, left_out={**self.left_out, **names})


def stem_key(name: str) -> str:
    """Return a stem's name in the form that all its spellings share."""
    return unicodedata.normalize("NFC", name).casefold().strip()


def read_multitrack(folder: Path, suffixes: Collection[str] = AUDIO_EXTENSIONS) -> Multitrack:
    """Find out which file of a folder is the mixture, and which stem each other one is.

    Capital letters make no difference. The mixture has one of `MIXTURE_NAMES`, with or without the
    folder's name in front.

    Raises:
        EvaluationError: the folder cannot be read, or two files have the name of one stem.
    """
    files: dict[str, Path] = {}
    for path in audio_paths(folder, suffixes):
        other = files.setdefault(stem_key(path.stem), path)
        if other != path:
            raise EvaluationError(f"there are both {other.name} and {path.name}; remove one")

    def rank(name: str) -> int:
        return _mixture_rank(name, folder.name)

    mixtures = sorted((name for name in files if rank(name) < len(MIXTURE_NAMES)), key=rank)
    mixture = files[mixtures[0]] if mixtures else None
    stems = {name: files[name] for name in sorted(files) if name not in mixtures[:1]}
    reason = f"{mixture.name} is the mixture" if mixture else ""
    return Multitrack(folder.name, folder, stems, mixture).without(
        dict.fromkeys(mixtures[1:], reason)
    )


def find_multitracks(data: Path) -> list[Path]:
    """Return the folders of a data folder's multitracks, by name.

    A MUSDB18-HQ folder stands for its `test/`; name its `train/` for the other tracks. A folder
    that holds audio files itself, and no multitracks, is one multitrack.

    Raises:
        EvaluationError: it cannot be read, or holds no multitracks.
    """
    try:
        if not data.is_dir():
            raise EvaluationError(f"{data} is not a folder; name one with a folder for each track")
        folders = multitrack_folders(data / SUBSET) or multitrack_folders(data)
        if not folders and audio_paths(data):
            folders = [data.resolve()]
        if folders:
            return folders
        hint = where_else(data) or "it should hold files TRACK/STEM.wav (or flac)"
    except OSError as error:
        raise EvaluationError(f"cannot read {data}: {error.strerror or error}") from error
    raise EvaluationError(f"no tracks in {data}; {hint}")


def skipped_folders(data: Path) -> list[str]:
    """Return a note on each folder beside the multitracks whose audio lies deeper."""
    root = data / SUBSET if multitrack_folders(data / SUBSET) else data
    hints = {path: deeper_audio(path) for path in _folders(root) if not audio_paths(path)}
    return [f"{path} is passed over: {hint}" for path, hint in hints.items() if hint]


def multitrack_folders(folder: Path, suffixes: Collection[str] = AUDIO_EXTENSIONS) -> list[Path]:
    """Return the folders in a folder that hold audio files, by name."""
    return [path for path in _folders(folder) if audio_paths(path, suffixes)]


def audio_paths(folder: Path, suffixes: Collection[str] = AUDIO_EXTENSIONS) -> list[Path]:
    """Return the audio files of a folder, in alphabetical order; none where it does not exist.

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


def where_else(data: Path) -> str:
    """Return a hint at what a folder holds instead of multitracks; empty where it holds nothing."""
    if any(data.glob("*.stem.mp4")) or any(data.glob("test/*.stem.mp4")):
        return "it holds .stem.mp4 files; use the wav files of MUSDB18-HQ"
    if multitrack_folders(data / "train"):
        return f"try {data / 'train'}"
    for folder in _folders(data):
        if hint := deeper_audio(folder):
            return f"{hint}, or name {folder}"
    return ""


def deeper_audio(folder: Path) -> str:
    """Return a hint at folders in a folder that hold audio files; empty where there are none."""
    names = [path.name for path in multitrack_folders(folder)]
    if not names:
        return ""
    listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f"audio lies deeper, in {folder.name}/{{{listed}}}; mix each stem to one file"


def _mixture_rank(name: str, folder_name: str) -> int:
    """Return the place in `MIXTURE_NAMES`, or their count for a name that is no mixture's."""
    letters, prefix = (re.sub(r"[\W_]", "", stem_key(text)) for text in (name, folder_name))
    for candidate in (letters, letters.removeprefix(prefix)):
        if candidate in MIXTURE_NAMES:
            return MIXTURE_NAMES.index(candidate)
    return len(MIXTURE_NAMES)


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
