"""Which excerpt of which track each source of each example is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from htdemucs.training.randomness import generator


@dataclass(frozen=True)
class Excerpt:
    """Where to read.

    Attributes:
        track: its number.
        start: position of the first sample.
        origin: number of the draw that this is; the sources of one draw belong together.
    """

    track: int
    start: int
    origin: int


class ExcerptPlan:
    """Draws excerpts at random, longer tracks more often.

    Args:
        lengths: samples in each track.
        weights: how often each track is drawn, relative to its length.
        length: samples in an excerpt; shorter tracks are read from their start.
        remix: probability that a group's sources are mixed with each other.
        remix_group: examples in a group.
        seed: of the run.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        weights: Sequence[float],
        *,
        length: int,
        remix: float,
        remix_group: int,
        seed: int,
    ) -> None:
        share = np.asarray(lengths, dtype=np.float64) * np.asarray(weights, dtype=np.float64)
        self._cumulative = np.cumsum(share) / share.sum()
        self._lengths = lengths
        self._length = length
        self._remix, self._group = remix, remix_group
        self._seed = seed

    def excerpt(self, step: int, example: int, source: int) -> Excerpt:
        """The excerpt that `source` of `example` in the batch of `step` is cut from.

        In a mixed group, the examples' excerpts of one source are a permutation of each other, so
        that remixing reads nothing twice and changes no statistics.
        """
        group, place = divmod(example, self._group)
        if generator(self._seed, "remix", step, group).random() >= self._remix:
            return self._drawn(step, example)
        order = generator(self._seed, "order", step, group, source).permutation(self._group)
        return self._drawn(step, group * self._group + int(order[place]))

    def _drawn(self, step: int, origin: int) -> Excerpt:
        draw = generator(self._seed, "excerpt", step, origin)
        track = int(np.searchsorted(self._cumulative, draw.random(), side="right"))
        track = min(track, len(self._lengths) - 1)  # where rounding leaves the last sum below 1
        room = max(0, self._lengths[track] - self._length)
        return Excerpt(track, int(draw.integers(0, room + 1)), origin)
