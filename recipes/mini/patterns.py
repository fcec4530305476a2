"""Drum patterns of electronic styles, sixteen steps a bar, varied at random."""

import numpy as np

from recipes.mini import drum_machine as dm
from recipes.mini.notes import collect
from recipes.mini.score import Score, Section

# Velocity by step: "X" accent, "x" hit, "-" ghost.
_LEVELS = {"X": 1.0, "x": 0.75, "-": 0.35}
STYLES: dict[str, dict[int, tuple[str, ...]]] = {
    "house": {
        dm.KICK: ("X...X...X...X...",),
        dm.CLAP: ("....X.......X...",),
        dm.OPEN_HAT: ("..x...x...x...x.",),
        dm.CLOSED_HAT: ("x.-.x.-.x.-.x.-.", "-.x--.x--.x--.x-"),
    },
    "electro": {
        dm.KICK: ("X.....X...X.....", "X..X....X.X.....", "X.....x.X..x...."),
        dm.SNARE: ("....X.......X...",),
        dm.CLOSED_HAT: ("x.x.x.x.x.x.x.x.", "x-x-x-x-x-x-x-x-"),
        dm.COWBELL: ("..x..x....x..x..", "................"),
    },
    "trap": {
        dm.KICK: ("X......X..X.....", "X.........X..X..", "X..X......X....."),
        dm.SNARE: ("........X.......",),
        dm.CLAP: ("........X.......", "........X......-"),
        dm.CLOSED_HAT: ("x.x.x.x.x.xxx.x.", "xxx.x.x.xxxxx.x.", "x.xxx.x.x.x.xxxx"),
        dm.OPEN_HAT: ("..............x.", "................"),
    },
    "breaks": {
        dm.KICK: ("X.x.......xX....", "X..X.....xX.....", "X.........X....."),
        dm.SNARE: ("....X..-.-..X..-", "....X..-.x..X...", "....X.......X..x"),
        dm.CLOSED_HAT: ("x.x.x.x.x.x.x.x.", "x.xxx.x.x.xxx.x."),
    },
    "pop": {
        dm.KICK: ("X.......X.......", "X.....x.X.......", "X.......X.x....."),
        dm.SNARE: ("....X.......X...",),
        dm.CLOSED_HAT: ("x.x.x.x.x.x.x.x.", "x...x...x...x..."),
        dm.SHAKER: ("-.x.-.x.-.x.-.x.", "................"),
    },
    "dembow": {
        dm.KICK: ("X...X...X...X...",),
        dm.SNARE: ("...x..x....x..x.",),
        dm.RIM: ("......x.......x.", "................"),
        dm.CLOSED_HAT: ("x.x.x.x.x.x.x.x.",),
    },
    "dnb": {
        dm.KICK: ("X.........X.....", "X..x......X....."),
        dm.SNARE: ("....X.......X...", "....X..-.-..X..-"),
        dm.CLOSED_HAT: ("x.x.x.x.x.x.x.x.", "xxx.xxx.xxx.xxx."),
    },
    "glitch": {
        dm.KICK: ("X..x..X.....x.X.", "X.X....x..X....."),
        dm.SNARE: ("....X.....-.X.--", "...X....X..-...X"),
        dm.RIM: ("..x..x-.x..x.-x.", "-x.-x.x-.x-.x.x-"),
        dm.CLOSED_HAT: ("xx-.x.xx-x.-xx.x", "x.--x-x.--x-x-xx"),
        dm.LOW_TOM: ("..........x..x..", "................"),
    },
}


def _steps(rng: np.random.Generator, pattern: str) -> np.ndarray:
    levels = np.array([_LEVELS.get(step, 0.0) for step in pattern])
    moved = rng.random(16) < 0.04  # a few hits of every song come or go
    return np.where(moved, np.where(levels > 0, 0.0, 0.5), levels)


def _fill(rng: np.random.Generator, start: float, step: float) -> list[tuple[float, ...]]:
    """Half a bar of snare or tom hits, getting louder."""
    keys = [dm.SNARE] * 8 if rng.random() < 0.5 else [dm.HIGH_TOM, dm.MID_TOM, dm.LOW_TOM, dm.SNARE]
    chosen = np.sort(rng.choice(8, size=rng.integers(3, 8), replace=False))
    return [(start + (8 + i) * step, step, keys[i * len(keys) // 8], 0.5 + i / 16) for i in chosen]


def drum_notes(rng: np.random.Generator, score: Score, style: str) -> np.ndarray:
    """Drum notes of a whole song: the style's pattern, thinned, built up and filled by section."""
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
                rows.append((start, 1.0, dm.CRASH, 0.7))
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
        return [key for key in keys if key not in (dm.KICK, dm.SNARE) or rng.random() < 0.4]
    return [key for key in keys if key in (dm.KICK, dm.SNARE, dm.CLAP) or rng.random() < 0.85]


def _roll(start: float, step: float, progress: float) -> list[tuple[float, ...]]:
    """A bar of snare hits that come twice as fast in the second half of a build."""
    every = 4 if progress < 0.5 else 2 if progress < 0.75 else 1
    return [
        (start + i * step, step, dm.SNARE, 0.35 + 0.5 * (progress + i / 64))
        for i in range(0, 16, every)
    ]
