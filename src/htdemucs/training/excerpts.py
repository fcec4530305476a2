"""Draws the excerpt of a recording that each source of each example is cut from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from htdemucs.training.randomness import generator


@dataclass(frozen=True)
class Excerpt:
    """A place to read from.

    Attributes:
        recording: index of the recording.
        start: position of the first sample.
        origin: index of the draw; sources of one draw belong together.
    """

    recording: int
    start: int
    origin: int


class ExcerptPlan:
    """Draws excerpts at random, from longer recordings more often.

    Args:
        lengths: samples in each recording.
        weights: how often each recording is drawn, relative to its length.
        length: samples in an excerpt; shorter recordings are read from their start.
        remix: probability that a group's sources are mixed with each other.
        remix_group: examples in a group.
        seed: seed of the run.
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
        """Return the excerpt that `source` of `example` in the batch of `step` is cut from.

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
        index = int(np.searchsorted(self._cumulative, draw.random(), side="right"))
        index = min(index, len(self._lengths) - 1)  # where rounding leaves the last sum below 1
        room = max(0, self._lengths[index] - self._length)
        return Excerpt(index, int(draw.integers(0, room + 1)), origin)
