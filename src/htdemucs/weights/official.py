"""Official checkpoints (`.th` and `.safetensors`) to configuration and parameters, and back.

Reading one executes nothing from it: the `.th` pickle is restricted to tensors, plain containers
and inert stand-ins for the few classes that official files mention.
"""

import json
import pickle
import re
import threading
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from htdemucs.errors import CheckpointError
from htdemucs.files import replacing
from htdemucs.model import HTDemucs
from htdemucs.weights import assembly, keywords

CLASS_NAME = "demucs.htdemucs.HTDemucs"
OTHER_CLASSES = ("demucs.hdemucs.HDemucs", "demucs.demucs.Demucs")
QUANTISED = "quantised checkpoints cannot be loaded yet; use htdemucs"
Contents = tuple[list[Any], dict[str, Any], dict[str, Any]]  # args, kwargs, tensors by name

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
        parameters = {name: _from_convolution(name, value) for name, value in state.items()}
        return assembly.network(keywords.to_config(args, kwargs), parameters, _published_name)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


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

    __slots__ = ("parts",)

    def __init__(self, *parts: object) -> None:
        self.parts = parts


_ALLOWED = [
    (_Class, CLASS_NAME),
    *((_OtherClass, name) for name in OTHER_CLASSES),
    (_FractionParts, "fractions.Fraction"),
    (_Numbers, "numpy.dtype"),
    (_Numbers, "numpy.core.multiarray.scalar"),
    (_Numbers, "numpy._core.multiarray.scalar"),
]
_unpickling = threading.Lock()  # the allow-list is global to torch


def _read_pickle(path: Path) -> Contents:
    try:
        with _unpickling, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with torch.serialization.safe_globals(list(_ALLOWED)):  # type: ignore[arg-type]
                return _unpack(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, CheckpointError):
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(_unpickling_message(error)) from error
    except Exception as error:  # a damaged archive surfaces as almost anything
        raise CheckpointError(_damaged(error)) from error


def _unpack(package: Any) -> Contents:
    """Plain containers and tensors, so that nothing after this meets an object of the file's."""
    if not isinstance(package, dict) or not {"klass", "kwargs", "state"} <= set(package):
        raise CheckpointError("not an official checkpoint: it lacks klass, kwargs or state")
    if package["klass"] is not _Class:
        raise CheckpointError(_class_message("one of an older kind"))
    args = package["args"] if "args" in package else ()
    kwargs, state = package["kwargs"], package["state"]
    containers = isinstance(args, list | tuple) and isinstance(kwargs, dict)
    if not containers or not isinstance(state, dict) or {*map(type, (*kwargs, *state))} - {str}:
        raise CheckpointError("not an official checkpoint: its args, kwargs or state is damaged")
    if "__quantized" in state and state["__quantized"]:
        raise CheckpointError(QUANTISED)
    return (
        [_decode_pickled(value) for value in args],
        {name: _decode_pickled(kwargs[name]) for name in kwargs},
        {name: _plain_tensor(state[name]) for name in state},
    )


def _unpickling_message(error: pickle.UnpicklingError) -> str:
    unsafe = re.search(r"GLOBAL (\S+)|global:? (\S+\.\S+)", str(error))
    if unsafe:
        name = assembly.shown(unsafe[1] or unsafe[2])
        if name.startswith("diffq."):
            return QUANTISED
        return f"refused: it wants to run or create {name}, which no genuine checkpoint does"
    if "Unsupported operand" in str(error) or "unsupported" in str(error).lower():
        return "refused: it holds instructions that no genuine checkpoint does"
    return "damaged or incomplete, or no checkpoint at all; download it again"


def _class_message(name: str) -> str:
    return f"its network is {name}; this version runs HTDemucs (htdemucs, htdemucs_ft, htdemucs_6s)"


def _damaged(error: Exception) -> str:
    return f"damaged or incomplete ({type(error).__name__}); download it again"


def _decode_pickled(value: Any) -> Any:
    return assembly.exact_fraction(*value.parts) if isinstance(value, _FractionParts) else value


def _plain_tensor(value: Any) -> Any:
    """A tensor without the attributes that a pickle may have given it, or None."""
    if type(value) not in (Tensor, torch.nn.Parameter):
        return None
    value = Tensor.detach(value)
    usable = value.layout == torch.strided and value.device.type == "cpu"
    return value if usable and not value.is_quantized else None


def _read_safetensors(path: Path) -> Contents:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return *_decode_metadata(metadata), state
    except (OSError, CheckpointError):
        raise
    except Exception as error:  # a damaged file surfaces as almost anything
        raise CheckpointError(_damaged(error)) from error


def _decode_metadata(metadata: dict[str, str]) -> tuple[list[Any], dict[str, Any]]:
    if not {"klass", "args", "kwargs"} <= set(metadata):
        raise CheckpointError("not an official checkpoint: its metadata lacks klass or kwargs")
    if metadata["klass"] != CLASS_NAME:
        raise CheckpointError(_class_message(assembly.shown(metadata["klass"])))
    if "structure" in metadata:
        raise CheckpointError(QUANTISED)
    args = json.loads(metadata["args"], object_hook=_decode_fraction)
    kwargs = json.loads(metadata["kwargs"], object_hook=_decode_fraction)
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise CheckpointError("not an official checkpoint: its args or kwargs are damaged")
    return args, kwargs


def _decode_fraction(value: dict[str, Any]) -> Any:
    if value.get("_type") != "fraction":
        return value
    return assembly.exact_fraction(value.get("numerator"), value.get("denominator"))


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


def _from_convolution(name: str, value: Any) -> Any:
    if not isinstance(value, Tensor) or not name.startswith("channel_") or value.dim() != 3:
        return value
    if value.shape[-1] != 1:
        raise CheckpointError(f"its {assembly.shown(name)} is no 1x1 convolution")
    return value[..., 0]
