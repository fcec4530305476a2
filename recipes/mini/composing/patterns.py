"""Drum patterns of electronic styles, sixteen steps a bar, varied at random."""

import numpy as np

from recipes.mini.composing import drum_keys as dk
from recipes.mini.composing.notes import collect
from recipes.mini.composing.score import Score, Section

# Velocity by step: "X" accent, "x" hit, "-" ghost.
_LEVELS = {"X": 1.0, "x": 0.75, "-": 0.35}
STYLES: dict[str, dict[int, tuple[str, ...]]] = {
    "house": {
        dk.KICK: ("X...X...X...X...",),
        dk.CLAP: ("....X.......X...",),
        dk.OPEN_HAT: ("..x...x...x...x.",),
        dk.CLOSED_HAT: ("x.-.x.-.x.-.x.-.", "-.x--.x--.x--.x-"),
    },
    "electro": {
        dk.KICK: ("X.....X...X.....", "X..X....X.X.....", "X.....x.X..x...."),
        dk.SNARE: ("....X.......X...",),
        dk.CLOSED_HAT: ("x.x.x.x.x.x.x.x.", "x-x-x-x-x-x-x-x-"),
        dk.COWBELL: ("..x..x....x..x..", "................"),
    },
    "trap": {
        dk.KICK: ("X......X..X.....", "X.........X..X..", "X..X......X....."),
        dk.SNARE: ("........X.......",),
        dk.CLAP: ("........X.......", "........X......-"),
        dk.CLOSED_HAT: ("x.x.x.x.x.xxx.x.", "xxx.x.x.xxxxx.x.", "x.xxx.x.x.x.xxxx"),
        dk.OPEN_HAT: ("..............x.", "................"),
    },
    "breaks": {
        dk.KICK: ("X.x.......xX....", "X..X.....xX.....", "X.........X....."),
        dk.SNARE: ("....X..-.-..X..-", "....X..-.x..X...", "....X.......X..x"),
        dk.CLOSED_HAT: ("x.x.x.x.x.x.x.x.", "x.xxx.x.x.xxx.x."),
    },
    "pop": {
        dk.KICK: ("X.......X.......", "X.....x.X.......", "X.......X.x....."),
        dk.SNARE: ("....X.......X...",),
        dk.CLOSED_HAT: ("x.x.x.x.x.x.x.x.", "x...x...x...x..."),
        dk.SHAKER: ("-.x.-.x.-.x.-.x.", "................"),
    },
    "dembow": {
        dk.KICK: ("X...X...X...X...",),
        dk.SNARE: ("...x..x....x..x.",),
        dk.RIM: ("......x.......x.", "................"),
        dk.CLOSED_HAT: ("x.x.x.x.x.x.x.x.",),
    },
    "dnb": {
        dk.KICK: ("X.........X.....", "X..x......X....."),
        dk.SNARE: ("....X.......X...", "....X..-.-..X..-"),
        dk.CLOSED_HAT: ("x.x.x.x.x.x.x.x.", "xxx.xxx.xxx.xxx."),
    },
    "glitch": {
        dk.KICK: ("X..x..X.....x.X.", "X.X....x..X....."),
        dk.SNARE: ("....X.....-.X.--", "...X....X..-...X"),
        dk.RIM: ("..x..x-.x..x.-x.", "-x.-x.x-.x-.x.x-"),
        dk.CLOSED_HAT: ("xx-.x.xx-x.-xx.x", "x.--x-x.--x-x-xx"),
        dk.LOW_TOM: ("..........x..x..", "................"),
    },
}


def _steps(rng: np.random.Generator, pattern: str) -> np.ndarray:
    levels = np.array([_LEVELS.get(step, 0.0) for step in pattern])
    moved = rng.random(16) < 0.04  # a few hits of every song come or go
    return np.where(moved, np.where(levels > 0, 0.0, 0.5), levels)


def _fill(rng: np.random.Generator, start: float, step: float) -> list[tuple[float, ...]]:
    """Return half a bar of snare or tom hits, getting louder."""
    keys = [dk.SNARE] * 8 if rng.random() < 0.5 else [dk.HIGH_TOM, dk.MID_TOM, dk.LOW_TOM, dk.SNARE]
    chosen = np.sort(rng.choice(8, size=rng.integers(3, 8), replace=False))
    return [(start + (8 + i) * step, step, keys[i * len(keys) // 8], 0.5 + i / 16) for i in chosen]


def drum_notes(rng: np.random.Generator, score: Score, style: str) -> np.ndarray:
    """Return a song's drum notes: the style's pattern, thinned, built up and filled by section."""
    pattern = {key: _steps(rng, str(rng.choice(rows))) for key, rows in STYLES[style].items()}
    swing = rng.choice([0.0, 0.0, rng.uniform(0.05, 0.3)])
    step = score.beat / 4
    rows: list[tuple[float, ...]] = []
    for section in score.sections:
        sounding = _sounding(rng, section, list(pattern))
        for index in range(section.bars):
            start = (section.first_bar + index) * score.bar
            last = index == section.bars - 1
            if index == 0 and section.kind == "chorus" and rng.random() < 0.7:
                rows.append((start, 1.0, dk.CRASH, 0.7))
            if section.kind == "build":
                rows.extend(_roll(start, step, index / section.bars))
            for key in sounding:
                for i in np.flatnonzero(pattern[key]):
                    at = start + (i + swing * (i % 2)) * step
                    rows.append((at, step, key, pattern[key][i] * rng.uniform(0.85, 1.0)))
            if last and sounding and rng.random() < 0.6:
                rows.extend(_fill(rng, start, step))
    return collect(row for row in rows if row[0] < score.seconds)


def _sounding(rng: np.random.Generator, section: Section, keys: list[int]) -> list[int]:
    if section.kind in ("intro", "break"):
        count = int(rng.integers(0, len(keys)))
        return [int(key) for key in rng.choice(keys, size=count, replace=False)]
    if section.kind == "build":
        return [key for key in keys if key not in (dk.KICK, dk.SNARE) or rng.random() < 0.4]
    return [key for key in keys if key in (dk.KICK, dk.SNARE, dk.CLAP) or rng.random() < 0.85]


def _roll(start: float, step: float, progress: float) -> list[tuple[float, ...]]:
    """Return a bar of snare hits that come twice as fast in the second half of a build."""
    every = 4 if progress < 0.5 else 2 if progress < 0.75 else 1
    return [
        (start + i * step, step, dk.SNARE, 0.35 + 0.5 * (progress + i / 64))
        for i in range(0, 16, every)
    ]
