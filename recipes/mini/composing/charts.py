"""Chord charts for `mma`, which turns them into accompaniments in about 1,100 styles."""

import os
import re
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from recipes.mini.composing.score import Score
from recipes.mini.sources import MMA_HOME

_NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
_QUALITIES = {
    (4, 7): "", (3, 7): "m", (3, 6): "dim", (4, 8): "aug",
    (4, 7, 11): "M7", (4, 7, 10): "7", (3, 7, 10): "m7", (3, 6, 10): "m7b5", (3, 7, 11): "mM7",
}  # fmt: skip
_NOT_IN_FOUR = re.compile(r"waltz|68|128|-54|metronome|none|march|68swing|bwmarch|jive3")
_NOT_A_BODY = re.compile(r"intro|end|fill|tag", re.IGNORECASE)
# Files of the groove library whose grooves only held-out songs use.
HELD_OUT_FILES = (
    "60srock", "bossanova", "bvfunk", "chacha", "countryblues", "dsoul", "easyswing", "folkrock",
    "lfusion", "popspiritual", "rb", "shuffleboggie", "ska", "softrock", "trance",
)  # fmt: skip


@cache
def grooves(held_out: bool) -> dict[str, tuple[str, ...]]:
    """Return grooves in 4/4 by library file, e.g. {"ballad": ("Ballad", "BalladSus", ...)}."""
    library: dict[str, tuple[str, ...]] = {}
    for path in sorted((MMA_HOME / "lib" / "stdlib").glob("*.mma")):
        if _NOT_IN_FOUR.search(path.stem) or (path.stem in HELD_OUT_FILES) != held_out:
            continue
        names = re.findall(r"^\s*DefGroove\s+(\S+)", path.read_text("latin-1"), re.MULTILINE)
        bodies = tuple(name for name in names if not _NOT_A_BODY.search(name))
        if bodies:
            library[path.stem] = bodies
    return library


def choose_grooves(rng: np.random.Generator, score: Score, held_out: bool) -> list[str]:
    """Draw a groove for each kind of section, all of one library file; return each section's."""
    library = grooves(held_out)
    file = str(rng.choice(list(library)))
    of_kind = {
        kind: str(rng.choice(library[file]))
        for kind in ("intro", "verse", "build", "chorus", "break")
    }
    return [f"{file}:{of_kind[section.kind]}" for section in score.sections]


def _chord_name(tones: tuple[int, ...]) -> str:
    root = tones[0]
    intervals = tuple((tone - root) % 12 for tone in tones[1:])
    return _NAMES[root] + _QUALITIES.get(intervals, "")


def chart(score: Score, section_grooves: list[str], seed: int) -> str:
    """Return the song in mma's language; `seed` decides what its grooves leave to chance."""
    lines = [f"RndSeed {seed}", f"Tempo {score.tempo:.2f}"]
    number = 1
    for section, groove in zip(score.sections, section_grooves, strict=True):
        lines.append(f"Groove {groove}")
        for _ in range(section.bars):
            lines.append(f"{number} {_chord_name(score.chords[number - 1].tones)}")
            number += 1
    return "\n".join(lines) + "\n"


def accompany(score: Score, section_grooves: list[str], seed: int) -> bytes:
    """Return the MIDI file that mma makes of the score's chart.

    Raises `subprocess.CalledProcessError` if mma refuses the chart.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "song.mma"), Path(folder, "song.mid")
        source.write_text(chart(score, section_grooves, seed), encoding="utf-8")
        subprocess.run(
            ["mma", "-f", str(target), str(source)],
            check=True, capture_output=True, env=os.environ | {"MMA_HOME": str(MMA_HOME)},
        )  # fmt: skip
        return target.read_bytes()
