"""The published networks' keywords, and their translation into our configurations.

MERGED: The published networks' parameter names.
MERGED: Read and write official checkpoints (`.th` and `.safetensors`).

Nothing in a file is ever executed; for `.th` files, which are pickles, `pickles` sees to that.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from htdemucs.errors import CheckpointError
from htdemucs.fsutil import atomic_write
from htdemucs.model import DemucsConfig, HDemucsConfig, Network, NetworkConfig
from htdemucs.model.config import ContextConfig
from htdemucs.model.registry import CONFIGS, architecture
from htdemucs.weights import build
from htdemucs.weights.diffq import Quantised
from htdemucs.weights.safe_pickle import KINDS, Contents, class_message, damaged
from htdemucs.weights.safe_pickle import read as read_pickle

# The published constructors' keywords and their defaults, in order: a checkpoint may pass them by
# position.
_HTDEMUCS: dict[str, Any] = {
    "sources": None,
    "audio_channels": 2,
    "channels": 48,
    "channels_time": None,
    "growth": 2,
    "nfft": 4096,
    "wiener_iters": 0,
    "end_iters": 0,
    "wiener_residual": False,
    "cac": True,
    "depth": 4,
    "rewrite": True,
    "multi_freqs": None,
    "multi_freqs_depth": 3,
    "freq_emb": 0.2,
    "emb_scale": 10,
    "emb_smooth": True,
    "kernel_size": 8,
    "time_stride": 2,
    "stride": 4,
    "context": 1,
    "context_enc": 0,
    "norm_starts": 4,
    "norm_groups": 4,
    "dconv_mode": 1,
    "dconv_depth": 2,
    "dconv_comp": 8,
    "dconv_init": 1e-3,
    "bottom_channels": 0,
    "t_layers": 5,
    "t_emb": "sin",
    "t_hidden_scale": 4.0,
    "t_heads": 8,
    "t_dropout": 0.0,
    "t_max_positions": 10000,
    "t_norm_in": True,
    "t_norm_in_group": False,
    "t_group_norm": False,
    "t_norm_first": True,
    "t_norm_out": True,
    "t_max_period": 10000.0,
    "t_weight_decay": 0.0,
    "t_lr": None,
    "t_layer_scale": True,
    "t_gelu": True,
    "t_weight_pos_embed": 1.0,
    "t_sin_random_shift": 0,
    "t_cape_mean_normalize": True,
    "t_cape_augment": True,
    "t_cape_glob_loc_scale": (5000.0, 1.0, 1.4),
    "t_sparse_self_attn": False,
    "t_sparse_cross_attn": False,
    "t_mask_type": "diag",
    "t_mask_random_seed": 42,
    "t_sparse_attn_window": 500,
    "t_global_window": 100,
    "t_sparsity": 0.95,
    "t_auto_sparsity": False,
    "t_cross_first": False,
    "rescale": 0.1,
    "samplerate": 44100,
    "segment": 10,
    "use_train_segment": True,
}
_HDEMUCS: dict[str, Any] = {
    "sources": None,
    "audio_channels": 2,
    "channels": 48,
    "channels_time": None,
    "growth": 2,
    "nfft": 4096,
    "wiener_iters": 0,
    "end_iters": 0,
    "wiener_residual": False,
    "cac": True,
    "depth": 6,
    "rewrite": True,
    "hybrid": True,
    "hybrid_old": False,
    "multi_freqs": None,
    "multi_freqs_depth": 2,
    "freq_emb": 0.2,
    "emb_scale": 10,
    "emb_smooth": True,
    "kernel_size": 8,
    "time_stride": 2,
    "stride": 4,
    "context": 1,
    "context_enc": 0,
    "norm_starts": 4,
    "norm_groups": 4,
    "dconv_mode": 1,
    "dconv_depth": 2,
    "dconv_comp": 4,
    "dconv_attn": 4,
    "dconv_lstm": 4,
    "dconv_init": 1e-4,
    "rescale": 0.1,
    "samplerate": 44100,
    "segment": 40,
}
_DEMUCS: dict[str, Any] = {
    "sources": None,
    "audio_channels": 2,
    "channels": 64,
    "growth": 2.0,
    "depth": 6,
    "rewrite": True,
    "lstm_layers": 0,
    "kernel_size": 8,
    "stride": 4,
    "context": 1,
    "gelu": True,
    "glu": True,
    "norm_starts": 4,
    "norm_groups": 4,
    "dconv_mode": 1,
    "dconv_depth": 2,
    "dconv_comp": 4,
    "dconv_attn": 4,
    "dconv_lstm": 4,
    "dconv_init": 1e-4,
    "normalize": True,
    "resample": True,
    "rescale": 0.1,
    "samplerate": 44100,
    "segment": 40,
}

Values = Mapping[str, Any]  # every keyword with its value
_OUR_NAMES = {"nfft": "n_fft", "samplerate": "sample_rate"}
_SCALARS = (type(None), bool, int, float, str, Fraction)


@dataclass(frozen=True)
class Keywords:
    """The keywords of one kind of network.

    Attributes:
        kind: the kind's name.
        defaults: every keyword and its default, in order.
        inert: keywords without effect on a trained network whose other keywords are all supported:
            settings of features that are off, of the initial values, or of the optimiser. They are
            not compared with the defaults, because released checkpoints have others (a sparse
            attention window of 400, for one).
        harmless: keywords that may differ from the default as long as the feature stays off.
    """

    kind: str
    defaults: Values
    inert: frozenset[str]
    harmless: Mapping[str, Callable[[Any, Values], bool]]

    @property
    def fields(self) -> dict[str, str]:
        """Keyword -> field of the configuration with the same meaning."""
        names = {name: _OUR_NAMES.get(name, name) for name in self.defaults}
        known = CONFIGS[self.kind].__dataclass_fields__
        return {name: field for name, field in names.items() if field in known}


KEYWORDS = {
    keywords.kind: keywords
    for keywords in (
        Keywords(
            "HTDemucs",
            _HTDEMUCS,
            inert=frozenset(
                {
                    "multi_freqs_depth",  # multi_freqs is off
                    "emb_smooth",  # initial values
                    "time_stride",  # used only where the branches merge, which depth rules out
                    "norm_groups",  # norm_starts keeps these norms out
                    "t_max_positions",  # t_emb is "sin"
                    "t_norm_in_group",  # t_norm_in takes precedence
                    "t_weight_decay",
                    "t_lr",
                    "t_cape_mean_normalize",
                    "t_cape_augment",
                    "t_cape_glob_loc_scale",
                    "t_mask_type",  # attention is dense
                    "t_mask_random_seed",
                    "t_sparse_attn_window",
                    "t_global_window",
                    "t_sparsity",
                    "t_auto_sparsity",
                }
            ),
            harmless={
                "channels_time": lambda value, values: value in (None, values["channels"]),
                "multi_freqs": lambda value, _: not value,
                "norm_starts": lambda value, values: bool(value >= values["depth"]),
            },
        ),
        Keywords(
            "HDemucs",
            _HDEMUCS,
            inert=frozenset({"emb_smooth", "wiener_residual"}),  # the latter adds up to nothing
            harmless={
                "channels_time": lambda value, values: value in (None, values["channels"]),
                "wiener_iters": lambda value, values: value == 0 or bool(values["cac"]),
                "end_iters": lambda value, values: value == 0 or bool(values["cac"]),
            },
        ),
        Keywords("Demucs", _DEMUCS, inert=frozenset(), harmless={}),
    )
}


def to_config(kind: str, args: Sequence[Any], keywords: Mapping[str, Any]) -> NetworkConfig:
    """Return the configuration that a checkpoint's constructor arguments describe.

    Raises:
        CheckpointError: a keyword asks for a feature that this network lacks; the message names it.
    """
    known = KEYWORDS[kind]
    if len(args) > len(known.defaults):
        raise CheckpointError(
            f"the checkpoint passes {len(args)} arguments, too many to be genuine"
        )
    by_position = dict(zip(known.defaults, args, strict=False))
    if twice := sorted(by_position.keys() & keywords.keys()):
        raise CheckpointError(f"the checkpoint passes {twice[0]} twice; download it again")
    arguments = {name: _simple(value) for name, value in (by_position | dict(keywords)).items()}
    values = {**known.defaults, **arguments}
    for name in arguments:
        if not _supported(known, name, values):
            raise CheckpointError(
                f"the checkpoint sets {build.shown(name)}={build.shown(values[name])}, which "
                f"no released {kind} has and this package cannot run"
            )
    fields = {field: _whole(values[name]) for name, field in known.fields.items()}
    if "multi_freqs" in fields:
        fields["multi_freqs"] = fields["multi_freqs"] or ()
    return build.configuration(kind, fields)


def from_config(config: NetworkConfig) -> dict[str, Any]:
    """Return the published constructor's keywords for this configuration."""
    known = KEYWORDS[architecture(config)]
    values = {name: getattr(config, field) for name, field in known.fields.items()}
    if "norm_starts" not in known.fields and "norm_starts" in known.defaults:
        values["norm_starts"] = max(4, config.depth)
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def _supported(known: Keywords, name: str, values: Values) -> bool:
    if name in known.fields or name in known.inert:
        return True
    value = values[name]
    if name not in known.defaults:
        return value in (None, False, 0, "", [], {}, ())  # an unknown feature, switched off
    if name in known.harmless:
        try:
            return known.harmless[name](value, values)
        except TypeError:
            return False
    return bool(value == known.defaults[name])


def _simple(value: Any) -> Any:
    """Return a simple value, or else its type, which is safe to compare and to print."""
    if type(value) in _SCALARS or (isinstance(value, dict) and not value):
        return value
    if isinstance(value, list | tuple) and all(type(item) in _SCALARS for item in value):
        return list(value)
    return type(value)


def _whole(value: Any) -> Any:
    """Return a whole float as an integer, so that growth=2.0 is growth=2."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Rules = tuple[tuple[str, str], ...]  # our names -> the published ones, applied in order

# Layers of the transformer alternate: even ones attend to their own branch, odd ones to the other.
_HTDEMUCS_KEYS: Rules = (
    (r"^(spectral|time)_(en|de)coder\.", r"\1 \2coder."),
    (r"^spectral ", ""),
    (r"^time ", "t"),
    (r"\.conv_transpose\.", ".conv_tr."),
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


def renaming(config: NetworkConfig) -> Callable[[str], str]:
    """Return the function from a parameter's name to its published name."""
    rules = _HTDEMUCS_KEYS
    if isinstance(config, HDemucsConfig):
        rules = _hdemucs(config)
    if isinstance(config, DemucsConfig):
        rules = _demucs(config)
    compiled = [(re.compile(ours), theirs) for ours, theirs in (*rules, *_dconv(config))]

    def rename(name: str) -> str:
        for ours, theirs in compiled:
            name = ours.sub(theirs, name)
        return name

    return rename


def _hdemucs(config: HDemucsConfig) -> Rules:
    """Published encoders and decoders go through merge and split; norms have numbers."""
    outer, inner = config.outer_depth, config.depth - config.outer_depth - 1
    return (
        (r"^merge\.time_conv\.", f"tencoder.{outer}.conv."),
        (r"^split\.time_conv_transpose\.", "tdecoder.0.conv_tr."),
        (r"^split\.time_norm\.", "tdecoder.0.norm2."),
        *((rf"^joint_encoder\.{i}\.", f"encoder.{outer + 1 + i}.") for i in range(inner)),
        *((rf"^joint_decoder\.{i}\.", f"decoder.{i}.") for i in range(inner)),
        (r"^merge\.", f"encoder.{outer}."),
        (r"^split\.", f"decoder.{inner}."),
        *((rf"^time_decoder\.{i}\.", f"tdecoder.{i + 1}.") for i in range(outer)),
        *((rf"^spectral_decoder\.{i}\.", f"decoder.{inner + 1 + i}.") for i in range(outer)),
        (r"^spectral_encoder\.", "encoder."),
        (r"^time_encoder\.", "tencoder."),
        (r"^(encoder\.\d+)\.norm\.", r"\1.norm1."),
        (r"^(encoder\.\d+)\.rewrite_norm\.", r"\1.norm2."),
        (r"^(decoder\.\d+)\.rewrite_norm\.", r"\1.norm1."),
        (r"^(decoder\.\d+)\.norm\.", r"\1.norm2."),
        (r"\.conv_transpose\.", ".conv_tr."),
        (r"^frequency_embedding\.table$", "freq_emb.embedding.weight"),
    )


def _demucs(config: DemucsConfig) -> Rules:
    """Published layers are sequences, in which functions have numbers too."""
    after = 4 if config.dconv_mode == 3 else 3
    encoder = {"conv": 0, "norm": 1, "dconv": 3, "rewrite": 4, "rewrite_norm": 5}
    decoder = {
        "rewrite": 0, "rewrite_norm": 1, "dconv": 3, "conv_transpose": after, "norm": after + 1,
    }  # fmt: skip
    return tuple(
        (rf"^({side}\.\d+)\.{ours}\.", rf"\1.{theirs}{'.' if ours != 'dconv' else '.dconv.'}")
        for side, numbers in (("encoder", encoder), ("decoder", decoder))
        for ours, theirs in numbers.items()
    )


def _dconv(config: NetworkConfig) -> Iterator[tuple[str, str]]:
    """Published DConvs are sequences too, longer by an LSTM and attention in inner layers."""
    innermost = {"encoder": 0, "tencoder": 0, "decoder": config.depth - 1}
    innermost["tdecoder"] = config.outer_depth if isinstance(config, HDemucsConfig) else 0
    word = "" if isinstance(config, DemucsConfig) else "dconv."
    for side, last in innermost.items():
        for number in range(config.depth):
            layer = abs(last - number)
            lstm = isinstance(config, ContextConfig) and layer >= config.dconv_lstm
            attention = isinstance(config, ContextConfig) and layer >= config.dconv_attn
            after = 3 + lstm + attention
            positions = {
                "squeeze": 0, "squeeze_norm": 1, "context.lstm": 3, "context.attention": 3 + lstm,
                "expand": after, "expand_norm": after + 1, "layer_scale": after + 3,
            }  # fmt: skip
            for ours, theirs in positions.items():
                pattern = rf"^({side}\.{number}\..*?)dconv\.(\d+)\.{re.escape(ours)}\."
                yield pattern, rf"\1{word}layers.\2.{theirs}."
    yield r"\.fading\.", ".query_decay."
    yield r"\.(\d)\.output\.", r".\1.proj."


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
        config = to_config(kind, args, kwargs)
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
    return build.network(config, parameters, renaming(config))


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
        "klass": next(name for name, ours in KINDS.items() if ours == architecture(model.config)),
        "args": "[]",
        "kwargs": json.dumps(from_config(model.config), default=_encode_fraction),
    }
    try:
        with atomic_write(path) as partial:
            save_file(state, partial, metadata=metadata)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"cannot write {path}: {reason}") from error


def _shapes(config: NetworkConfig, count: int) -> dict[str, torch.Size]:
    """Return the shapes of the published network's parameters, of a file with so many values."""
    with torch.device("meta"):
        state = build.blank(config, count).state_dict()
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
        raise CheckpointError(class_message(build.shown(metadata["klass"])))
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
    return build.exact_fraction(value.get("numerator"), value.get("denominator"))


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
        raise CheckpointError(f"its {build.shown(name)} is no 1x1 convolution")
    return value[..., 0]
