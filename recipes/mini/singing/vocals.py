"""The vocal stem of a song: who sings which phrase when, with doubles, harmonies and chops."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from recipes.mini.composing.notes import collect, from_hz, melody_pitches, nearest, rhythm, voicing
from recipes.mini.composing.score import Score
from recipes.mini.mixing.audio import add_at, fade, pan, seconds_to_samples, stutter
from recipes.mini.singing import vocoder, voices
from recipes.mini.singing.vocoder import Delivery

STYLES = ("sung", "tuned", "rap", "whisper", "chops", "robot")
_STYLE_SHARES = {
    "pop": (0.72, 0.06, 0.12, 0.03, 0.05, 0.02),
    "electronic": (0.4, 0.2, 0.1, 0.05, 0.17, 0.08),
}


@dataclass(frozen=True)
class Singer:
    """A voice with its range and manner for one song."""

    voice: voices.Voice
    phrases: tuple[voices.Phrase, ...]
    centre: float  # MIDI pitch the melodies lie around
    how: Delivery

    def __str__(self) -> str:
        return f"{self.voice.name} ({self.voice.engine}), formants x{self.how.formants}"


def choose_singer(rng: np.random.Generator, bank: Path, role: str, style: str) -> Singer:
    """Draw a voice of the role, scale its vocal tract and move its range."""
    cast = [voice for voice in voices.VOICES if voice.role == role]
    weights = np.array([3.0 if voice.engine == "hibari" else 1.2 for voice in cast])
    voice = cast[rng.choice(len(cast), p=weights / weights.sum())]
    formants = float(np.exp(rng.normal(0, 0.09)).clip(0.8, 1.22))
    centre = float(from_hz(voice.pitch)) + 16 * np.log2(formants) + rng.uniform(1, 9)
    tuned = style in ("tuned", "robot")
    how = Delivery(
        formants=round(formants, 2),
        portamento=0.004 if tuned else rng.uniform(0.03, 0.12),
        vibrato=0.0 if tuned else rng.uniform(0.0, 0.6),
        vibrato_rate=rng.uniform(4.6, 6.6),
        breathiness=1.0 if style == "whisper" else float(rng.choice([0, 0, rng.uniform(0.1, 0.6)])),
        drift=0.0 if tuned else rng.uniform(0.04, 0.14),
        spoken=0.8 if style == "rap" else float(rng.choice([0, rng.uniform(0, 0.3)])),
        air=rng.uniform(-4.5, -1.8),
        effort=rng.uniform(0, 11),
        sibilance=rng.uniform(-9, 0),
    )
    return Singer(voice, voices.load_voice(bank, voice.name), centre, how)


@dataclass(frozen=True)
class Line:
    """A phrase on notes at the song's own times (s)."""

    singer: Singer
    phrase: voices.Phrase
    notes: np.ndarray

    @property
    def start(self) -> float:
        """Seconds at which the first note begins."""
        return float(self.notes["start"][0])

    def again(self, seconds: float) -> "Line":
        """Return the same line, `seconds` later."""
        return replace(self, notes=_moved(self.notes, seconds))


def _compose_line(
    rng: np.random.Generator, score: Score, singer: Singer, style: str, start: float, room: float
) -> Line:
    """Draw a phrase that begins at `start` (s) or up to 1.5 beats later, within `room` (s)."""
    phrase = singer.phrases[rng.integers(len(singer.phrases))]
    late = rng.choice([0, 0.5, 1, 1.5]) * score.beat
    notes = _line_notes(rng, score, singer, phrase, start + late, room - late, style)
    return Line(singer, phrase, notes)


def _line_notes(
    rng: np.random.Generator, score: Score, singer: Singer, phrase: voices.Phrase, start: float,
    room: float, style: str,
) -> np.ndarray:  # fmt: skip
    """Draw notes for the phrase's syllables from `start` (s), as many as fit into `room` (s)."""
    count = len(vocoder.syllables(phrase)) - 1
    if style == "rap":
        lengths = rng.choice([0.25, 0.5, 0.5, 0.75], size=count)
    else:
        lengths = np.resize(rhythm(rng, count), count)
        lengths = lengths * rng.choice([0.5, 1.0], p=[0.35, 0.65])
        lengths[-1] *= rng.choice([1, 2, 3])
    lengths = np.maximum(lengths * score.beat, 0.09)
    starts = start + np.concatenate([[0], np.cumsum(lengths)[:-1]])
    kept = starts + lengths <= start + room
    kept[0] = True
    span = 2 if style == "rap" else 0.5 if style == "robot" else 7
    pitches = melody_pitches(rng, score, starts[kept], singer.centre, span)
    gaps = rng.uniform(0.85, 1.0)
    ends = np.minimum(lengths[kept] * gaps, room)
    return collect(zip(starts[kept], ends, pitches, np.ones(kept.sum()), strict=True))


def _moved(notes: np.ndarray, seconds: float, semitones: np.ndarray | float = 0.0) -> np.ndarray:
    moved = notes.copy()
    moved["start"] += seconds
    moved["pitch"] += semitones
    return moved


def _harmony(score: Score, notes: np.ndarray, above: float) -> np.ndarray:
    moved = notes.copy()
    moved["pitch"] = [
        nearest(pitch + above, score.chord_at(start).tones)
        for start, pitch in zip(notes["start"], notes["pitch"], strict=True)
    ]
    return moved


@dataclass(frozen=True)
class Arrangement:
    """How a song's lines are thickened: the share of lines that get each extra voice."""

    doubles: float
    harmonies: float
    octaves: float
    breaths: bool


def _arrangement(rng: np.random.Generator) -> Arrangement:
    return Arrangement(
        doubles=rng.choice([0, 0.3, 1.0]), harmonies=rng.choice([0, 0.2, 0.6]),
        octaves=rng.choice([0, 0, 0.2]), breaths=bool(rng.random() < 0.5),
    )  # fmt: skip


def _sing_line(
    rng: np.random.Generator, score: Score, line: Line, extras: Arrangement
) -> np.ndarray:
    """Sing the line with its doubles and harmonies: (L, 2) from the line's start."""
    notes, how = _moved(line.notes, -line.start), line.singer.how

    def voice(notes: np.ndarray, how: Delivery) -> np.ndarray:
        return vocoder.sing(rng, line.phrase, notes, how)

    layers = [pan(voice(notes, how), rng.uniform(-0.12, 0.12))]
    if rng.random() < extras.doubles:
        for side in (-1, 1):
            double = voice(_moved(notes, 0.0, rng.normal(0, 0.08)), replace(how, drift=0.12))
            double = np.roll(double, seconds_to_samples(rng.uniform(0.004, 0.03)))
            layers.append(rng.uniform(0.25, 0.7) * pan(double, side * rng.uniform(0.5, 1)))
    if rng.random() < extras.harmonies:
        for above in rng.choice([-5, 4, 4, 7], size=rng.integers(1, 3), replace=False):
            second = _moved(_harmony(score, line.notes, above), -line.start)
            formants = round(how.formants * rng.uniform(0.95, 1.05), 2)
            sung = voice(second, replace(how, formants=formants))
            layers.append(rng.uniform(0.3, 0.8) * pan(sung, rng.uniform(-0.9, 0.9)))
    if rng.random() < extras.octaves:
        sung = voice(_moved(notes, 0.0, rng.choice([-12, 12])), how)
        layers.append(rng.uniform(0.2, 0.6) * pan(sung, rng.uniform(-0.5, 0.5)))
    total = np.zeros((max(map(len, layers)), 2), dtype=np.float32)
    for layer in layers:
        add_at(total, layer, 0)
    return total


def _breath(rng: np.random.Generator, singer: Singer) -> np.ndarray:
    """Return a breath before a line: noise through the voice's own vocal tract."""
    phrase = singer.phrases[rng.integers(len(singer.phrases))]
    notes = collect([(0.0, rng.uniform(0.2, 0.45), 60, 1.0)])
    sound = vocoder.sing(rng, phrase, notes, replace(singer.how, breathiness=1.0))
    return pan(fade(rng.uniform(0.03, 0.15) * sound, 0.08), 0.0)


def _chops(
    rng: np.random.Generator, score: Score, singer: Singer, start: float, bars: int
) -> np.ndarray:
    """Return short pieces of sung syllables in a repeated rhythm on chord tones: (L, 2)."""
    step = score.beat / 4
    total = np.zeros((seconds_to_samples(bars * score.bar), 2), dtype=np.float32)
    phrase = singer.phrases[rng.integers(len(singer.phrases))]
    pattern = np.flatnonzero(rng.random(16) < rng.uniform(0.2, 0.6))
    pattern = pattern if len(pattern) else np.array([0, 6])
    lengths = np.minimum(np.diff(np.append(pattern, 16)), rng.integers(1, 9)) * step
    choices = rng.integers(0, 4, size=len(pattern))
    if rng.random() < 0.3:  # a held chord instead
        pattern, lengths, choices = np.zeros(3, int), np.full(3, 16 * step), np.arange(3)
    cache: dict[tuple[int, float], np.ndarray] = {}
    for bar in range(bars):
        tones = voicing(
            score.chord_at(start + bar * score.bar + 0.01).tones, round(singer.centre) - 5
        )
        for i, length, choice in zip(pattern, lengths, choices, strict=True):
            key = (tones[choice % len(tones)], round(float(length), 3))
            if key not in cache:
                note = collect([(0.0, max(key[1], 0.06), key[0], 1.0)])
                cache[key] = fade(vocoder.sing(rng, phrase, note, singer.how), 0.004)
            at = seconds_to_samples(bar * score.bar + i * step)
            add_at(total, pan(cache[key], float(rng.uniform(-0.6, 0.6))), at)
    return total


def vocal_stem(
    rng: np.random.Generator, score: Score, bank: Path, role: str, genre: str
) -> tuple[np.ndarray, list[str]]:
    """Return a song's vocals (L, 2) without effects, and a credit for each singer."""
    style = str(rng.choice(STYLES, p=_STYLE_SHARES[genre]))
    lead = choose_singer(rng, bank, role, style)
    guest = choose_singer(rng, bank, role, "sung") if rng.random() < 0.35 else lead
    extras = _arrangement(rng)
    glitchy = genre == "electronic" and rng.random() < 0.35
    total = np.zeros((seconds_to_samples(score.seconds), 2), dtype=np.float32)
    hook: Line | None = None  # the chorus's line, which comes back
    hook_start = 0.0
    for section, first_bar, bars in _lines(rng, score):
        start, room = first_bar * score.bar, bars * score.bar
        if style == "chops" or (glitchy and rng.random() < 0.3):
            add_at(total, _chops(rng, score, lead, start, bars), seconds_to_samples(start))
            continue
        singer = guest if section == "chorus" and rng.random() < 0.5 else lead
        if section == "chorus" and hook is not None and rng.random() < 0.7:
            line = hook.again(start - hook_start)
        else:
            own_style = style if singer is lead else "sung"
            line = _compose_line(rng, score, singer, own_style, start, room)
            if section == "chorus":
                hook, hook_start = line, start
        sound = _sing_line(rng, score, line, extras)
        if glitchy and rng.random() < 0.5:
            sound = stutter(rng, sound, score.beat / 4)
        at = seconds_to_samples(line.start)
        add_at(total, sound, at)
        if extras.breaths:
            breath = _breath(rng, line.singer)
            add_at(total, breath, at - len(breath))
    return total, [f"style: {style}", *dict.fromkeys(map(str, (lead, guest)))]


def _lines(rng: np.random.Generator, score: Score) -> list[tuple[str, int, int]]:
    """Draw (section kind, first bar, bars) of every line; someone sings most of the time."""
    chance = {"intro": 0.35, "verse": 0.9, "build": 0.6, "chorus": 0.95, "break": 0.5}
    span = max(1, round(rng.uniform(2.2, 5) / score.bar))
    rest = rng.uniform(0.05, 0.3)
    found = []
    for section in score.sections:
        if rng.random() > chance[section.kind]:
            continue
        for first in range(section.first_bar, section.first_bar + section.bars, span):
            if rng.random() > rest and first * score.bar < score.seconds - 1:
                found.append(
                    (section.kind, first, min(span, section.first_bar + section.bars - first))
                )
    return found or [("verse", 0, span)]
