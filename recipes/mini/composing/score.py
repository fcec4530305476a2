"""A song before it sounds: tempo, key, sections and chords, all in seconds."""

from dataclasses import dataclass

import numpy as np

SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
}
# Scale degrees (0 = tonic), one a bar. The held-out songs use other ones than training.
TRAINING_PROGRESSIONS = {
    "major": (
        (0, 4, 5, 3), (0, 5, 3, 4), (5, 3, 0, 4), (0, 3, 4, 3), (0, 2, 3, 4), (3, 4, 2, 5),
        (0, 3, 0, 4), (1, 4, 0, 5), (0, 0, 3, 4), (3, 0, 4, 5), (0, 4, 1, 3),
    ),
    "minor": (
        (0, 5, 2, 6), (0, 3, 5, 4), (0, 6, 5, 6), (0, 5, 3, 4), (5, 6, 0, 0), (0, 2, 5, 6),
        (0, 0, 5, 5), (0, 3, 6, 2), (5, 2, 6, 0), (0, 6, 3, 5),
    ),
    "dorian": ((0, 3, 0, 3), (0, 6, 3, 0), (0, 2, 3, 6), (0, 0, 3, 3)),
}  # fmt: skip
HELD_OUT_PROGRESSIONS = {
    "major": ((0, 1, 4, 3), (3, 1, 0, 4), (5, 4, 3, 2), (0, 6, 3, 0)),
    "minor": ((0, 4, 5, 2), (3, 0, 5, 6), (0, 6, 2, 3)),
    "dorian": ((0, 1, 2, 3), (3, 6, 0, 2)),
}
SECTION_KINDS = ("intro", "verse", "build", "chorus", "break")


@dataclass(frozen=True)
class Chord:
    """Sounding pitch classes between two times (s)."""

    start: float
    end: float
    root: int  # pitch class, 0 = C
    tones: tuple[int, ...]  # pitch classes, root first


@dataclass(frozen=True)
class Section:
    """Consecutive bars of one character."""

    kind: str
    first_bar: int
    bars: int


@dataclass(frozen=True)
class Score:
    """Harmony and form of one song in 4/4."""

    tempo: float  # beats a minute
    seconds: float
    scale: tuple[int, ...]  # pitch classes, tonic first
    chords: tuple[Chord, ...]
    sections: tuple[Section, ...]

    @property
    def beat(self) -> float:
        """Seconds a beat lasts."""
        return 60 / self.tempo

    @property
    def bar(self) -> float:
        """Seconds a bar lasts."""
        return 4 * self.beat

    def chord_at(self, time: float) -> Chord:
        """Return the chord sounding at `time` (s); the last one after the end."""
        index = np.searchsorted([chord.end for chord in self.chords], time, side="right")
        return self.chords[min(int(index), len(self.chords) - 1)]

    def section_at(self, time: float) -> Section:
        """Return the section that `time` (s) falls in."""
        bar = int(time / self.bar + 1e-6)
        ends = [section.first_bar + section.bars for section in self.sections]
        return self.sections[min(int(np.searchsorted(ends, bar, "right")), len(ends) - 1)]


def plan_sections(rng: np.random.Generator, bars: int) -> tuple[Section, ...]:
    """Divide `bars` into sections of 4 or 8 bars: verses and choruses with breaks between."""
    sections = []
    kind = str(rng.choice(SECTION_KINDS, p=[0.4, 0.3, 0.05, 0.2, 0.05]))
    first = 0
    following = {
        "intro": ("verse", "build", "chorus"),
        "verse": ("build", "chorus", "chorus"),
        "build": ("chorus",),
        "chorus": ("verse", "break", "chorus"),
        "break": ("build", "chorus", "verse"),
    }
    while first < bars:
        length = 4 if kind in ("intro", "build", "break") else int(rng.choice([4, 8]))
        sections.append(Section(kind, first, min(length, bars - first)))
        first += length
        kind = str(rng.choice(following[kind]))
    return tuple(sections)


def compose(
    rng: np.random.Generator, tempo: float, seconds: float, held_out: bool = False
) -> Score:
    """Draw a song's key, form and chords; choruses and verses each keep one progression."""
    mode = str(rng.choice(list(SCALES), p=[0.42, 0.45, 0.13]))
    key = int(rng.integers(12))
    scale = tuple((key + step) % 12 for step in SCALES[mode])
    progressions = (HELD_OUT_PROGRESSIONS if held_out else TRAINING_PROGRESSIONS)[mode]
    bar = 240 / tempo
    sections = plan_sections(rng, int(np.ceil(seconds / bar)))
    degrees_of = {kind: progressions[rng.integers(len(progressions))] for kind in SECTION_KINDS}
    sevenths = rng.random() < 0.3
    chords = []
    for section in sections:
        degrees = degrees_of[section.kind]
        for index in range(section.bars):
            degree = degrees[index % len(degrees)]
            sizes = (0, 2, 4, 6) if sevenths else (0, 2, 4)
            tones = tuple(scale[(degree + size) % 7] for size in sizes)
            start = (section.first_bar + index) * bar
            chords.append(Chord(start, start + bar, tones[0], tones))
    return Score(tempo, seconds, scale, tuple(chords), sections)
