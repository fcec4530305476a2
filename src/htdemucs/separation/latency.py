"""How to divide the delay of a live separation on this machine: measured, then chosen."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter

import torch

from htdemucs.errors import SeparationError
from htdemucs.separation.live import Timing
from htdemucs.separation.separator import Separator

SEGMENTS = (7.8, 4.0, 2.0, 1.0)  # seconds; those that the model has no place for are left out
CROSSFADE = 0.03  # seconds
LOAD = 0.75  # the part of a hop in which the network runs: the rest is for everything else
RESERVE = 1.25  # times what the network takes: what it is given
LEAST, MOST = 0.05, 1.0  # seconds of look-ahead: less is too bad, more is worth nothing
RUNS, PATIENCE = 7, 2.0  # of the network for each segment, and about so many seconds
PRICE = 1.0  # dB that a second of delay has to be worth
# dB of nsdr below the best, by segment and look-ahead (seconds), measured: docs/live.md.
LOSSES = {
    4.0: {0.05: 0.23, 0.1: 0.23, 0.25: 0.19, 0.5: 0.13, 1.0: 0.10},
    2.0: {0.05: 0.17, 0.1: 0.16, 0.25: 0.13, 0.5: 0.06, 1.0: 0.03},
    1.0: {0.05: 0.46, 0.1: 0.44, 0.25: 0.45, 0.5: 0.42},
}


@dataclass(frozen=True)
class Choice:
    """A way to separate live on this machine.

    Attributes:
        segment: seconds that the network hears.
        took: seconds that it took for them.
        timing: what the delay is made of.
    """

    segment: float
    took: float
    timing: Timing

    @property
    def load(self) -> float:
        """The part of the time in which the network runs."""
        return self.took / self.timing.hop


def measured(separators: Mapping[float, Separator]) -> dict[float, float]:
    """Return the seconds that a run of the network takes, by those of the segment."""
    return {segment: _seconds(separator) for segment, separator in separators.items()}


def _seconds(separator: Separator) -> float:
    """Return the longest time but one: the first run is left out, and one may be disturbed."""
    window = torch.zeros(separator.audio_channels, separator.window_length).uniform_(-0.1, 0.1)
    separator.answer(window)
    times: list[float] = []
    while len(times) < RUNS and sum(times) < PATIENCE:
        started = perf_counter()
        separator.answer(window)
        times.append(perf_counter() - started)
    return sorted(times)[-2:][0]


def choices(took: Mapping[float, float], latency: float | None) -> list[Choice]:
    """Return a way for each segment, the best one first.

    Args:
        took: seconds of the network by those of the segment.
        latency: seconds that the delay may have; None: what is worth its time.

    Raises:
        SeparationError: no segment makes the delay short enough.
    """
    found = [
        choice
        for segment, seconds in took.items()
        if (choice := _choice(segment, seconds, latency)) is not None
    ]
    if not found:
        least = min(hop + compute for hop, compute in map(_paces, took.values()))
        raise SeparationError(
            f"`latency` of {latency:g} s is too short for this model on this machine: "
            f"{least + CROSSFADE + LEAST:.2f} s is possible; take that, or a smaller model"
        )
    price = 0.0 if latency is not None else PRICE
    return sorted(found, key=lambda c: loss(c) + price * c.timing.delay)


def _paces(seconds: float) -> tuple[float, float]:
    """Return the hop and the time to compute for a network that takes so long."""
    return max(seconds / LOAD, CROSSFADE), RESERVE * seconds


def _choice(segment: float, seconds: float, latency: float | None) -> Choice | None:
    hop, compute = _paces(seconds)
    longest = min(MOST, segment - hop - CROSSFADE)
    if longest < LEAST:
        return None
    if latency is None:
        ways = [
            Choice(segment, seconds, Timing(hop, min(ahead, longest), CROSSFADE, compute))
            for ahead in LOSSES[1.0]
        ]
        return min(ways, key=lambda way: loss(way) + PRICE * way.timing.delay)
    ahead = latency - hop - CROSSFADE - compute
    if ahead < LEAST:
        return None
    spare = max(0.0, ahead - longest)
    return Choice(segment, seconds, Timing(hop, ahead - spare, CROSSFADE, compute + spare))


def loss(choice: Choice) -> float:
    """Return about how many dB are lost, from the nearest segment that was measured."""
    line = LOSSES[min(LOSSES, key=lambda segment: abs(math.log(segment / choice.segment)))]
    ahead = min(max(choice.timing.look_ahead, min(line)), max(line))
    for (low, before), (high, after) in pairwise(line.items()):
        if ahead <= high:
            part = math.log(ahead / low) / math.log(high / low)
            return before + part * (after - before)
    return line[max(line)]
