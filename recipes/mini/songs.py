"""A planned song becomes four stems."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import uniform_filter1d

from recipes.mini import band, drum_machine, effects, electronic, fonts, kits, midi, patterns
from recipes.mini import mixing, sources, vocals, voices
from recipes.mini.audio import add_at, rms, seconds_to_samples, stutter
from recipes.mini.plan import SongPlan
from recipes.mini.score import Score, compose

Credits = dict[str, list[str]]


@dataclass(frozen=True)
class Track:
    """Four stems as int16 (L, 2), and what they were made with."""

    stems: mixing.Stems
    credits: Credits


def make(plan: SongPlan, bank: Path) -> Track:
    """Render, colour and mix one song."""
    palette = band.HELD_OUT if plan.held_out else band.TRAINING
    score = compose(plan.generator("score"), plan.tempo, plan.seconds, plan.held_out)
    if plan.kind == "electronic":
        stems, credits = _electronic(plan, score, palette)
        genre = "electronic"
    else:
        stems, credits, score = _played(plan, score, palette)
        genre = "pop"
    role = voices.HELD_OUT if plan.held_out else voices.TRAINING
    rng = plan.generator("vocals")
    sung, credits["vocals"] = vocals.vocal_stem(rng, score, bank, role, genre)
    stems["vocals"] = effects.vocals(rng, sung, score.beat, genre)
    mixed = mixing.master(plan.generator("mix"), stems)
    return Track(mixing.quantise(mixed), credits)


def _electronic(
    plan: SongPlan, score: Score, palette: band.Palette
) -> tuple[mixing.Stems, Credits]:
    rng = plan.generator("drums")
    notes, drums, drum_credits = _electronic_drums(rng, score, palette)
    stems = {"drums": effects.drums(rng, drums, score.beat)}
    rng = plan.generator("bass")
    bass = _electronic_bass(rng, score, palette)
    stems["bass"] = effects.bass(rng, bass.sound)
    rng = plan.generator("other")
    layers = _electronic_layers(rng, score, palette)
    total = np.zeros_like(drums)
    for layer in layers:
        sound = effects.instrument(rng, layer.sound, score.beat)
        power = rms(sound)
        if power > 0:
            total += np.float32(10 ** (rng.uniform(-8, 0) / 20) * 0.1 / power) * sound
    stems["other"] = total
    if rng.random() < 0.6:
        kicks = notes["start"][notes["pitch"] == drum_machine.KICK]
        gain = electronic.sidechain(rng, kicks, len(drums))[:, None]
        stems["other"] = stems["other"] * gain
        stems["bass"] = stems["bass"] * gain
    credits = {"drums": drum_credits, "bass": [bass.credit],
               "other": [layer.credit for layer in layers]}  # fmt: skip
    return stems, credits


def _electronic_drums(
    rng: np.random.Generator, score: Score, palette: band.Palette
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    style = str(rng.choice(list(patterns.STYLES)))
    notes = patterns.drum_notes(rng, score, style)
    kit, names = _electronic_kit(rng, palette)
    pans = {key: float(rng.uniform(-0.5, 0.5)) for key in drum_machine.KEYS[3:]}
    sound = drum_machine.play(kit, notes, pans, score.seconds)
    credits = [f"pattern: {style}", *names]
    if not palette.held_out and rng.random() < 0.3:
        loop, name = kits.loop(rng, score.beat)
        level = rng.uniform(0.2, 0.9)
        for bar in electronic.active_bars(rng, score, 0.6):
            for at in np.arange(bar * score.bar, (bar + 1) * score.bar - 0.01, len(loop) / 44_100):
                end = seconds_to_samples((bar + 1) * score.bar) - seconds_to_samples(at)
                add_at(sound, loop[:end], seconds_to_samples(at), level)
        credits.append(name)
    if rng.random() < 0.3:
        for _ in range(rng.integers(2, 10)):
            sound = stutter(rng, sound, score.beat / 8)
    return notes, sound, credits


def _electronic_kit(
    rng: np.random.Generator, palette: band.Palette
) -> tuple[dict[int, np.ndarray], list[str]]:
    if palette.held_out:
        name = str(rng.choice(kits.recorded_kits()))
        return kits.recorded_kit(rng, name), [f"Hydrogen kit {name}"]
    kit = drum_machine.synthetic_kit(rng)
    if rng.random() < 0.55:
        return kit, ["drum machine"]
    sampled, names = kits.sampled_kit(rng)
    kept = {key: hit for key, hit in sampled.items() if rng.random() < 0.75}
    return kit | kept, ["drum machine", *names]


def _electronic_bass(
    rng: np.random.Generator, score: Score, palette: band.Palette
) -> electronic.Layer:
    if not palette.held_out and rng.random() < 0.85:
        return electronic.bass(rng, score)
    part = midi.Part("bass", 38, midi.note_events(electronic.bass_notes(rng, score)))
    sound, credit = band.bass(rng, [part], palette, score)
    return electronic.Layer(sound, credit, "bass")


def _electronic_layers(
    rng: np.random.Generator, score: Score, palette: band.Palette
) -> list[electronic.Layer]:
    count = int(rng.choice([1, 2, 3, 4], p=[0.2, 0.35, 0.3, 0.15]))
    kinds = rng.choice(electronic.PART_KINDS, size=count, replace=False)
    layers = []
    for kind in map(str, kinds):
        if palette.held_out or rng.random() < 0.25:
            font = palette.fonts[rng.integers(len(palette.fonts))]
            preset = fonts.choose(rng, font, (*range(0, 32), *range(40, 104)))
            notes = electronic.part_notes(rng, score, kind)
            part = midi.Part("other", preset.program, midi.note_events(notes))
            sound = fonts.render([part], [preset], score.seconds)
            layers.append(electronic.Layer(sound, f"{kind}: {preset}", kind))
        else:
            layers.append(electronic.synth_part(rng, score, kind))
    riser = electronic.riser(rng, score)
    if riser is not None and not palette.held_out and rng.random() < 0.5:
        layers.append(riser)
    return layers


def _played(
    plan: SongPlan, score: Score, palette: band.Palette
) -> tuple[mixing.Stems, Credits, Score]:
    rng = plan.generator("song")
    if plan.kind == "chart":
        parts, credits = band.chart_parts(rng, score, palette)
        title = [f"mma groove {name}" for name in credits]
    else:
        name, data = _existing_song(rng, palette)
        parts, score = band.song_parts(rng, data, plan.seconds)
        title = [name]
    of_stem = {stem: [part for part in parts if part.stem == stem] for stem in mixing.STEMS}
    if rng.random() < 0.45 or not of_stem["other"]:
        of_stem["other"].append(band.lead_part(rng, score))
    rng = plan.generator("drums")
    if of_stem["drums"]:
        drums, drum_credit = band.drums(rng, of_stem["drums"], palette, score)
        drum_credits = [drum_credit]
    else:
        _, drums, drum_credits = _electronic_drums(rng, score, palette)
    stems = {"drums": effects.drums(rng, drums, score.beat)}
    rng = plan.generator("bass")
    if of_stem["bass"]:
        bass, bass_credit = band.bass(rng, of_stem["bass"], palette, score)
    else:
        layer = _electronic_bass(rng, score, palette)
        bass, bass_credit = layer.sound, layer.credit
    stems["bass"] = effects.bass(rng, bass)
    stems["other"], credits = band.other(plan.generator("other"), of_stem["other"], palette, score)
    stems = _drop_outs(plan.generator("form"), score, stems)
    found = {"song": title, "drums": drum_credits, "bass": [bass_credit], "other": credits}
    return stems, found, score


def _existing_song(rng: np.random.Generator, palette: band.Palette) -> tuple[str, bytes]:
    if palette.held_out:
        path = sorted(sources.OPENMSX.glob("*.mid"))[rng.integers(31)]
        return f"OpenMSX {path.name}", path.read_bytes()
    songs = [
        (f"Freedoom {path.name} {name}", data)
        for path in sources.FREEDOOM
        for name, data in sorted(midi.archive_songs(path).items())
    ]
    return songs[rng.integers(len(songs))]


def _drop_outs(rng: np.random.Generator, score: Score, stems: mixing.Stems) -> mixing.Stems:
    """In some songs, stems that rest for a section now and then."""
    share = rng.choice([0.0, 0.12, 0.3], p=[0.5, 0.3, 0.2])
    result = {}
    for name, sound in stems.items():
        gain = np.ones(len(sound), dtype=np.float32)
        for section in score.sections[1:]:
            if rng.random() < share:
                first = seconds_to_samples(section.first_bar * score.bar)
                gain[first : first + seconds_to_samples(section.bars * score.bar)] = 0
        result[name] = sound * uniform_filter1d(gain, seconds_to_samples(0.02))[:, None]
    return result
