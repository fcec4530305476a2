"""Choose the segment and the timing of a live separation from the network's measured speed."""

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

MAX_SEGMENT = 7.8  # seconds; longer segments, which some models have, take too long for live use
SHARES = (1.0, 0.5, 0.25)  # of the model's own segment, that are measured
CROSSFADE = 0.03  # seconds
# Pairs of the share of a hop in which the network runs, and the compute time as a multiple of the
# network's time. The first pair leaves time for other programs; the second is the tightest.
LOADS = ((0.6, 1.6), (0.75, 1.25))
MIN_LOOK_AHEAD, MAX_LOOK_AHEAD = 0.02, 1.0  # seconds; the range that was measured
MAX_RUNS, MAX_SECONDS = 7, 2.0  # of the network for each segment, when it is measured
DELAY_PRICE = 1.0  # dB that a second of delay has to gain
# dB of nsdr below the best, by share of the segment and look-ahead (seconds), of `mini`, from
# benchmarks/results/live.md.
LOSSES = {
    1.0: {0.02: 0.23, 0.05: 0.23, 0.1: 0.23, 0.25: 0.19, 0.5: 0.13, 1.0: 0.10},
    0.5: {0.02: 0.18, 0.05: 0.17, 0.1: 0.16, 0.25: 0.13, 0.5: 0.06, 1.0: 0.03},
    0.25: {0.02: 0.46, 0.05: 0.46, 0.1: 0.44, 0.25: 0.44, 0.5: 0.42},
}


@dataclass(frozen=True)
class LiveOption:
    """A way to separate live on this machine.

    Attributes:
        share: of the model's own segment that is the network's input.
        segment: its seconds.
        inference_time: seconds that the network takes for a segment.
        timing: the parts of the delay.
    """

    share: float
    segment: float
    inference_time: float
    timing: Timing

    @property
    def load(self) -> float:
        """The share of the time in which the network runs."""
        return self.inference_time / self.timing.hop

    @property
    def loss(self) -> float:
        """The loss in dB against the best separation, interpolated from `LOSSES`."""
        losses = LOSSES[self.share]
        look_ahead = min(self.timing.look_ahead, max(losses))
        for (low, low_loss), (high, high_loss) in pairwise(losses.items()):
            if look_ahead <= high:
                fraction = math.log(look_ahead / low) / math.log(high / low)
                return low_loss + fraction * (high_loss - low_loss)
        return losses[max(losses)]


def tuned_separator(
    model: Model, precision: str, latency: float | None
) -> tuple[LiveSeparator, list[LiveOption]]:
    """Measure this machine; return the separator of the best option, and all options."""
    separators = candidate_separators(model, precision)
    options = rank_options(
        {
            share: (separator.segment_length / separator.sample_rate, _inference_time(separator))
            for share, separator in separators.items()
        },
        latency,
    )
    return LiveSeparator(separators[options[0].share], options[0].timing), options


def candidate_separators(model: Model, precision: str = "auto") -> dict[float, Separator]:
    """Return separators whose segments are shares of the model's own, by share."""
    whole = min(float(model.max_segment or model.segment), MAX_SEGMENT)
    return {
        share: Separator(model, segment=share * whole, precision=precision, shifts=0)
        for share in SHARES
    }


def _inference_time(separator: Separator) -> float:
    """Return the second longest time of several runs, since another program may slow one down."""
    window = torch.zeros(separator.audio_channels, separator.window_length).uniform_(-0.1, 0.1)
    separator.run_network(window)  # the first run is slower
    times: list[float] = []
    while len(times) < MAX_RUNS and sum(times) < MAX_SECONDS:
        started = perf_counter()
        separator.run_network(window)
        times.append(perf_counter() - started)
    return sorted(times)[-2:][0]


def rank_options(
    measured: Mapping[float, tuple[float, float]], latency: float | None
) -> list[LiveOption]:
    """Return the best option of each segment that has one, best first.

    Args:
        measured: by share of the model's segment, its seconds and the network's time for it.
        latency: seconds of delay; None weighs the delay against the loss of quality.

    Raises:
        SeparationError: no segment makes the delay short enough.
    """
    for load in LOADS:
        options = [
            option
            for share, (segment, seconds) in measured.items()
            for option in _options(share, segment, seconds, latency, load)
        ]
        if options:
            break
    if not options and latency is not None:
        fastest = min(sum(_hop_and_compute(s, LOADS[-1])) for _, s in measured.values())
        raise SeparationError(
            f"a latency of {latency:g} s is too short for this model on this machine, which can "
            f"do {fastest + CROSSFADE + MIN_LOOK_AHEAD:.2f} s; a smaller model can do less"
        )
    if not options:
        raise SeparationError("this machine is too slow for this model; take a smaller one")
    price = 0.0 if latency is not None else DELAY_PRICE
    best: dict[float, LiveOption] = {}
    for option in sorted(options, key=lambda option: option.loss + price * option.timing.delay):
        best.setdefault(option.share, option)
    return list(best.values())


def _hop_and_compute(seconds: float, load: tuple[float, float]) -> tuple[float, float]:
    """Return the hop and the compute time for a network that takes so many seconds."""
    share, reserve = load
    return max(seconds / share, CROSSFADE), reserve * seconds


def _options(
    share: float, segment: float, seconds: float, latency: float | None, load: tuple[float, float]
) -> Iterator[LiveOption]:
    """Yield the options of a segment: with each measured look-ahead, or for the latency."""
    hop, compute = _hop_and_compute(seconds, load)
    if latency is None:
        timings = [Timing(hop, look_ahead, CROSSFADE, compute) for look_ahead in LOSSES[share]]
    else:
        timings = _timings_for(latency, segment, hop, compute)
    for timing in timings:
        if timing.hop + timing.look_ahead + timing.crossfade <= segment + 1e-9:
            yield LiveOption(share, segment, seconds, timing)


def _timings_for(latency: float, segment: float, hop: float, compute: float) -> list[Timing]:
    """Return the timing with a latency; an empty list if the latency is too short.

    The time that remains is divided equally among look-ahead, hop and compute time: much look-ahead
    gains little, and longer hops and compute times leave more time for other programs.
    """
    remaining = latency - hop - compute - CROSSFADE - MIN_LOOK_AHEAD
    if remaining < 0:
        return []
    look_ahead = min(MIN_LOOK_AHEAD + remaining / 3, MAX_LOOK_AHEAD)
    hop += max(0.0, min(remaining / 3, segment - CROSSFADE - look_ahead - hop))
    return [Timing(hop, look_ahead, CROSSFADE, latency - hop - CROSSFADE - look_ahead)]
