"""Official checkpoints (`.th` and `.safetensors`) to configuration and parameters, and back.

Reading one executes nothing from it: the `.th` pickle is restricted to tensors, plain containers
and inert stand-ins for the few classes that official files mention.
"""

import json
import pickle
import re
import threading
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
from htdemucs.model import HTDemucs
from htdemucs.weights import keywords

CLASS_NAME = "demucs.htdemucs.HTDemucs"
OTHER_CLASSES = ("demucs.hdemucs.HDemucs", "demucs.demucs.Demucs")

# Our parameter names -> the published ones, applied in order. Layers of the transformer alternate:
# even ones attend to themselves, odd ones to the other branch.
_RENAMES = (
    (r"^(spectral|time)_(en|de)coder\.", r"\1 \2coder."),
    (r"^spectral ", ""),
    (r"^time ", "t"),
    (r"\.conv_transpose\.", ".conv_tr."),
    (r"\.dconv\.(\d+)\.squeeze\.", r".dconv.layers.\1.0."),
    (r"\.dconv\.(\d+)\.squeeze_norm\.", r".dconv.layers.\1.1."),
    (r"\.dconv\.(\d+)\.expand\.", r".dconv.layers.\1.3."),
    (r"\.dconv\.(\d+)\.expand_norm\.", r".dconv.layers.\1.4."),
    (r"\.dconv\.(\d+)\.layer_scale\.", r".dconv.layers.\1.6."),
    (r"^frequency_embedding\.table$", "freq_emb.embedding.weight"),
    (r"^transformer\.spectral_in\.", "channel_upsampler."),
    (r"^transformer\.spectral_out\.", "channel_downsampler."),
    (r"^transformer\.time_in\.", "channel_upsampler_t."),
    (r"^transformer\.time_out\.", "channel_downsampler_t."),
    (r"^transformer\.spectral_norm\.", "crosstransformer.norm_in."),
    (r"^transformer\.time_norm\.", "crosstransformer.norm_in_t."),
    (r"^transformer\.spectral_layers\.", "crosstransformer.layers."),
    (r"^transformer\.time_layers\.", "crosstransformer.layers_t."),
    (r"\.(\d*[02468])\.attention\.", r".\1.self_attn."),
    (r"\.(\d*[13579])\.attention\.", r".\1.cross_attn."),
    (r"_attn\.projection\.", "_attn.in_proj_"),
    (r"_attn\.output\.", "_attn.out_proj."),
    (r"\.attention_norm\.", ".norm1."),
    (r"\.context_norm\.", ".norm2."),
    (r"\.(\d*[02468])\.feed_forward_norm\.", r".\1.norm2."),
    (r"\.(\d*[13579])\.feed_forward_norm\.", r".\1.norm3."),
    (r"\.feed_forward\.", "."),
    (r"\.attention_scale\.", ".gamma_1."),
    (r"\.feed_forward_scale\.", ".gamma_2."),
)


def read(path: Path) -> HTDemucs:
    """The network in an official file, on the CPU, as float32.

    Raises:
        CheckpointError: damaged, unsafe, or not a network this package can run.
    """
    reader = _read_safetensors if path.suffix == ".safetensors" else _read_pickle
    try:
        args, kwargs, state = reader(path)
        model = HTDemucs(keywords.to_config(args, kwargs))
        _load(model, state)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return model.eval()


def write(model: HTDemucs, path: Path) -> None:
    """Write the official `.safetensors` layout, float16 as released."""
    state = {}
    for name, value in model.state_dict().items():
        theirs = _published_name(name)
        value = value.detach().to("cpu", torch.float16)
        state[theirs] = _as_convolution(theirs, value).contiguous()
    metadata = {
        "klass": CLASS_NAME,
        "args": "[]",
        "kwargs": json.dumps(keywords.from_config(model.config), default=_encode_fraction),
    }
    with replacing(path) as partial:
        save_file(state, partial, metadata=metadata)


class _Class:
    """Stands in for the network's class reference in a pickle; only its identity matters."""


class _OtherClass:
    """Stands in for the classes of older networks."""


class _Numbers:
    """Stands in for numpy scalars and types, which official files hold among their metrics."""

    def __init__(self, *args: object) -> None:
        """Keep nothing."""

    def __setstate__(self, state: object) -> None:
        """Keep nothing."""


class _FractionParts:
    """Stands in for `Fraction`, whose own parser takes very long over some strings."""

    def __init__(self, *parts: object) -> None:
        self.parts = parts

    def value(self) -> Fraction:
        """The fraction, from a numerator and denominator or from "39/5"."""
        parts: tuple[object, ...] = self.parts
        if len(parts) == 1 and isinstance(parts[0], str) and len(parts[0]) < 40:
            parts = tuple(parts[0].split("/"))
        try:
            numbers = [int(part) for part in parts]  # type: ignore[call-overload]
            return Fraction(*numbers)
        except (TypeError, ValueError, ZeroDivisionError):
            raise CheckpointError("a fraction in it is damaged") from None


_ALLOWED = [
    (_Class, CLASS_NAME),
    *((_OtherClass, name) for name in OTHER_CLASSES),
    (_FractionParts, "fractions.Fraction"),
    (_Numbers, "numpy.dtype"),
    (_Numbers, "numpy.core.multiarray.scalar"),
    (_Numbers, "numpy._core.multiarray.scalar"),
]
_unpickling = threading.Lock()  # the allow-list is global to torch


def _read_pickle(path: Path) -> tuple[list[Any], dict[str, Any], Mapping[str, Any]]:
    try:
        with _unpickling, torch.serialization.safe_globals(list(_ALLOWED)):  # type: ignore[arg-type]
            package = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(_unpickling_message(error)) from error
    except Exception as error:  # a damaged archive surfaces as almost anything
        raise CheckpointError(
            f"damaged or incomplete ({type(error).__name__}); download it again"
        ) from error
    if not isinstance(package, dict) or not {"klass", "kwargs", "state"} <= set(package):
        raise CheckpointError("not an official checkpoint: it lacks klass, kwargs or state")
    if package["klass"] is not _Class:
        raise CheckpointError(_class_message("one of an older kind"))
    state = package["state"]
    if not isinstance(state, Mapping) or state.get("__quantized"):
        raise CheckpointError("quantised checkpoints cannot be loaded yet; use htdemucs")
    kwargs = package["kwargs"]
    if not isinstance(kwargs, dict):
        raise CheckpointError("not an official checkpoint: its kwargs are no dictionary")
    args = [_decode_pickled(value) for value in package.get("args", ())]
    return args, {name: _decode_pickled(value) for name, value in kwargs.items()}, state


def _unpickling_message(error: pickle.UnpicklingError) -> str:
    unsafe = re.search(r"GLOBAL (\S+)|global:? (\S+\.\S+)", str(error))
    if unsafe:
        name = unsafe[1] or unsafe[2]
        return f"refused: it wants to run or create {name}, which no genuine checkpoint does"
    if "Unsupported operand" in str(error) or "unsupported" in str(error).lower():
        return "refused: it holds instructions that no genuine checkpoint does"
    return "damaged or incomplete, or no checkpoint at all; download it again"


def _class_message(name: str) -> str:
    return f"its network is {name}; this version runs HTDemucs (htdemucs, htdemucs_ft, htdemucs_6s)"


def _decode_pickled(value: Any) -> Any:
    return value.value() if isinstance(value, _FractionParts) else value


def _read_safetensors(path: Path) -> tuple[list[Any], dict[str, Any], Mapping[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if not {"klass", "args", "kwargs"} <= set(metadata):
            raise CheckpointError("not an official checkpoint: its metadata lacks klass or kwargs")
        if metadata["klass"] != CLASS_NAME:
            raise CheckpointError(_class_message(metadata["klass"][:60]))
        if "structure" in metadata:
            raise CheckpointError("quantised checkpoints cannot be loaded yet; use htdemucs")
        args = json.loads(metadata["args"], object_hook=_decode_fraction)
        kwargs = json.loads(metadata["kwargs"], object_hook=_decode_fraction)
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError("damaged or incomplete; download it again") from error
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise CheckpointError("not an official checkpoint: its kwargs are no dictionary")
    return args, kwargs, state


def _decode_fraction(value: dict[str, Any]) -> Any:
    if value.get("_type") != "fraction":
        return value
    return _FractionParts(value.get("numerator"), value.get("denominator")).value()


def _encode_fraction(value: object) -> dict[str, Any]:
    if not isinstance(value, Fraction):
        raise TypeError(f"cannot write {value!r} as JSON")
    return {"_type": "fraction", "numerator": value.numerator, "denominator": value.denominator}


def _published_name(name: str) -> str:
    for ours, theirs in _RENAMES:
        name = re.sub(ours, theirs, name)
    return name


def _as_convolution(name: str, value: Tensor) -> Tensor:
    """Their 1x1 convolutions are our linears around the transformer."""
    return value[..., None] if name.startswith("channel_") and value.dim() == 2 else value


def _load(model: HTDemucs, state: Mapping[str, Any]) -> None:
    """Rename, then load strictly: every parameter there, of the right shape, and none beside."""
    names = {name: _published_name(name) for name in model.state_dict()}
    missing = [theirs for theirs in names.values() if theirs not in state]
    unknown = sorted(set(map(str, state)) - set(names.values()))
    for problem, found in (("lacks", missing), ("has unknown", unknown)):
        if found:
            raise CheckpointError(f"it {problem} parameters: {', '.join(found[:3])} ({len(found)})")
    renamed = {}
    for ours, value in model.state_dict().items():
        theirs = names[ours]
        tensor = state[theirs]
        expected = _as_convolution(theirs, value).shape
        if not isinstance(tensor, Tensor) or tensor.shape != expected:
            shape = list(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise CheckpointError(f"its {theirs} is {shape}, not {list(expected)}")
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise CheckpointError(f"its {theirs} holds values that are not finite numbers")
        renamed[ours] = tensor.detach().float().reshape(value.shape)
    model.load_state_dict(renamed, strict=True)
