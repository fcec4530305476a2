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
from htdemucs.model.architectures import CONFIGS, network_class
from htdemucs.model.config import OFF, HybridConfig

MAX_DEPTH = 10
MAX_NUMBER = 1 << 20  # no setting of a genuine network is larger; sample rates come closest
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_FRACTION = re.compile(r"\d{1,30}(/\d{1,30})?", re.ASCII)


def checked_config(architecture: object, fields: Mapping[str, Any]) -> NetworkConfig:
    """Return the configuration of an architecture with these fields.

    Raises:
        CheckpointError: the architecture or a field is unknown, or a value is impossible.
    """
    if not isinstance(architecture, str) or architecture not in CONFIGS:
        raise CheckpointError(
            f"its architecture is {short_repr(architecture)}; known are {', '.join(CONFIGS)}"
        )
    known = CONFIGS[architecture].__dataclass_fields__
    for name, value in fields.items():
        default = known[name].default if name in known else None
        off = name in OFF and name in known and (value is None or value is False)
        if not off and not _has_type_of(default, value):
            raise CheckpointError(f"its {short_repr(name)} cannot be {short_repr(value)}")
    if fields.get("depth", 0) > MAX_DEPTH:  # the sizes would be too large even to compute
        raise CheckpointError(f"its depth is {fields['depth']}; {MAX_DEPTH} is the most")
    try:
        return CONFIGS[architecture].from_dict(dict(fields))
    except ConfigError as error:
        raise CheckpointError(f"it describes an impossible network: {error}") from error


def build_network(
    config: NetworkConfig, state: Mapping[str, Any], name_in_file: Callable[[str], str]
) -> Network:
    """Return the network in evaluation mode. The file must hold all its parameters and no others.

    Args:
        config: the sizes of the network.
        state: the file's tensors, by their names in the file.
        name_in_file: maps a parameter's name in this package to its name in the file.

    Raises:
        CheckpointError: a parameter is missing, unknown, of the wrong shape, or not finite.
    """
    network = empty_network(config, count_values(state.values()))
    parameters = {name_in_file(name): value for name, value in network.state_dict().items()}
    missing = [name for name in parameters if name not in state]
    unknown = sorted(state.keys() - parameters.keys())
    for problem, names in (("lacks", missing), ("has unknown", unknown)):
        if names:
            examples = ", ".join(short_repr(name) for name in names[:3])
            raise CheckpointError(f"it {problem} parameters ({len(names)}): {examples}")
    for name, parameter in parameters.items():
        value = state[name]
        if not isinstance(value, Tensor) or value.shape != parameter.shape:
            actual = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise CheckpointError(f"its {name} is {actual}, not {list(parameter.shape)}")
        if value.dtype not in FLOATS:
            raise CheckpointError(f"its {name} holds {value.dtype}; it must hold floats")
        parameter.copy_(value)
        if value.numel() and not torch.stack(torch.aminmax(parameter)).isfinite().all():
            raise CheckpointError(f"its {name} holds values that are not finite numbers")
    return network.eval()


def empty_network(config: NetworkConfig, available: int) -> Network:
    """Return a network without values.

    Args:
        config: the sizes of the network.
        available: how many values the file holds.

    Raises:
        CheckpointError: the network is impossible, or needs more values than the file holds.
    """
    if _fewest_values(config) > available:
        raise CheckpointError(f"it holds {available} values, too few for the network it describes")
    try:
        return network_class(config).empty(config)
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"it describes an impossible network: {short_repr(error)}") from error


def _fewest_values(config: NetworkConfig) -> float:
    """Return a lower bound of the number of parameters, computed from the sizes alone."""
    fewest: float = 8 * config.channels * config.audio_channels * len(config.sources)
    if isinstance(config, HTDemucsConfig):
        width = config.transformer_channels
        fewest += 2 * config.t_layers * width**2 * (4 + 2 * config.t_hidden_scale)
    if isinstance(config, HybridConfig):
        fewest += config.channels * config.bins // 4 if config.freq_emb else 0
    for width in config.layer_channels:
        fewest += width**2 * (4 + 5 * config.dconv_depth / config.dconv_comp)
    return fewest


def plain_tensor(value: Any) -> Tensor | None:
    """Return a value of a file as a plain tensor; None if it is anything unusual."""
    if type(value) not in (Tensor, torch.nn.Parameter):
        return None
    value = Tensor.detach(value)
    usable = value.layout == torch.strided and value.device.type == "cpu"
    return value if usable and not value.is_quantized else None


def count_values(values: Iterable[Any]) -> int:
    """Return how many numbers a file's tensors hold in memory; shared memory counts once."""
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
        CheckpointError: the parts do not make a fraction.
    """
    if len(parts) == 1 and isinstance(parts[0], str) and _FRACTION.fullmatch(parts[0]):
        parts = tuple(int(part) for part in parts[0].split("/"))
    numbers = [part for part in parts if isinstance(part, int)]
    if len(numbers) == len(parts) and 1 <= len(numbers) <= 2 and numbers[-1]:
        return Fraction(*numbers)
    raise CheckpointError(f"it holds a damaged fraction: {short_repr(parts)}")


def is_weight_table(rows: object) -> bool:
    """Whether `rows` is a list of lists of numbers; `Bag` checks how many."""
    return isinstance(rows, list) and all(
        isinstance(row, list) and all(map(_is_number, row)) for row in rows
    )


def short_repr(value: object) -> str:
    """Return a short, printable form of any value that a file may hold."""
    if isinstance(value, str) and value.isprintable() and len(value) <= 80:
        return value
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer of thousands of digits
        return type(value).__name__


def _has_type_of(default: object, value: object) -> bool:
    """Whether a value has the type of a field's default."""
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, tuple):
        item_type = str if default and isinstance(default[0], str) else (int, float)
        return isinstance(value, list | tuple) and all(isinstance(x, item_type) for x in value)
    return _is_number(value)


def _is_number(value: object) -> bool:
    return type(value) in (int, float, Fraction) and abs(value) <= MAX_NUMBER  # type: ignore
