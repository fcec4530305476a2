"""`demucs.apply`: apply a model to a waveform."""

import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import torch
import tqdm
from torch import Tensor

from htdemucs.compat.engine import Engine
from htdemucs.compat.networks import (
    BagOfModels,
    PublishedModel,
    PublishedNetwork,
    networks_and_bag,
    to_published,
)
from htdemucs.errors import SeparationError
from htdemucs.model import Model
from htdemucs.model.config import Seconds
from htdemucs.separation import Normalization
from htdemucs.separation.chunking import Segment
from htdemucs.separation.separator import MAX_SHIFT

__all__ = ["BagOfModels", "apply_model"]

Callback = Callable[[dict[str, Any]], Any]


def apply_model(
    model: PublishedModel | Model,
    mix: Tensor,
    shifts: int = 1,
    split: bool = True,
    overlap: float = 0.25,
    transition_power: float = 1.0,
    progress: bool = False,
    device: str | torch.device | None = None,
    num_workers: int = 0,
    segment: float | None = None,
    pool: Any = None,  # noqa: ARG001  the engine has its own threads
    lock: Any = None,  # noqa: ARG001
    callback: Callback | None = None,
    callback_arg: dict[str, Any] | None = None,
) -> Tensor:
    """(B, C, L) -> (B, S, C, L) on the mixture's device, in float32

    The offset of each network and shift is drawn from Python's global generator.

    Args:
        model: a model from `get_model`, or a model of this package.
        mix: normalised as the model expects; nothing is normalised here.
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
    model = to_published(model)
    _, channels, length = mix.shape
    if channels != model.audio_channels or not length:
        raise SeparationError(f"a mixture must be (B, {model.audio_channels}, L)")
    if transition_power != 1:
        raise SeparationError("transition_power must be 1: segments fade into each other evenly")
    networks, bag = networks_and_bag(model)
    settings: dict[str, Any] = {"overlap": overlap, "split": split, "shifts": bool(shifts)}
    settings |= {"batch_size": num_workers or None, "device": device or mix.device}

    def separate(index: int, network: PublishedNetwork) -> Tensor:
        items = {**(callback_arg or {}), "models": len(networks), "model_idx_in_bag": index}

        def report(**more: Any) -> None:
            if callback is not None:
                callback(items | more)

        seconds: Seconds | None = segment
        if not split and not network.padded_length:  # the whole mixture is one segment
            seconds = Fraction(length, network.samplerate) + Fraction(MAX_SHIFT)
        options = {"segment": seconds or network.segment, **settings}
        return _separate_with_network(network, mix, shifts, options, progress, report)

    bag.weights = bag.weights.to(mix.device)
    return bag.weighted_mean(separate(i, network) for i, network in enumerate(networks))


def _separate_with_network(
    network: PublishedNetwork,
    mix: Tensor,
    shifts: int,
    settings: dict[str, Any],
    progress: bool,
    report: Callable[..., None],
) -> Tensor:
    """(B, C, L) -> (B, S, C, L), the mean of the shifts"""
    shift = start = 0
    bar: Iterator[int] = iter(())

    def on_segment(segment: Segment, state: str) -> None:
        if state == "start":
            next(bar)
        report(shift_idx=shift, segment_offset=segment.start - start, state=state)

    engine = Engine(network.network, network.padded_length, on_segment, **settings)
    length, max_shift = mix.shape[-1], int(MAX_SHIFT * engine.sample_rate)
    normalization = Normalization(0.0, 1.0, length)
    total = torch.zeros(())
    for shift in range(shifts or 1):  # noqa: B007  on_segment reports it
        if shifts:
            engine.lead_in = random.randint(0, max_shift)
            start = engine.lead_in - max_shift
        outputs = []
        for waveform in mix:
            offsets = range(0, length - start, engine.stride)
            bar = iter(offsets)
            if progress and engine.split:
                seconds = round(engine.stride / engine.sample_rate, 2)
                bar = iter(tqdm.tqdm(offsets, unit_scale=seconds, ncols=120, unit="seconds"))
            blocks = waveform.float().split(engine.segment_length, dim=-1)
            pieces = [
                torch.stack(list(stems.values())) for stems in engine.stream(blocks, normalization)
            ]
            next(bar, None)  # ends the bar
            outputs.append(torch.cat(pieces, dim=-1).to(mix.device))
        total = total + torch.stack(outputs)
    return total / (shifts or 1)
