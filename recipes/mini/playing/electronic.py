"""Electronic pop: which parts play when, and which sounds play them."""

from dataclasses import dataclass

import numpy as np

from recipes.mini.composing.notes import collect, melody, nearest, voicing
from recipes.mini.composing.score import Score
from recipes.mini.mixing.audio import SAMPLE_RATE, band, pan, seconds_to_samples
from recipes.mini.playing import synths

BASS_KINDS = ("sub", "saw", "square", "reese", "growl", "808", "fm")
PART_KINDS = ("pad", "stabs", "pluck", "arpeggio", "bells", "lead", "keys")
_BASS_STEPS = (
    "x.......x.......", "x.x.x.x.x.x.x.x.", "..x...x...x...x.", "x..x..x...x..x..",
    "x...............", "x..x..x.x..x..x.", "xxxxxxxxxxxxxxxx", "..xx..xx..xx..xx",
    "x.....x...x.....", "x...x...x...x.x.",
)  # fmt: skip
_STAB_STEPS = (
    "x..x..x.........", "..x...x...x...x.", "x.......x.......", "x..x..x..x..x.x.",
    "x...x...x...x...", "....x.......x...", "x.x...x...x.x...",
)  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """A part's sound, (L, 2), and its credit."""

    sound: np.ndarray
    credit: str
    kind: str


def active_bars(rng: np.random.Generator, score: Score, busy: float) -> list[int]:
    """Draw the bars in which a part plays: whole sections, mostly the loud ones."""
    chance = {"intro": 0.5, "verse": 0.8, "build": 0.7, "chorus": 1.0, "break": 0.4}
    bars: list[int] = []
    for section in score.sections:
        if rng.random() < busy * chance[section.kind]:
            bars.extend(range(section.first_bar, section.first_bar + section.bars))
    if not bars:
        longest = max(score.sections, key=lambda section: section.bars)
        bars = list(range(longest.first_bar, longest.first_bar + longest.bars))
    return bars


def bass_notes(rng: np.random.Generator, score: Score) -> np.ndarray:
    """Draw roots in a step pattern, with octaves, fifths and passing notes now and then."""
    steps = str(rng.choice(_BASS_STEPS))
    low = int(rng.integers(26, 34))
    octaves, others = rng.uniform(0, 0.3), rng.uniform(0, 0.25)
    length = rng.uniform(0.5, 1.0)
    starts = np.array([i for i, step in enumerate(steps) if step == "x"])
    lengths = np.diff(np.append(starts, 16))
    rows = []
    for bar in active_bars(rng, score, 0.95):
        chord = score.chord_at((bar + 0.01) * score.bar)
        root = voicing((chord.root,), low)[0]
        for start, steps_held in zip(starts, lengths, strict=True):
            pitch = root + 12 * (rng.random() < octaves)
            if start and rng.random() < others:
                pitch = nearest(root + rng.integers(-5, 8), chord.tones)
            at = (bar + start / 16) * score.bar
            rows.append((at, length * steps_held * score.beat / 4, pitch, rng.uniform(0.8, 1)))
    return collect(row for row in rows if row[0] < score.seconds)


def bass(rng: np.random.Generator, score: Score) -> Layer:
    """Play a bass line on a synthesizer."""
    kind = str(rng.choice(BASS_KINDS, p=[0.18, 0.2, 0.12, 0.12, 0.12, 0.16, 0.1]))
    notes = bass_notes(rng, score)
    if kind in ("growl", "fm", "square") and rng.random() < 0.5:
        notes["pitch"] += 12
    glide = rng.choice([0.0, rng.uniform(0.02, 0.15)], p=[0.5, 0.5]) if kind != "808" else 0.12
    release = 0.6 if kind == "808" else 0.05
    frequency, loudness = synths.line(notes, score.seconds, glide, release)
    sound = _bass_sound(rng, kind, notes, frequency, score) * loudness[:, None]
    return Layer(sound, f"synthesized bass ({kind})", kind)


def _bass_sound(
    rng: np.random.Generator, kind: str, notes: np.ndarray, frequency: np.ndarray, score: Score
) -> np.ndarray:
    hit = synths.gate_envelope(notes, score.seconds, rng.uniform(0.15, 0.8), rng.uniform(0.0, 0.5))
    if kind in ("sub", "808"):
        body = synths.sine(frequency)
        tail = (
            synths.gate_envelope(notes, score.seconds, rng.uniform(0.8, 2.5))
            if kind == "808"
            else 1
        )
        return pan(np.tanh(rng.uniform(0.8, 4) * body * tail), 0.0)
    if kind == "fm":
        ratio = float(rng.choice([0.5, 1, 2, 3]))
        return pan(synths.fm(frequency, ratio, rng.uniform(1, 5) * hit), 0.0)
    if kind == "reese":
        return _reese(rng, frequency)
    if kind == "growl":
        return _growl(rng, frequency, score)
    wave = (
        synths.saw(frequency) if kind == "saw" else synths.square(frequency, rng.uniform(0.2, 0.5))
    )
    cutoff = rng.uniform(150, 600) + rng.uniform(300, 4000) * hit
    low = rng.uniform(0, 0.8) * synths.sine(frequency)
    return pan(synths.sweep(wave, cutoff) + low, 0.0)


def _reese(rng: np.random.Generator, frequency: np.ndarray) -> np.ndarray:
    detune = rng.uniform(0.002, 0.012)
    centre = synths.saw(frequency)
    left, right = (
        synths.saw((1 - detune) * frequency, 0.3),
        synths.saw((1 + detune) * frequency, 0.7),
    )
    wide = np.stack([centre + left, centre + right], axis=1) / 2
    return band(wide, None, rng.uniform(300, 2500))


def _growl(rng: np.random.Generator, frequency: np.ndarray, score: Score) -> np.ndarray:
    """Return a wobbling band of frequency modulation over a sub; sometimes only the band."""
    times = np.arange(len(frequency)) / SAMPLE_RATE
    rate = rng.choice([0.5, 1, 2, 3, 4]) / score.beat
    wobble = 0.5 - 0.5 * np.cos(2 * np.pi * rate * times)
    depth = rng.uniform(2, 7) * (0.2 + wobble)
    left = synths.fm(frequency, float(rng.choice([1, 1.5, 2, 3])), depth)
    right = synths.fm(frequency * 1.004, float(rng.choice([1, 1.5, 2, 3])), depth)
    grit = np.tanh(3 * np.stack([left, right], axis=1))
    grit = band(grit, rng.uniform(80, 400), rng.uniform(1500, 5000))
    wet = synths.sweep(grit, 250 * (12**wobble))
    sub = 0.0 if rng.random() < 0.35 else rng.uniform(0.5, 1.2)
    return wet + pan(sub * synths.sine(frequency), 0.0)


def part_notes(rng: np.random.Generator, score: Score, kind: str) -> np.ndarray:
    """Draw the notes of an accompanying part."""
    bars = active_bars(rng, score, rng.uniform(0.25, 1.0))
    if kind == "lead":
        spans = [(bar * score.bar, (bar + 2) * score.bar) for bar in bars[::2]]
        centre = rng.uniform(64, 84)
        seed = rng.integers(2**32)  # every span repeats one tune
        return np.concatenate(
            [melody(np.random.default_rng(seed), score, a, b, centre) for a, b in spans]
        )
    low = int(rng.integers(50, 66)) + (12 if kind in ("bells", "arpeggio") else 0)
    steps = str(rng.choice(_STAB_STEPS))
    order = rng.permutation(8)
    rows: list[tuple[float, ...]] = []
    for bar in bars:
        tones = voicing(score.chord_at((bar + 0.01) * score.bar).tones, low)
        at = bar * score.bar
        if kind == "pad":
            rows.extend((at, 0.98 * score.bar, tone, 0.8) for tone in tones)
        elif kind in ("arpeggio", "bells"):
            every = 1 if kind == "arpeggio" else 2
            ladder = tones + [tone + 12 for tone in tones]
            for i in range(0, 16, every):
                pitch = ladder[order[i // every % 8] % len(ladder)]
                rows.append(
                    (at + i * score.beat / 4, every * score.beat / 4, pitch, rng.uniform(0.6, 1))
                )
        else:
            for i in (i for i, step in enumerate(steps) if step == "x"):
                rows.extend(
                    (at + i * score.beat / 4, 0.4 * score.beat, tone, 0.8) for tone in tones
                )
    return collect(row for row in rows if row[0] < score.seconds)


def synth_part(rng: np.random.Generator, score: Score, kind: str) -> Layer:
    """Play an accompanying part on a synthesizer."""
    notes = part_notes(rng, score, kind)
    if kind == "lead":
        sound = _lead_sound(rng, notes, score.seconds)
    else:
        sound = synths.chords(notes, score.seconds, _chord_voice(rng, kind))
    if kind in ("pad", "stabs") and rng.random() < 0.5:
        times = np.arange(len(sound)) / SAMPLE_RATE
        slow = 0.5 - 0.5 * np.cos(2 * np.pi * times / (score.bar * rng.choice([2, 4, 8])))
        sound = synths.sweep(sound, rng.uniform(300, 800) * rng.uniform(4, 14) ** slow)
    return Layer(sound, f"synthesized {kind}", kind)


def _chord_voice(rng: np.random.Generator, kind: str) -> synths.ChordVoice:
    bright = rng.uniform(1200, 12000)
    if kind == "pad":
        shape = (rng.uniform(0.05, 0.8), 0.5, rng.uniform(0.6, 1), rng.uniform(0.2, 1.2))
        return (synths.supersaw if rng.random() < 0.7 else synths.pulse_keys)(rng, shape, bright)
    if kind == "stabs":
        shape = (0.004, rng.uniform(0.1, 0.4), rng.uniform(0.2, 0.8), rng.uniform(0.05, 0.3))
        return (synths.supersaw if rng.random() < 0.6 else synths.pulse_keys)(rng, shape, bright)
    if kind in ("bells", "keys"):
        return synths.bell(rng, rng.uniform(0.6, 2.5))
    return synths.pluck(rng, rng.uniform(0.2, 1.0))


def _lead_sound(rng: np.random.Generator, notes: np.ndarray, seconds: float) -> np.ndarray:
    frequency, loudness = synths.line(notes, seconds, rng.choice([0.0, 0.04, 0.09]), 0.08)
    times = np.arange(len(frequency)) / SAMPLE_RATE
    vibrato = 1 + rng.uniform(0, 0.012) * np.sin(2 * np.pi * rng.uniform(4.5, 6.5) * times)
    frequency = (frequency * vibrato).astype(np.float32)
    style = rng.integers(4)
    if style == 0:
        wave = synths.square(frequency, rng.uniform(0.1, 0.5))
    elif style == 1:
        wave = synths.saw(frequency) + synths.saw(1.006 * frequency, 0.4)
    elif style == 2:
        wave = synths.fm(frequency, float(rng.choice([1, 2, 3])), rng.uniform(0.5, 4))
    else:
        wave = synths.sine(frequency) + 0.3 * synths.saw(2 * frequency)
    return pan(band(wave, None, rng.uniform(2500, 14000)) * loudness, 0.0)


def riser(rng: np.random.Generator, score: Score) -> Layer | None:
    """Return noise that rises through every build; None if the song has no build."""
    builds = [section for section in score.sections if section.kind == "build"]
    if not builds:
        return None
    sound = np.zeros((seconds_to_samples(score.seconds), 2), dtype=np.float32)
    for section in builds:
        start = seconds_to_samples(section.first_bar * score.bar)
        length = min(seconds_to_samples(section.bars * score.bar), len(sound) - start)
        if length <= 0:
            continue
        rise = np.linspace(0, 1, length, dtype=np.float32)
        noise = rng.standard_normal((length, 2), dtype=np.float32)
        sound[start : start + length] = synths.sweep(noise, 250 * 30**rise) * rise[:, None] ** 2
    return Layer(0.4 * sound, "synthesized riser", "riser")


def sidechain(rng: np.random.Generator, kicks: np.ndarray, length: int) -> np.ndarray:
    """Return a gain curve (L,) that ducks at every kick time (s) and recovers before the next."""
    if not len(kicks):
        return np.ones(length, dtype=np.float32)
    times = np.arange(length) / SAMPLE_RATE
    index = np.searchsorted(kicks, times, side="right") - 1
    since = np.where(index >= 0, times - kicks[np.maximum(index, 0)], np.inf)
    depth, recovery = rng.uniform(0.4, 0.95), rng.uniform(0.12, 0.35)
    return (1 - depth * np.exp(-np.maximum(since, 0) / (recovery / 2))).astype(np.float32)
