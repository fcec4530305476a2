"""Songs played from MIDI: accompaniments of chord charts and existing songs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recipes.mini import charts, drum_machine, effects, fonts, kits, midi, sources
from recipes.mini.audio import rms
from recipes.mini.electronic import active_bars
from recipes.mini.notes import melody
from recipes.mini.score import Score

GUITARS = tuple(range(24, 32))
DISTORTED = (29, 30)
_FAMILIES = [tuple(range(first, first + 8)) for first in range(0, 96, 8) if first != 32]
_LEADS = (26, 27, 29, 30, 40, 52, 53, 54, 56, 64, 65, 66, 67, 71, 73, 75, 80, 81, 82, 85, 87)
_HARD = (52, 53, 54, 85, 91)  # choirs and voices: other, though they sound sung


@dataclass(frozen=True)
class Palette:
    """What a set of songs may be played with."""

    fonts: tuple[Path, ...]
    held_out: bool


TRAINING = Palette((sources.FLUID, sources.MUSESCORE), held_out=False)
HELD_OUT = Palette((sources.CSOUND, sources.CSOUND, sources.TIMGM), held_out=True)


def chart_parts(
    rng: np.random.Generator, score: Score, palette: Palette
) -> tuple[list[midi.Part], list[str]]:
    """Parts that mma makes of the score, and the grooves used."""
    section_grooves = charts.choose_grooves(rng, score, palette.held_out)
    parts = midi.read_parts(charts.accompany(score, section_grooves))
    return parts, sorted(set(section_grooves))


def song_parts(
    rng: np.random.Generator, data: bytes, seconds: float
) -> tuple[list[midi.Part], Score]:
    """An excerpt of a MIDI song, transposed and at its own tempo or near it, and its harmony."""
    file = midi.open_song(data)
    tempo = midi.first_tempo(file) * rng.uniform(0.88, 1.14)
    while tempo < 70:
        tempo *= 2
    factor = tempo / midi.first_tempo(file)
    parts = midi.read_parts(file, tempo=tempo if factor < 1.2 else midi.first_tempo(file))
    last = max(time for part in parts for time, _ in part.events)
    start = rng.uniform(0, max(0.0, last - seconds))
    start -= start % (240 / tempo)
    parts = midi.excerpt(parts, start, start + seconds, int(rng.integers(-4, 5)))
    return parts, midi.estimate_score(parts, tempo, seconds)


def lead_part(rng: np.random.Generator, score: Score) -> midi.Part:
    """A melody for a solo instrument, in some of the sections."""
    program = int(rng.choice(_HARD if rng.random() < 0.25 else _LEADS))
    seed, centre = rng.integers(2**32), rng.uniform(62, 80)
    bars = active_bars(rng, score, rng.uniform(0.3, 0.9))
    tunes = [
        melody(np.random.default_rng(seed), score, bar * score.bar, (bar + 2) * score.bar, centre)
        for bar in bars[::2]
    ]
    return midi.Part("other", program, midi.note_events(np.concatenate(tunes)))


def _instrument(rng: np.random.Generator, font: Path, program: int) -> fonts.Preset:
    """The part's own program, another of its family, or anything."""
    chance = rng.random()
    family = next((f for f in _FAMILIES if program in f), (program,))
    if chance > 0.8:
        family = _FAMILIES[rng.integers(len(_FAMILIES))]
    return fonts.choose(rng, font, (program,) if chance < 0.4 else family)


def drums(
    rng: np.random.Generator, parts: list[midi.Part], palette: Palette, score: Score
) -> tuple[np.ndarray, str]:
    """Drum parts on a soundfont's kit; sometimes on a drum machine or a recorded kit."""
    if rng.random() < 0.22:
        notes = np.concatenate([midi.notes_of(part) for part in parts])
        if palette.held_out:
            name = str(rng.choice(kits.recorded_kits()))
            kit = kits.recorded_kit(rng, name)
        else:
            name, kit = "drum machine", drum_machine.synthetic_kit(rng)
        sound = drum_machine.play(kit, notes, {}, score.seconds)
        if rms(sound) > 0:
            return sound, name
    font = palette.fonts[rng.integers(len(palette.fonts))]
    choices = fonts.kits(font)
    kit = choices[rng.integers(len(choices))]
    sound = fonts.render(parts, [kit] * len(parts), score.seconds)
    return (sound, str(kit)) if rms(sound) > 0 else drums(rng, parts, palette, score)


def bass(
    rng: np.random.Generator, parts: list[midi.Part], palette: Palette, score: Score
) -> tuple[np.ndarray, str]:
    """Bass parts on one bass of a soundfont."""
    font = palette.fonts[rng.integers(len(palette.fonts))]
    own = parts[0].program
    programs = (own,) if rng.random() < 0.4 else (*range(32, 40), 38, 39)
    preset = fonts.choose(rng, font, programs)
    return fonts.render(parts, [preset] * len(parts), score.seconds), str(preset)


def other(
    rng: np.random.Generator, parts: list[midi.Part], palette: Palette, score: Score
) -> tuple[np.ndarray, list[str]]:
    """Every other part, in up to three groups with effects of their own."""
    groups: dict[str, list[tuple[midi.Part, fonts.Preset]]] = {}
    font_of = {
        group: palette.fonts[rng.integers(len(palette.fonts))] for group in ("guitars", "a", "b")
    }
    for part in parts:
        group = "guitars" if part.program in GUITARS else str(rng.choice(["a", "b"]))
        preset = _instrument(rng, font_of[group], part.program)
        groups.setdefault(group, []).append((part, preset))
    total = np.float32(0)
    credits = []
    for group, members in groups.items():
        chosen, presets = zip(*members, strict=True)
        sound = fonts.render(list(chosen), list(presets), score.seconds)
        loud = any(preset.program in DISTORTED for preset in presets)
        if group == "guitars" and rng.random() < (0.75 if loud else 0.25):
            sound = effects.amplifier(rng, sound)
        sound = effects.instrument(rng, sound, score.beat)
        power = rms(sound)
        gain = 10 ** (rng.uniform(-6, 0) / 20) * 0.1 / power if power > 0 else 0.0
        total = total + np.float32(gain) * sound
        credits.extend(str(preset) for preset in presets)
    return total, credits
