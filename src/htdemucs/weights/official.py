"""Read and write official checkpoints (`.th` and `.safetensors`).

Nothing in a file is ever executed; for `.th` files, which are pickles, `pickles` sees to that.
"""

import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from htdemucs.errors import CheckpointError
from htdemucs.files import replacing
from htdemucs.model import Network, NetworkConfig
from htdemucs.model.family import kind
from htdemucs.weights import assembly, keywords
from htdemucs.weights.pickles import KINDS, Contents, class_message, damaged
from htdemucs.weights.pickles import read as read_pickle
from htdemucs.weights.quantised import Quantised
from htdemucs.weights.renames import renaming


def read(path: Path) -> Network:
    """Return the network in an official file, on the CPU, in float32.

    Raises:
        CheckpointError: the file is damaged or unsafe, or of a network this package cannot run.
    """
    reader = _read_safetensors if path.suffix == ".safetensors" else read_pickle
    try:
        path.open("rb").close()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        kind, args, kwargs, state = reader(path)
        config = keywords.to_config(kind, args, kwargs)
        if isinstance(state, Quantised):
            state = state.parameters(_shapes(config, state.capacity))
        return assemble(config, state)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def assemble(config: NetworkConfig, state: Mapping[str, Any]) -> Network:
    """Return a network in evaluation mode with parameters under their published names.

    Raises:
        CheckpointError: a parameter is missing, unknown, of the wrong shape, or not finite.
    """
    parameters = {name: _from_convolution(name, value) for name, value in state.items()}
    return assembly.network(config, parameters, renaming(config))


def write(model: Network, path: Path) -> None:
    """Write a network in the official `.safetensors` layout, in float16 as released.

    Raises:
        CheckpointError: the file cannot be written, or float16 cannot hold the parameters.
    """
    state, published_name = {}, renaming(model.config)
    for name, value in model.state_dict().items():
        theirs = published_name(name)
        half = value.detach().to("cpu", torch.float16)
        if not half.isfinite().all():
            raise CheckpointError(f"{name} is too large for float16; convert to a folder instead")
        state[theirs] = _as_convolution(theirs, half).contiguous()
    metadata = {
        "klass": next(name for name, ours in KINDS.items() if ours == kind(model.config)),
        "args": "[]",
        "kwargs": json.dumps(keywords.from_config(model.config), default=_encode_fraction),
    }
    try:
        with replacing(path) as partial:
            save_file(state, partial, metadata=metadata)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"cannot write {path}: {reason}") from error


def _shapes(config: NetworkConfig, count: int) -> dict[str, torch.Size]:
    """Return the shapes of the published network's parameters, of a file with so many values."""
    with torch.device("meta"):
        state = assembly.blank(config, count).state_dict()
    published_name = renaming(config)
    names = {published_name(ours): value for ours, value in state.items()}
    return {name: _as_convolution(name, value).shape for name, value in names.items()}


def _read_safetensors(path: Path) -> Contents:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        kind, args, kwargs = _decode_metadata(metadata)
        if "structure" not in metadata:
            return kind, args, kwargs, state
        nested = _nested(json.loads(metadata["structure"]), state)
        return kind, args, kwargs, Quantised(nested, nested["meta"]["klass"])
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file surfaces as almost anything
        raise CheckpointError(damaged(error)) from error


def _decode_metadata(metadata: dict[str, str]) -> tuple[str, list[Any], dict[str, Any]]:
    if not {"klass", "args", "kwargs"} <= set(metadata):
        raise CheckpointError("not an official checkpoint: its metadata lacks klass or kwargs")
    if metadata["klass"] not in KINDS:
        raise CheckpointError(class_message(assembly.shown(metadata["klass"])))
    args = json.loads(metadata["args"], object_hook=_decode_fraction)
    kwargs = json.loads(metadata["kwargs"], object_hook=_decode_fraction)
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise CheckpointError("not an official checkpoint: its args or kwargs are damaged")
    return KINDS[metadata["klass"]], args, kwargs


def _nested(node: Any, tensors: dict[str, Tensor]) -> Any:
    """Return what a node of a quantised file's structure describes; a class is its name."""
    if not isinstance(node, dict):
        return node
    ((kind, value),) = node.items()
    if kind == "_dict":
        return {key: _nested(item, tensors) for key, item in value}
    if kind in ("_list", "_tuple"):
        return [_nested(item, tensors) for item in value]
    return tensors[value] if kind == "_tensor" else {"_class": value}[kind]


def _decode_fraction(value: dict[str, Any]) -> Any:
    if value.get("_type") != "fraction":
        return value
    return assembly.exact_fraction(value.get("numerator"), value.get("denominator"))


def _encode_fraction(value: object) -> dict[str, Any]:
    if not isinstance(value, Fraction):
        raise TypeError(f"cannot write {value!r} as JSON")
    return {"_type": "fraction", "numerator": value.numerator, "denominator": value.denominator}


def _as_convolution(name: str, value: Tensor) -> Tensor:
    """Turn a linear around the transformer into a 1x1 convolution, as published."""
    return value[..., None] if name.startswith("channel_") and value.dim() == 2 else value


def _from_convolution(name: str, value: Any) -> Any:
    if not isinstance(value, Tensor) or not name.startswith("channel_") or value.dim() != 3:
        return value
    if value.shape[-1] != 1:
        raise CheckpointError(f"its {assembly.shown(name)} is no 1x1 convolution")
    return value[..., 0]
