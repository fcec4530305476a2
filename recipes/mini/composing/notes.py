"""Notes as arrays, and melodies that fit a score."""

from collections.abc import Iterable

import numpy as np

from recipes.mini.composing.score import Score

NOTE = np.dtype([("start", "f8"), ("duration", "f8"), ("pitch", "f8"), ("velocity", "f8")])
"""One note: start and duration in seconds, MIDI pitch, velocity 0 to 1."""

# Beats; rows are one or two bars long.
_RHYTHMS = (
    (1, 1, 1, 1),
    (0.5, 0.5, 1, 0.5, 0.5, 1),
    (1.5, 0.5, 1, 1),
    (0.75, 0.75, 0.5, 1, 1),
    (0.5, 0.5, 0.5, 0.5, 2),
    (0.5, 1, 0.5, 2),
    (0.25, 0.25, 0.5, 0.5, 0.5, 1, 1),
    (2, 1, 1),
    (3, 1),
    (0.5, 0.5, 0.5, 1.5, 1),
    (1.5, 1.5, 1),
)


def collect(rows: Iterable[tuple[float, float, float, float]]) -> np.ndarray:
    """Return rows of (start, duration, pitch, velocity) as one array, in order of time."""
    return np.sort(np.array(list(rows), dtype=NOTE), order="start")


def from_hz(frequency: np.ndarray | float) -> np.ndarray:
    """Return the MIDI pitch of a frequency in Hz."""
    return 69 + 12 * np.log2(np.asarray(frequency) / 440)


def to_hz(pitch: np.ndarray | float) -> np.ndarray:
    """Return the frequency in Hz of a MIDI pitch."""
    return 440 * 2 ** ((np.asarray(pitch) - 69) / 12)


def nearest(pitch: float, pitch_classes: tuple[int, ...]) -> int:
    """Return the MIDI pitch nearest to `pitch` among `pitch_classes`."""
    candidates = np.arange(int(pitch) - 6, int(pitch) + 8)
    allowed = candidates[np.isin(candidates % 12, pitch_classes)]
    return int(allowed[np.argmin(np.abs(allowed - pitch))])


def voicing(tones: tuple[int, ...], low: int) -> list[int]:
    """Return the chord's tones as the lowest pitches at or above `low`."""
    return sorted(low + (tone - low) % 12 for tone in tones)


def melody_pitches(
    rng: np.random.Generator, score: Score, starts: np.ndarray, centre: float, span: float
) -> np.ndarray:
    """Walk the scale around `centre` (± `span` semitones), with chord tones on the beats."""
    pitches = np.empty(len(starts))
    pitch = centre + rng.uniform(-span, span) / 2
    for index, start in enumerate(starts):
        step = rng.choice(
            [-4, -2, -2, 0, 0, 2, 2, 4, 7], p=[0.1, 0.14, 0.14, 0.12, 0.12, 0.14, 0.14, 0.07, 0.03]
        )
        pull = 0.25 * (centre - pitch)
        target = np.clip(pitch + step + pull, centre - span, centre + span)
        on_beat = abs(start / score.beat - round(start / score.beat)) < 0.1
        classes = score.chord_at(start).tones if on_beat else score.scale
        pitch = nearest(target, classes)
        pitches[index] = pitch
    return pitches


def rhythm(rng: np.random.Generator, beats: float) -> np.ndarray:
    """Return note lengths that add up to at least `beats`, from one or two repeated cells."""
    cells = [_RHYTHMS[i] for i in rng.integers(len(_RHYTHMS), size=2)]
    lengths: list[float] = []
    while sum(lengths) < beats:
        lengths.extend(cells[0] if rng.random() < 0.6 else cells[1])
    return np.array(lengths)


def melody(
    rng: np.random.Generator, score: Score, start: float, end: float, centre: float
) -> np.ndarray:
    """Draw an instrumental melody between two times (s), with rests, repeated every two bars."""
    lengths = rhythm(rng, 8)
    lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), 8 - 1e-6)) + 1]
    sounding = rng.random(len(lengths)) > rng.uniform(0.05, 0.3)
    legato = rng.uniform(0.6, 1.0)
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    rows = []
    time = start
    while time < end - 1e-6:
        starts = time + offsets * score.beat
        pitches = melody_pitches(rng, score, starts, centre, 9)
        for at, length, pitch, sounds in zip(starts, lengths, pitches, sounding, strict=True):
            if sounds and at < end:
                velocity = rng.uniform(0.6, 1.0)
                rows.append((at, legato * length * score.beat, pitch, velocity))
        time += 8 * score.beat
    return collect(rows)
