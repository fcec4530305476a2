"""`demucs.apply`: apply a model to a waveform."""

import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import torch
import tqdm
from torch import Tensor
from torch.nn import functional as F

from htdemucs.compat.demucs.utils import DummyPoolExecutor, center_trim
from htdemucs.compat.engine import Engine
from htdemucs.compat.networks import (
    BagOfModels,
    Demucs,
    HDemucs,
    HTDemucs,
    PublishedModel,
    PublishedNetwork,
    networks_and_bag,
    to_published,
)
from htdemucs.errors import SeparationError
from htdemucs.model import Model as OwnModel
from htdemucs.model.config import Seconds
from htdemucs.separation import Normalization
from htdemucs.separation.chunking import Segment
from htdemucs.separation.separator import MAX_SHIFT

__all__ = [
    "BagOfModels",
    "Demucs",
    "DummyPoolExecutor",
    "HDemucs",
    "HTDemucs",
    "Model",
    "TensorChunk",
    "apply_model",
    "center_trim",
    "tensor_chunk",
]

Model = Demucs | HDemucs | HTDemucs
Callback = Callable[[dict[str, Any]], Any]


class TensorChunk:
    """A part of a tensor along its last dimension, which remembers what is around it.

    Args:
        tensor: a tensor (..., L), or a part of one.
        offset: where the part begins, in samples.
        length: of the part; by default, and at most, until the end.

    Attributes:
        tensor, offset, length: the whole tensor, and the part of it.
        device: of the tensor.
    """

    def __init__(
        self, tensor: "Tensor | TensorChunk", offset: int = 0, length: int | None = None
    ) -> None:
        available = tensor.shape[-1] - offset
        if not offset >= 0 or available <= 0:
            raise ValueError(f"no part of {tensor.shape[-1]} samples begins at {offset}")
        inside = isinstance(tensor, TensorChunk)
        self.tensor: Tensor = tensor.tensor if inside else tensor  # type: ignore
        self.offset: int = offset + (tensor.offset if inside else 0)  # type: ignore
        self.length: int = available if length is None else min(length, available)
        self.device: torch.device = tensor.device

    @property
    def shape(self) -> list[int]:
        """Sizes of the part."""
        return [*self.tensor.shape[:-1], self.length]

    def padded(self, target_length: int) -> Tensor:
        """(..., target_length): the part in the middle of what is around it, and then zeros"""
        if target_length < self.length:
            raise ValueError(f"{self.length} samples cannot be padded to {target_length}")
        start = self.offset - (target_length - self.length) // 2
        end, total = start + target_length, self.tensor.shape[-1]
        inside = self.tensor[..., max(0, start) : min(end, total)]
        return F.pad(inside, (max(0, -start), max(0, end - total)))


def tensor_chunk(tensor_or_chunk: Tensor | TensorChunk) -> TensorChunk:
    """Return a part as it is, and a tensor as a part that is all of it."""
    if isinstance(tensor_or_chunk, TensorChunk):
        return tensor_or_chunk
    return TensorChunk(tensor_or_chunk)


def apply_model(
    model: PublishedModel | OwnModel,
    mix: Tensor | TensorChunk,
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
        mix: normalised as the model expects; nothing is normalised here. What is around a
            `TensorChunk` is not used.
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
    if isinstance(mix, TensorChunk):
        mix = mix.padded(mix.length)
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
