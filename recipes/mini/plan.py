"""Which songs a data set holds: every decision that is made before anything sounds.

Plans depend on (seed, split, index) alone, so any song can be made on its own, in any order, and
every prefix of a split is a fair sample of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

SPLITS = ("train", "valid", "heldout")
VALID_TRACKS = 12
HELD_OUT_TRACKS = 16
# Kinds of song in turn: 45 % electronic, 35 % chord charts, 20 % existing MIDI songs.
_TRAINING_TURN = ("electronic", "chart", "electronic", "midi", "chart") * 2 + (
    "electronic", "chart", "electronic", "midi", "chart", "electronic", "chart", "electronic",
    "electronic", "midi",
)  # fmt: skip
_HELD_OUT_TURN = ("midi", "chart", "electronic", "midi", "chart", "electronic", "midi", "chart")


@dataclass(frozen=True)
class SongPlan:
    """One song to make."""

    split: str
    index: int
    seed: int  # of the whole data set
    kind: str  # "electronic", "chart" or "midi"
    tempo: float  # beats a minute; existing songs bring their own
    seconds: float

    @property
    def name(self) -> str:
        """The track's folder."""
        return f"{self.index:04d}-{self.kind}"

    @property
    def held_out(self) -> bool:
        """Whether only inputs that training never uses may be used."""
        return self.split == "heldout"

    def generator(self, purpose: str) -> np.random.Generator:
        """Return random numbers for one purpose, independent of those for every other one."""
        letters = int.from_bytes(purpose.encode()[:8], "little")
        return np.random.default_rng([self.seed, SPLITS.index(self.split), self.index, letters])


def song(seed: int, split: str, index: int) -> SongPlan:
    """Return the plan of one song."""
    turn = _HELD_OUT_TURN if split == "heldout" else _TRAINING_TURN
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    lengths = {"train": (60, 120), "valid": (28, 36), "heldout": (38, 44)}[split]
    tempo = float(np.clip(rng.normal(116, 24), 70, 175))
    return SongPlan(
        split, index, seed, turn[index % len(turn)], tempo, float(rng.uniform(*lengths))
    )


def songs(seed: int, split: str, hours: float) -> Iterator[SongPlan]:
    """Yield the plans of a split; `hours` is the training set's length."""
    if split != "train":
        count = VALID_TRACKS if split == "valid" else HELD_OUT_TRACKS
        yield from (song(seed, split, index) for index in range(count))
        return
    index, seconds = 0, 0.0
    while seconds < hours * 3600:
        plan = song(seed, split, index)
        seconds += plan.seconds
        index += 1
        yield plan
