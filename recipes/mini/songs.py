"""A planned song becomes four stems."""

from dataclasses import dataclass
from pathlib import Path

from recipes.mini.composing.score import compose
from recipes.mini.mixing import effects, mixdown
from recipes.mini.plan import SongPlan
from recipes.mini.playing import band, players, produced
from recipes.mini.singing import vocals, voices


@dataclass(frozen=True)
class Track:
    """Four stems as int16 (L, 2), and what each was made with."""

    stems: mixdown.Stems
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
    mixed = mixdown.master(plan.generator("mix"), stems)
    return Track(mixdown.quantise(mixed), made_with)
