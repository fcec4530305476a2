"""A planned song becomes four stems."""

from dataclasses import dataclass
from pathlib import Path

from recipes.mini import band, effects, mixing, players, produced, vocals, voices
from recipes.mini.plan import SongPlan
from recipes.mini.score import compose


@dataclass(frozen=True)
class Track:
    """Four stems as int16 (L, 2), and what each was made with."""

    stems: mixing.Stems
    made_with: dict[str, list[str]]


def make(plan: SongPlan, bank: Path) -> Track:
    """Render, colour and mix one song; `bank` is the folder of the phrase bank."""
    palette = players.HELD_OUT if plan.held_out else players.TRAINING
    score = compose(plan.generator("score"), plan.tempo, plan.seconds, plan.held_out)
    if plan.kind == "electronic":
        genre = "electronic"
        stems, made_with = produced.song(plan, score, palette)
    else:
        genre = "pop"
        stems, made_with, score = band.song(plan, score, palette)
    role = voices.HELD_OUT if plan.held_out else voices.TRAINING
    rng = plan.generator("vocals")
    sung, made_with["vocals"] = vocals.vocal_stem(rng, score, bank, role, genre)
    stems["vocals"] = effects.vocals(rng, sung, score.beat, genre)
    mixed = mixing.master(plan.generator("mix"), stems)
    return Track(mixing.quantise(mixed), made_with)
