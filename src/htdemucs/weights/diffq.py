"""Turn the packed codes of a quantised checkpoint into ordinary parameters, as data.

DiffQ (arXiv 2104.09987) stores a large parameter as levels: integers of few bits between its lowest
and its highest value. The number of bits belongs to the parameter (uniform) or to each group of its
values (differentiable). Small parameters are stored unchanged. Parameters have no names; they are
in the order in which the published network's modules were created.
"""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from htdemucs.errors import CheckpointError
from htdemucs.weights.build import count_values, plain_tensor, short_repr

UNIFORM, DIFFERENTIABLE = "diffq.uniform.UniformQuantizer", "diffq.diffq.DiffQuantizer"
WORD = 64  # bits of the integers that levels are packed into
BLOCK = 32  # integers in a row
MAX_BITS = 15

# The quantisers' arguments that matter for reading, with their defaults; others are for training.
_DEFAULTS = {
    "min_size": 0.01,
    "float16": False,
    "exclude": [],
    "bits": 8.0,
    "group_size": 1,
    "min_bits": 2,
}
_RANGES = {
    "min_size": (0.0, 1e9),
    "float16": (False, True),
    "bits": (1.0, MAX_BITS),
    "group_size": (1, 1 << 20),
    "min_bits": (1, MAX_BITS),
}

# Parts of published names, in the order in which the published modules create them.
_ORDER = (
    *("encoder", "decoder", "skip_scales", "lstm", "linear", "tencoder", "tdecoder", "freq_emb"),
    *("channel_upsampler", "channel_downsampler", "channel_upsampler_t", "channel_downsampler_t"),
    *("crosstransformer", "norm_in", "norm_in_t", "layers", "layers_t", "embedding"),
    *("in_proj_weight", "in_proj_bias", "out_proj", "self_attn", "cross_attn", "linear1"),
    *("linear2", "conv", "conv_tr", "norm1", "rewrite", "norm2", "norm3", "norm_out", "dconv"),
    *("gamma_1", "gamma_2", "content", "query", "key", "query_freqs", "query_decay", "proj"),
    *("weight", "bias", "scale"),
)
_RANK = {part: rank for rank, part in enumerate(_ORDER)}
_LSTM = re.compile(r"(weight|bias)_(ih|hh)_l(\d+)(_reverse)?")


class Quantised:
    """The contents of a quantised checkpoint.

    Args:
        state: its lists `quantized`, `float16` and `others`, and its `meta`.
        quantiser: the published name of its quantiser's class.

    Raises:
        CheckpointError: it is damaged, or packed in a way that no official file is.
    """

    def __init__(self, state: dict[str, Any], quantiser: str) -> None:
        meta: Any = dict.get(state, "meta")
        settings = dict.get(meta, "init_kwargs") if isinstance(meta, dict) else None
        if quantiser not in (UNIFORM, DIFFERENTIABLE) or not isinstance(settings, dict):
            raise CheckpointError(f"its quantiser {short_repr(quantiser)} is unknown or damaged")
        if dict.get(meta, "packed") is not True or dict.get(meta, "torch_pack"):
            raise CheckpointError("its codes are packed in a way that no official file uses")
        self._uniform = quantiser == UNIFORM
        self._settings = {name: dict.get(settings, name, _DEFAULTS[name]) for name in _DEFAULTS}
        for name, value in self._settings.items():
            if name == "exclude":
                possible = not value  # patterns of names, which no official file has
            else:
                low, high = _RANGES[name]
                possible = type(value) in (type(low), int) and low <= value <= high
            if not possible:
                raise CheckpointError(f"its quantiser's {name} cannot be {short_repr(value)}")
        self._codes, self._halves, self._others = (
            _as_list(dict.get(state, name)) for name in ("quantized", "float16", "others")
        )

    @property
    def capacity(self) -> int:
        """The most values that the file can hold: a level takes at least a bit."""
        packed = itertools.chain.from_iterable(map(_packed_levels, self._codes))
        small = map(plain_tensor, (*self._halves, *self._others))
        return count_values(small) + WORD * count_values(packed)

    def parameters(self, shapes: Mapping[str, torch.Size]) -> dict[str, Any]:
        """Return every parameter.

        Args:
            shapes: the shapes of the network's parameters by their published names.

        Raises:
            CheckpointError: the codes are damaged, or of another network.
        """
        needed = sum(map(math.prod, shapes.values()))
        if needed > self.capacity:
            raise CheckpointError(f"it holds fewer than the {needed} values of its network")
        largest_small = self._settings["min_size"] * 2**20 // 4  # min_size is in MB of float32
        codes = iter(self._codes)
        small = iter(self._halves if self._settings["float16"] else self._others)
        state = {}
        for name in sorted(shapes, key=published_order):
            large = math.prod(shapes[name]) > largest_small
            value = next(codes if large else small, None)
            try:
                state[name] = (
                    self._dequantised(value, shapes[name]) if large else plain_tensor(value)
                )
            except CheckpointError as error:
                raise CheckpointError(f"its {name} is damaged: {error}") from error
        if next(itertools.chain(codes, small), None) is not None:
            raise CheckpointError("it holds more parameters than its network has")
        return state

    def _dequantised(self, code: Any, shape: torch.Size) -> Tensor:
        count = math.prod(shape)
        parts = _as_list(code)
        if len(parts) != (2 if self._uniform else 3):
            raise CheckpointError("its code has too many or too few parts")
        if self._uniform:
            bits = torch.tensor(float(self._settings["bits"]))
            return _to_values(unpack(parts[0], count), parts[1], bits).view(shape)
        group_size = self._settings["group_size"]
        if count % group_size:
            raise CheckpointError(f"groups of {group_size} do not divide its {count} values")
        bits = unpack(parts[2], count // group_size) + self._settings["min_bits"]
        levels = _grouped_levels(_as_list(parts[0]), bits, group_size)
        return _to_values(levels, parts[1], bits[:, None].float()).view(shape)


def unpack(packed: Any, count: int) -> Tensor:
    """Return `count` levels, (count,), from their bits, (lines, bits, 32).

    A line holds 64 times 32 levels: bit i of word [line, b, j] is bit b of its level 32 i + j.
    Levels beyond `count` are padding.

    Raises:
        CheckpointError: the tensor has another type or shape, or another number of levels.
    """
    if type(packed) is not Tensor or packed.dtype != torch.int64 or packed.dim() != 3:
        raise CheckpointError("its codes are not packed levels")
    lines, bits, block = packed.shape
    if not packed.is_contiguous() or block != BLOCK or bits > MAX_BITS:
        raise CheckpointError("its codes are packed in a way that no official file uses")
    if lines != -(-count // (WORD * BLOCK)):
        raise CheckpointError(f"its codes are not those of {count} levels")
    levels = torch.zeros(lines, WORD // 8, 8, BLOCK, dtype=torch.int16)
    shifts = torch.arange(8, dtype=torch.uint8).view(8, 1)
    for bit in range(bits):
        octets = packed[:, bit].contiguous().view(torch.uint8).view(lines, BLOCK, WORD // 8)
        flags = (octets.mT[:, :, None] >> shifts) & 1
        levels |= flags.to(torch.int16) << bit
    return levels.flatten()[:count]


def _grouped_levels(packed: list[Any], bits: Tensor, group_size: int) -> Tensor:
    """Return the levels (G, group_size) of groups with these bits (G,).

    Item i of `packed` holds the levels of all groups with i + 1 bits; it is None if there are none.
    """
    levels = torch.empty(len(bits), group_size, dtype=torch.int16)
    found = 0
    for number, codes in enumerate(packed[:MAX_BITS], 1):
        groups = bits == number
        count = int(groups.sum())
        if count or codes is not None:
            levels[groups] = unpack(codes, count * group_size).view(count, group_size)
        found += count
    if found < len(bits):  # diffq itself writes no levels of 15 bits
        raise CheckpointError("it has groups without levels")
    return levels


def _to_values(levels: Tensor, ends: Any, bits: Tensor) -> Tensor:
    """Return the values that levels of so many bits encode, between the lowest and the highest."""
    numbers = _as_list(ends)
    if len(numbers) != 2 or {*map(type, numbers)} != {float}:
        raise CheckpointError("its lowest and highest value are missing")
    low, high = numbers
    return levels.float() * (1 / (2**bits - 1)) * (high - low) + low


def _packed_levels(code: Any) -> list[Tensor]:
    """Return the packed tensors of a parameter; none if it is damaged."""
    levels = code[0] if type(code) in (tuple, list) and code else None
    tensors: Sequence[Any] = levels if isinstance(levels, tuple | list) else [levels]
    return [tensor for tensor in map(plain_tensor, tensors) if tensor is not None]


def _as_list(value: Any) -> list[Any]:
    if type(value) not in (list, tuple):
        raise CheckpointError("its lists of codes are damaged")
    return list(value)


def published_order(name: str) -> tuple[tuple[int, ...], ...]:
    """Return a key that sorts names in the order in which the published modules were created."""
    if re.match(r"t?decoder\.", name):  # decoder layers create their second norm first
        name = re.sub(r"\.norm(\d)\.", lambda m: f".norm{3 - int(m[1])}.", name)
    return tuple(_part_order(name))


def _part_order(name: str) -> Iterator[tuple[int, ...]]:
    for part in name.split("."):
        if part.isdecimal():
            yield (int(part),)
        elif lstm := _LSTM.fullmatch(part):
            weight_first, inner_first = lstm[1] != "weight", lstm[2] != "ih"
            yield (int(lstm[3]), bool(lstm[4]), weight_first, inner_first)
        else:
            yield (_RANK[part],)
