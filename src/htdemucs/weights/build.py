"""Check the configuration and the parameters in a file, and build a network from them.

No file is trusted: the sizes in its configuration are compared with its tensors before any memory
is allocated for them.
"""

import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from htdemucs.errors import CheckpointError, ConfigError
from htdemucs.model import HTDemucsConfig, Network, NetworkConfig
from htdemucs.model.config import HybridConfig
from htdemucs.model.registry import CONFIGS, network_class

MAX_DEPTH = 10
MAX_NUMBER = 1 << 20  # no setting of a genuine network is larger; hertz come closest
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_FRACTION = re.compile(r"\d{1,30}(/\d{1,30})?", re.ASCII)


def configuration(kind: object, fields: Mapping[str, Any]) -> NetworkConfig:
    """Return the configuration of a kind of network with these fields.

    Raises:
        CheckpointError: the kind or a field is unknown, or a value is impossible.
    """
    if not isinstance(kind, str) or kind not in CONFIGS:
        raise CheckpointError(f"its kind is {shown(kind)}; known are {', '.join(CONFIGS)}")
    known = CONFIGS[kind].__dataclass_fields__
    for name, value in fields.items():
        default = known[name].default if name in known else None
        if not _has_type_of(default, value):
            raise CheckpointError(f"its {shown(name)} cannot be {shown(value)}")
    if fields.get("depth", 0) > MAX_DEPTH:  # sizes too large even to compute
        raise CheckpointError(f"its depth is {fields['depth']}; {MAX_DEPTH} is the most")
    try:
        return CONFIGS[kind].from_dict(dict(fields))
    except ConfigError as error:
        raise CheckpointError(f"it describes an impossible network: {error}") from error


def network(
    config: NetworkConfig, parameters: Mapping[str, Any], rename: Callable[[str], str]
) -> Network:
    """Return the network in evaluation mode. The file must hold all its parameters and no others.

    Args:
        config: the sizes of the network.
        parameters: the file's tensors, by their names in the file.
        rename: returns the name in the file for a parameter's name in this package.

    Raises:
        CheckpointError: a parameter is missing, unknown, of the wrong shape, or not finite.
    """
    model = blank(config, stored(parameters.values()))
    state = model.state_dict()
    names = {ours: rename(ours) for ours in state}
    missing = [theirs for theirs in names.values() if theirs not in parameters]
    unknown = sorted(parameters.keys() - set(names.values()))
    for problem, culprits in (("lacks", missing), ("has unknown", unknown)):
        if culprits:
            examples = ", ".join(shown(name) for name in culprits[:3])
            raise CheckpointError(f"it {problem} parameters ({len(culprits)}): {examples}")
    for ours, value in state.items():
        _fill(value, names[ours], parameters[names[ours]])
    return model.eval()


def blank(config: NetworkConfig, count: int) -> Network:
    """Return a network without values, for a file that holds so many.

    Raises:
        CheckpointError: the network is impossible, or needs more values.
    """
    _check_room(config, count)
    try:
        return network_class(config).empty(config)
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"it describes an impossible network: {shown(error)}") from error


def plain_tensor(value: Any) -> Tensor | None:
    """Return a value of a file as a plain tensor; None if it is anything unusual."""
    if type(value) not in (Tensor, torch.nn.Parameter):
        return None
    value = Tensor.detach(value)
    usable = value.layout == torch.strided and value.device.type == "cpu"
    return value if usable and not value.is_quantized else None


def stored(values: Iterable[Any]) -> int:
    """Return how many numbers are in memory for a file's tensors; what they share counts once."""
    memory: dict[int, int] = {}
    for value in values:
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            memory[storage.data_ptr()] = storage.nbytes() // value.element_size()
    return sum(memory.values())


def exact_fraction(*parts: object) -> Fraction:
    """Return the fraction of a numerator and a denominator, or of a string such as "39/5".

    `Fraction` itself takes very long to parse a string such as "1e999999999".

    Raises:
        CheckpointError: they make no fraction.
    """
    if len(parts) == 1 and isinstance(parts[0], str) and _FRACTION.fullmatch(parts[0]):
        parts = tuple(int(part) for part in parts[0].split("/"))
    numbers = [part for part in parts if isinstance(part, int)]
    if len(numbers) == len(parts) and 1 <= len(numbers) <= 2 and numbers[-1]:
        return Fraction(*numbers)
    raise CheckpointError(f"it holds a damaged fraction: {shown(parts)}")


def are_weights(rows: object) -> bool:
    """Whether `rows` is a list of lists of numbers; `Bag` checks how many."""
    return isinstance(rows, list) and all(
        isinstance(row, list) and all(map(_is_number, row)) for row in rows
    )


def shown(value: object) -> str:
    """Return a short, printable form of any value that a file may hold."""
    if isinstance(value, str) and value.isprintable() and len(value) <= 80:
        return value
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer of thousands of digits
        return type(value).__name__


def _fill(parameter: Tensor, name: str, value: Any) -> None:
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        actual = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise CheckpointError(f"its {name} is {actual}, not {list(parameter.shape)}")
    if value.dtype not in FLOATS:
        raise CheckpointError(f"its {name} holds {value.dtype}; it must hold floats")
    parameter.copy_(value)
    if value.numel() and not torch.stack(torch.aminmax(parameter)).isfinite().all():
        raise CheckpointError(f"its {name} holds values that are not finite numbers")


def _check_room(config: NetworkConfig, count: int) -> None:
    """Refuse a network that needs more values than the file holds; `least` is a lower bound."""
    least: float = 8 * config.channels * config.audio_channels * len(config.sources)
    if isinstance(config, HTDemucsConfig):
        width = config.transformer_channels
        least += 2 * config.t_layers * width**2 * (4 + 2 * config.t_hidden_scale)
    if isinstance(config, HybridConfig):
        least += config.channels * config.bins // 4 if config.freq_emb else 0
    for width in config.layer_channels:
        least += width**2 * (4 + 5 * config.dconv_depth / config.dconv_comp)
    if least > count:
        raise CheckpointError(f"it holds {count} values, too few for the network it describes")


def _has_type_of(default: object, value: object) -> bool:
    """Whether a value has the type that a field's default has."""
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, tuple):
        kind = str if default and isinstance(default[0], str) else (int, float)
        return isinstance(value, list | tuple) and all(isinstance(item, kind) for item in value)
    return _is_number(value)


def _is_number(value: object) -> bool:
    return type(value) in (int, float, Fraction) and abs(value) <= MAX_NUMBER  # type: ignore
