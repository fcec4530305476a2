"""Electronic songs: programmed drums, synthesizers and ducking.

Their drums and bass also complete existing songs that have none.
"""

import numpy as np

from recipes.mini.composing import drum_keys, midi, patterns
from recipes.mini.composing.score import Score
from recipes.mini.mixing import effects
from recipes.mini.mixing.audio import SAMPLE_RATE, add_at, rms, seconds_to_samples, stutter
from recipes.mini.mixing.mixdown import Stems
from recipes.mini.plan import SongPlan
from recipes.mini.playing import drum_machine, electronic, fonts, kits, players
from recipes.mini.playing.electronic import Layer
from recipes.mini.playing.players import Palette

_PRESETS = (*range(0, 32), *range(40, 104))  # every program but basses and sound effects


def song(plan: SongPlan, score: Score, palette: Palette) -> tuple[Stems, dict[str, list[str]]]:
    """Return drums, bass and other of an electronic song, and their credits."""
    rng = plan.generator("drums")
    notes, drum_sound, drum_credits = drums(rng, score, palette)
    stems = {"drums": effects.drums(rng, drum_sound, score.beat)}
    rng = plan.generator("bass")
    low = bass(rng, score, palette)
    stems["bass"] = effects.bass(rng, low.sound)
    rng = plan.generator("other")
    layers = _layers(rng, score, palette)
    stems["other"] = _blend(rng, layers, score)
    if rng.random() < 0.6:
        kicks = notes["start"][notes["pitch"] == drum_keys.KICK]
        gain = electronic.sidechain(rng, kicks, len(drum_sound))[:, None]
        stems["other"] = stems["other"] * gain
        stems["bass"] = stems["bass"] * gain
    other_credits = [layer.credit for layer in layers]
    return stems, {"drums": drum_credits, "bass": [low.credit], "other": other_credits}


def drums(
    rng: np.random.Generator, score: Score, palette: Palette
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Program a drum track; return its notes, its sound and its credits."""
    style = str(rng.choice(list(patterns.STYLES)))
    notes = patterns.drum_notes(rng, score, style)
    kit, names = _kit(rng, palette)
    pans = {key: float(rng.uniform(-0.5, 0.5)) for key in drum_keys.KEYS[3:]}
    sound = drum_machine.play(kit, notes, pans, score.seconds)
    made_with = [f"pattern: {style}", *names]
    if not palette.held_out and rng.random() < 0.3:
        made_with.append(_add_loop(rng, score, sound))
    if rng.random() < 0.3:
        for _ in range(rng.integers(2, 10)):
            sound = stutter(rng, sound, score.beat / 8)
    return notes, sound, made_with


def _kit(rng: np.random.Generator, palette: Palette) -> tuple[dict[int, np.ndarray], list[str]]:
    if palette.held_out:
        name = str(rng.choice(kits.recorded_kits()))
        return kits.recorded_kit(rng, name), [f"Hydrogen kit {name}"]
    kit = drum_machine.synthetic_kit(rng)
    if rng.random() < 0.55:
        return kit, ["drum machine"]
    sampled, names = kits.sampled_kit(rng)
    kept = {key: hit for key, hit in sampled.items() if rng.random() < 0.75}
    return kit | kept, ["drum machine", *names]


def _add_loop(rng: np.random.Generator, score: Score, sound: np.ndarray) -> str:
    """Add a drum loop to some of the sections, in place; return its name."""
    loop, name = kits.loop(rng, score.beat)
    level = rng.uniform(0.2, 0.9)
    for bar in electronic.active_bars(rng, score, 0.6):
        start, end = bar * score.bar, (bar + 1) * score.bar
        for at in np.arange(start, end - 0.01, len(loop) / SAMPLE_RATE):
            room = seconds_to_samples(end) - seconds_to_samples(at)
            add_at(sound, loop[:room], seconds_to_samples(at), level)
    return name


def bass(rng: np.random.Generator, score: Score, palette: Palette) -> Layer:
    """Play a bass line, on a synthesizer or on a soundfont's bass."""
    if not palette.held_out and rng.random() < 0.85:
        return electronic.bass(rng, score)
    part = midi.Part("bass", 38, midi.note_events(electronic.bass_notes(rng, score)))
    sound, credit = players.bass(rng, [part], palette, score)
    return Layer(sound, credit, "bass")


def _layers(rng: np.random.Generator, score: Score, palette: Palette) -> list[Layer]:
    count = int(rng.choice([1, 2, 3, 4], p=[0.2, 0.35, 0.3, 0.15]))
    kinds = rng.choice(electronic.PART_KINDS, size=count, replace=False)
    layers = []
    for kind in map(str, kinds):
        if palette.held_out or rng.random() < 0.25:
            layers.append(_sampled_layer(rng, score, palette, kind))
        else:
            layers.append(electronic.synth_part(rng, score, kind))
    riser = electronic.riser(rng, score)
    if riser is not None and not palette.held_out and rng.random() < 0.5:
        layers.append(riser)
    return layers


def _sampled_layer(rng: np.random.Generator, score: Score, palette: Palette, kind: str) -> Layer:
    font = palette.fonts[rng.integers(len(palette.fonts))]
    preset = fonts.choose(rng, font, _PRESETS)
    notes = electronic.part_notes(rng, score, kind)
    part = midi.Part("other", preset.program, midi.note_events(notes))
    sound = fonts.render([part], [preset], score.seconds)
    return Layer(sound, f"{kind}: {preset}", kind)


def _blend(rng: np.random.Generator, layers: list[Layer], score: Score) -> np.ndarray:
    """Send every layer through effects of its own and add them, at levels up to 8 dB apart."""
    total = np.zeros_like(layers[0].sound)
    for layer in layers:
        sound = effects.instrument(rng, layer.sound, score.beat)
        power = rms(sound)
        if power > 0:
            total += np.float32(10 ** (rng.uniform(-8, 0) / 20) * 0.1 / power) * sound
    return total
