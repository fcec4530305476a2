"""Songs played from MIDI: accompaniments of chord charts, and existing songs."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.ndimage import uniform_filter1d

from recipes.mini import sources
from recipes.mini.composing import charts, midi
from recipes.mini.composing.notes import melody
from recipes.mini.composing.score import Score
from recipes.mini.mixing import effects
from recipes.mini.mixing.audio import seconds_to_samples
from recipes.mini.mixing.mixdown import STEMS, Stems
from recipes.mini.plan import SongPlan
from recipes.mini.playing import players, produced
from recipes.mini.playing.electronic import active_bars
from recipes.mini.playing.players import Palette

_LEADS = (26, 27, 29, 30, 40, 52, 53, 54, 56, 64, 65, 66, 67, 71, 73, 75, 80, 81, 82, 85, 87)
_VOICE_LIKE = (52, 53, 54, 85, 91)  # choirs and voices: `other`, though they sound sung


@dataclass(frozen=True)
class Sheet:
    """A song's parts, its harmony and where it came from."""

    parts: list[midi.Part]
    score: Score
    title: list[str]


def song(
    plan: SongPlan, score: Score, palette: Palette
) -> tuple[Stems, dict[str, list[str]], Score]:
    """Return drums, bass and other of a MIDI song, their credits, and the song's own score."""
    rng = plan.generator("song")
    sheet = _chart(rng, score, palette) if plan.kind == "chart" else _existing(rng, plan, palette)
    score = sheet.score
    parts = {stem: [part for part in sheet.parts if part.stem == stem] for stem in STEMS}
    if rng.random() < 0.45 or not parts["other"]:
        parts["other"].append(_lead(rng, score))
    stems: Stems = {}
    made_with = {"song": sheet.title}
    rng = plan.generator("drums")
    if parts["drums"]:
        drums, made_with["drums"] = players.drums(rng, parts["drums"], palette, score)
    else:
        _, drums, made_with["drums"] = produced.drums(rng, score, palette)
    stems["drums"] = effects.drums(rng, drums, score.beat)
    rng = plan.generator("bass")
    if parts["bass"]:
        bass, credit = players.bass(rng, parts["bass"], palette, score)
    else:
        layer = produced.bass(rng, score, palette)
        bass, credit = layer.sound, layer.credit
    stems["bass"], made_with["bass"] = effects.bass(rng, bass), [credit]
    rng = plan.generator("other")
    stems["other"], made_with["other"] = players.other(rng, parts["other"], palette, score)
    return _drop_outs(plan.generator("form"), score, stems), made_with, score


def _chart(rng: np.random.Generator, score: Score, palette: Palette) -> Sheet:
    """Let mma accompany the score."""
    grooves = charts.choose_grooves(rng, score, palette.held_out)
    data = charts.accompany(score, grooves, int(rng.integers(2**31)))
    parts = midi.read_parts(midi.open_song(data))
    return Sheet(parts, score, [f"mma groove {name}" for name in sorted(set(grooves))])


def _existing(rng: np.random.Generator, plan: SongPlan, palette: Palette) -> Sheet:
    """Return an excerpt of an existing song; songs in which a stem hardly plays are passed over."""
    for _ in range(5):
        sheet = _excerpt(rng, plan, palette)
        if _scarcest(sheet.parts, plan.seconds, 0.0) >= plan.seconds / 4:
            break
    return sheet


def _excerpt(rng: np.random.Generator, plan: SongPlan, palette: Palette) -> Sheet:
    """Return an excerpt of a random song, transposed, up to 14 % slower or faster."""
    title, data = _pick(rng, palette)
    file = midi.open_song(data)
    tempo = midi.first_tempo(file) * rng.uniform(0.88, 1.14)
    parts = midi.read_parts(file, tempo)
    while tempo < 70:  # count slow songs in double time
        tempo *= 2
    last = max(time for part in parts for time, _ in part.events)
    starts = rng.uniform(0, max(0.0, last - plan.seconds), size=6)
    start = max(starts - starts % (240 / tempo), key=partial(_scarcest, parts, plan.seconds))
    parts = midi.excerpt(parts, start, start + plan.seconds, int(rng.integers(-4, 5)))
    return Sheet(parts, midi.estimate_score(parts, tempo, plan.seconds), [title])


def _scarcest(parts: list[midi.Part], seconds: float, start: float) -> int:
    """Count, for the stem that plays least, the seconds of an excerpt in which it begins a note."""
    busy: dict[str, set[int]] = {part.stem: set() for part in parts}
    for part in parts:
        busy[part.stem].update(int(time) for time in part.starts if start <= time < start + seconds)
    return min(len(found) for found in busy.values())


def _pick(rng: np.random.Generator, palette: Palette) -> tuple[str, bytes]:
    """Return a song's name and its MIDI file."""
    if palette.held_out:
        paths = sorted(sources.OPENMSX.glob("*.mid"))
        path = paths[rng.integers(len(paths))]
        return f"OpenMSX {path.name}", path.read_bytes()
    songs = [
        (f"Freedoom {path.name} {name}", data)
        for path in sources.FREEDOOM
        for name, data in sorted(midi.archive_songs(path).items())
    ]
    return songs[rng.integers(len(songs))]


def _lead(rng: np.random.Generator, score: Score) -> midi.Part:
    """Draw a melody for a solo instrument, in some of the sections."""
    program = int(rng.choice(_VOICE_LIKE if rng.random() < 0.25 else _LEADS))
    seed, centre = rng.integers(2**32), rng.uniform(62, 80)
    bars = active_bars(rng, score, rng.uniform(0.3, 0.9))
    tunes = [
        melody(np.random.default_rng(seed), score, bar * score.bar, (bar + 2) * score.bar, centre)
        for bar in bars[::2]
    ]
    return midi.Part("other", program, midi.note_events(np.concatenate(tunes)))


def _drop_outs(rng: np.random.Generator, score: Score, stems: Stems) -> Stems:
    """In some songs, let stems rest for a section now and then."""
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
