"""`demucs.apply`: a model applied to a waveform."""

import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
import tqdm
from torch import Tensor

from htdemucs.compat.engine import Engine
from htdemucs.compat.networks import AnyModel, BagOfModels, Published, bag, published
from htdemucs.errors import SeparationError
from htdemucs.model import Model
from htdemucs.model.config import Seconds
from htdemucs.separation import Normalization
from htdemucs.separation.chunking import Segment
from htdemucs.separation.separator import MAX_SHIFT

__all__ = ["BagOfModels", "apply_model"]

Callback = Callable[[dict[str, Any]], Any]


def apply_model(
    model: AnyModel | Model,
    mix: Tensor,
    shifts: int = 1,
    split: bool = True,
    overlap: float = 0.25,
    transition_power: float = 1.0,
    progress: bool = False,
    device: str | torch.device | None = None,
    num_workers: int = 0,
    segment: float | None = None,
    pool: Any = None,  # noqa: ARG001  the engine has threads of its own
    lock: Any = None,  # noqa: ARG001  too
    callback: Callback | None = None,
    callback_arg: dict[str, Any] | None = None,
) -> Tensor:
    """(B, C, L) -> (B, S, C, L) on the mixture's device, in float32

    Lead-ins are drawn from Python's global generator, one for each network and shift.

    Args:
        model: of `get_model`, or a model of this package.
        mix: at the level that the model expects; nothing is normalised.
        shifts: average this many runs, each with a random lead-in of up to half a second.
        split: False refuses mixtures that are longer than a transformer's segment.
        overlap: shared fraction of neighbouring segments.
        transition_power: only 1.
        progress: show a bar for each network and shift.
        device: where to compute; by default where the mixture is.
        num_workers: segments in a batch, on a CPU.
        segment: seconds; by default the model's own.
        pool: not used.
        lock: not used.
        callback: called before and after each segment, with a dictionary: `callback_arg`, and
            `model_idx_in_bag`, `shift_idx`, `segment_offset` (samples), `state` ("start" or "end")
            and `models`. An exception, such as KeyboardInterrupt, ends the work.
        callback_arg: more items for the dictionary.

    Raises:
        SeparationError: the mixture or an option is impossible.
    """
    model = published(model)
    _, channels, length = mix.shape
    if channels != model.audio_channels or not length:
        raise SeparationError(f"a mixture must be (B, {model.audio_channels}, L)")
    if transition_power != 1:
        raise SeparationError("transition_power must be 1: segments fade into each other evenly")
    networks, whole = bag(model)
    items = {**(callback_arg or {}), "models": len(networks)}
    settings: dict[str, Any] = {"overlap": overlap, "split": split, "shifts": bool(shifts)}
    settings |= {"batch_size": num_workers or None, "device": device or mix.device}
    answers = (
        _Passes(network, _seconds(network, segment, split, length), settings, progress).run(
            mix, shifts, _reporter(callback, items | {"model_idx_in_bag": i})
        )
        for i, network in enumerate(networks)
    )
    whole.weights = whole.weights.to(mix.device)
    return whole.weighted_mean(answers)


def _seconds(network: Published, segment: float | None, split: bool, length: int) -> Seconds | None:
    """Return the seconds of a segment: of the whole mixture where a network takes it at once."""
    if split or network.padded_length:
        return segment
    return Fraction(length, network.samplerate) + Fraction(MAX_SHIFT)


def _reporter(callback: Callback | None, items: dict[str, Any]) -> Callable[..., None]:
    def report(**more: Any) -> None:
        if callback is not None:
            callback(items | more)

    return report


class _Passes:
    """One network's runs over a mixture, one a shift."""

    def __init__(
        self,
        network: Published,
        segment: Seconds | None,
        settings: dict[str, Any],
        progress: bool,
    ) -> None:
        self._engine = Engine(
            network.network,
            network.padded_length,
            self._tell,
            segment=segment or network.segment,
            **settings,
        )
        self._progress = progress

    def run(self, mix: Tensor, shifts: int, report: Callable[..., None]) -> Tensor:
        """(B, C, L) -> (B, S, C, L), the mean of the shifts"""
        self._report, total = report, torch.zeros(())
        longest = int(MAX_SHIFT * self._engine.sample_rate)
        for self._shift in range(shifts or 1):
            if shifts:
                self._engine.lead_in = random.randint(0, longest)
            self._start = (self._engine.lead_in or 0) - longest if shifts else 0
            total = total + torch.stack([self._separated(item) for item in mix])
        return total / (shifts or 1)

    def _separated(self, mix: Tensor) -> Tensor:
        """(C, L) -> (S, C, L)"""
        length, engine = mix.shape[-1], self._engine
        offsets = range(0, length - self._start, engine.stride)
        seconds = round(engine.stride / engine.sample_rate, 2)
        self._bar = iter(offsets)
        if self._progress and engine.split:
            self._bar = iter(tqdm.tqdm(offsets, unit_scale=seconds, ncols=120, unit="seconds"))
        blocks = mix.float().split(engine.segment_length, dim=-1)
        level = Normalization(0.0, 1.0, length)
        pieces = [torch.stack(list(stems.values())) for stems in engine.stream(blocks, level)]
        next(self._bar, None)  # the bar's end
        return torch.cat(pieces, dim=-1).to(mix.device)

    def _tell(self, segment: Segment, state: str) -> None:
        if state == "start":
            next(self._bar)
        offset = segment.start - self._start
        self._report(shift_idx=self._shift, segment_offset=offset, state=state)
