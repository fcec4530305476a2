"""Parts played on sampled instruments: soundfonts, and drum kits of recorded hits."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recipes.mini import sources
from recipes.mini.composing import midi
from recipes.mini.composing.score import Score
from recipes.mini.mixing import effects
from recipes.mini.mixing.audio import rms, seconds_to_samples
from recipes.mini.playing import drum_machine, fonts, kits

GUITARS = tuple(range(24, 32))
DISTORTED = (29, 30)
BASSES = (*range(32, 40), 38, 39)  # synthesizers count twice
_FAMILIES = [tuple(range(first, first + 8)) for first in range(0, 96, 8) if first != 32]


@dataclass(frozen=True)
class Palette:
    """The soundfonts that a set of songs may be played with."""

    fonts: tuple[Path, ...]
    held_out: bool


TRAINING = Palette((sources.FLUID, sources.MUSESCORE), held_out=False)
HELD_OUT = Palette((sources.CSOUND, sources.CSOUND, sources.TIMGM), held_out=True)


def _instrument(rng: np.random.Generator, font: Path, program: int) -> fonts.Preset:
    """Draw the part's own program, another of its family, or anything."""
    chance = rng.random()
    family = next((f for f in _FAMILIES if program in f), (program,))
    if chance > 0.8:
        family = _FAMILIES[rng.integers(len(_FAMILIES))]
    return fonts.choose(rng, font, (program,) if chance < 0.4 else family)


def drums(
    rng: np.random.Generator, parts: list[midi.Part], palette: Palette, score: Score
) -> tuple[np.ndarray, list[str]]:
    """Play drum parts on a soundfont's kit; sometimes on a drum machine or a recorded kit."""
    if rng.random() < 0.22:
        notes = np.concatenate([midi.notes_of(part) for part in parts])
        if palette.held_out:
            name = str(rng.choice(kits.recorded_kits()))
            hits = kits.recorded_kit(rng, name)
        else:
            name, hits = "drum machine", drum_machine.synthetic_kit(rng)
        sound = drum_machine.play(hits, notes, {}, score.seconds)
        if rms(sound) > 0:
            return sound, [name]
    font = palette.fonts[rng.integers(len(palette.fonts))]
    choices = fonts.kits(font)
    kit = choices[rng.integers(len(choices))]
    sound = fonts.render(parts, [kit] * len(parts), score.seconds)
    if rms(sound) == 0:  # a kit without the keys of this song
        return drums(rng, parts, palette, score)
    return sound, [str(kit)]


def bass(
    rng: np.random.Generator, parts: list[midi.Part], palette: Palette, score: Score
) -> tuple[np.ndarray, str]:
    """Play bass parts on one bass of a soundfont."""
    font = palette.fonts[rng.integers(len(palette.fonts))]
    programs = (parts[0].program,) if rng.random() < 0.4 else BASSES
    preset = fonts.choose(rng, font, programs)
    return fonts.render(parts, [preset] * len(parts), score.seconds), str(preset)


def other(
    rng: np.random.Generator, parts: list[midi.Part], palette: Palette, score: Score
) -> tuple[np.ndarray, list[str]]:
    """Play every other part, in up to three groups with effects of their own."""
    groups: dict[str, list[tuple[midi.Part, fonts.Preset]]] = {}
    font_of = {
        group: palette.fonts[rng.integers(len(palette.fonts))] for group in ("guitars", "a", "b")
    }
    for part in parts:
        group = "guitars" if part.program in GUITARS else str(rng.choice(["a", "b"]))
        preset = _instrument(rng, font_of[group], part.program)
        groups.setdefault(group, []).append((part, preset))
    total = np.zeros((seconds_to_samples(score.seconds), 2), dtype=np.float32)
    made_with = []
    for group, members in groups.items():
        total += _group(rng, members, group == "guitars", score)
        made_with.extend(str(preset) for _, preset in members)
    return total, made_with


def _group(
    rng: np.random.Generator,
    members: list[tuple[midi.Part, fonts.Preset]],
    guitars: bool,
    score: Score,
) -> np.ndarray:
    """Play parts that share effects, up to 6 dB below the usual level."""
    parts = [part for part, _ in members]
    presets = [preset for _, preset in members]
    sound = fonts.render(parts, presets, score.seconds)
    driven = any(preset.program in DISTORTED for preset in presets)
    if guitars and rng.random() < (0.75 if driven else 0.25):
        sound = effects.amplifier(rng, sound)
    sound = effects.instrument(rng, sound, score.beat)
    power = rms(sound)
    return np.float32(10 ** (rng.uniform(-6, 0) / 20) * 0.1 / power if power > 0 else 0) * sound
