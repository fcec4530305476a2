"""The files that hold the estimates of a track, as the usual programs name them."""

import re
from collections.abc import Iterable
from pathlib import Path

from htdemucs.errors import EvaluationError
from htdemucs.evaluation.multitracks import audio_paths

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
