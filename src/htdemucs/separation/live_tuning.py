"""How to divide the delay of a live separation on this machine: measured, then chosen."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter

import torch

from htdemucs.errors import SeparationError
from htdemucs.model import Model
from htdemucs.separation.live import LiveSeparator, Timing
from htdemucs.separation.separator import Separator

LONGEST = 7.8  # seconds of a segment: some models have longer ones, too long to be live
SHARES = (1.0, 0.5, 0.25)  # of the model's own segment, that are looked at
CROSSFADE = 0.03  # seconds
# The part of a hop in which the network runs, the rest being for everything else; and how many
# times what it takes it is given. First what bears other programs, then what just works.
PACES = ((0.6, 1.6), (0.75, 1.25))
LEAST, MOST = 0.02, 1.0  # seconds of look-ahead that were measured, and are worth something
RUNS, PATIENCE = 7, 2.0  # of the network for each segment, and about so many seconds
PRICE = 1.0  # dB that a second of delay has to be worth
# dB of nsdr below the best, by share of the segment and look-ahead (seconds), of `mini`: as
# benchmarks/results/live.md has them.
LOSSES = {
    1.0: {0.02: 0.23, 0.05: 0.23, 0.1: 0.23, 0.25: 0.19, 0.5: 0.13, 1.0: 0.10},
    0.5: {0.02: 0.18, 0.05: 0.17, 0.1: 0.16, 0.25: 0.13, 0.5: 0.06, 1.0: 0.03},
    0.25: {0.02: 0.46, 0.05: 0.46, 0.1: 0.44, 0.25: 0.44, 0.5: 0.42},
}


@dataclass(frozen=True)
class Choice:
    """A way to separate live on this machine.

    Attributes:
        share: of the model's own segment that the network hears.
        segment: its seconds.
        took: seconds that the network took for them.
        timing: what the delay is made of.
    """

    share: float
    segment: float
    took: float
    timing: Timing

    @property
    def load(self) -> float:
        """The part of the time in which the network runs."""
        return self.took / self.timing.hop


def suited(
    model: Model, precision: str, latency: float | None
) -> tuple[LiveSeparator, list[Choice]]:
    """Measure this machine; return the best separation of `choices`, and all of them."""
    separators = candidates(model, precision)
    found = choices(
        {
            share: (one.segment_length / one.sample_rate, _seconds(one))
            for share, one in separators.items()
        },
        latency,
    )
    return LiveSeparator(separators[found[0].share], found[0].timing), found


def candidates(model: Model, precision: str = "auto") -> dict[float, Separator]:
    """Return separators whose segments are shares of the model's own, by share."""
    whole = min(float(model.max_segment or model.segment), LONGEST)
    return {s: Separator(model, segment=s * whole, precision=precision) for s in SHARES}


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


def choices(took: Mapping[float, tuple[float, float]], latency: float | None) -> list[Choice]:
    """Return a way for each segment that has one, the best first.

    Args:
        took: by share of the model's segment, its seconds and those that the network takes.
        latency: seconds that the delay may have; None: what is worth its time.

    Raises:
        SeparationError: no segment makes the delay short enough.
    """
    for pace in PACES:
        found = [
            way
            for share, (segment, seconds) in took.items()
            for way in _ways(share, segment, seconds, latency, pace)
        ]
        if found:
            break
    if not found and latency is not None:
        least = min(sum(_given(s, PACES[-1])) for _, s in took.values()) + CROSSFADE + LEAST
        raise SeparationError(
            f"a latency of {latency:g} s is too short for this model on this machine, which can "
            f"do {least:.2f} s; a smaller model can do less"
        )
    if not found:
        raise SeparationError("this machine is too slow for this model; take a smaller one")
    price = 0.0 if latency is not None else PRICE
    best: dict[float, Choice] = {}
    for way in sorted(found, key=lambda way: loss(way) + price * way.timing.delay):
        best.setdefault(way.share, way)
    return list(best.values())


def _given(seconds: float, pace: tuple[float, float]) -> tuple[float, float]:
    """Return the hop and the time to compute for a network that takes so long."""
    load, reserve = pace
    return max(seconds / load, CROSSFADE), reserve * seconds


def _ways(
    share: float, segment: float, seconds: float, latency: float | None, pace: tuple[float, float]
) -> Iterator[Choice]:
    """Yield what can be done with a segment: with any look-ahead, or within the latency."""
    hop, compute = _given(seconds, pace)
    if latency is None:
        timings = [Timing(hop, ahead, CROSSFADE, compute) for ahead in LOSSES[share]]
    else:
        timings = _within(latency, segment, hop, compute)
    for timing in timings:
        if timing.hop + timing.look_ahead + timing.crossfade <= segment + 1e-9:
            yield Choice(share, segment, seconds, timing)


def _within(latency: float, segment: float, hop: float, compute: float) -> list[Timing]:
    """Return the timing of a latency, if it is long enough.

    Of what it leaves, a third each goes to look-ahead, hop and time to compute: more look-ahead is
    worth little, and the others bear more work beside it.
    """
    left = latency - hop - compute - CROSSFADE - LEAST
    if left < 0:
        return []
    ahead = min(LEAST + left / 3, MOST)
    hop += max(0.0, min(left / 3, segment - CROSSFADE - ahead - hop))
    return [Timing(hop, ahead, CROSSFADE, latency - hop - CROSSFADE - ahead)]


def loss(choice: Choice) -> float:
    """Return about how many dB are lost."""
    line = LOSSES[choice.share]
    ahead = min(choice.timing.look_ahead, max(line))
    for (low, before), (high, after) in pairwise(line.items()):
        if ahead <= high:
            part = math.log(ahead / low) / math.log(high / low)
            return before + part * (after - before)
    return line[max(line)]
