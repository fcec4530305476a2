"""Multitracks: songs whose stems are known, each a folder with one audio file per stem."""

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from htdemucs.errors import EvaluationError

AUDIO_SUFFIXES = frozenset(
    {".wav", ".flac", ".aif", ".aiff", ".caf", ".w64", ".wv", ".mp3", ".ogg", ".opus", ".m4a"}
)
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


def read_multitrack(folder: Path, suffixes: Collection[str] = AUDIO_SUFFIXES) -> Multitrack:
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


def passed_over(data: Path) -> list[str]:
    """Return a note on each folder beside the multitracks whose audio lies deeper."""
    root = data / SUBSET if multitrack_folders(data / SUBSET) else data
    hints = {path: deeper_audio(path) for path in _folders(root) if not audio_paths(path)}
    return [f"{path} is passed over: {hint}" for path, hint in hints.items() if hint]


def multitrack_folders(folder: Path, suffixes: Collection[str] = AUDIO_SUFFIXES) -> list[Path]:
    """Return the folders in a folder that hold audio files, by name."""
    return [path for path in _folders(folder) if audio_paths(path, suffixes)]


def audio_paths(folder: Path, suffixes: Collection[str] = AUDIO_SUFFIXES) -> list[Path]:
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
