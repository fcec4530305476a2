"""The published package's checkpoints: `.th` (a pickle) and `.safetensors`, and its bags (`.yaml`).

A file holds the arguments of the published constructor and the parameters under the published
names. This module translates both: keywords to our configurations, and names by rules. Nothing in
a file is ever executed; for pickles, `safe_pickle` sees to that.
"""

import hashlib
import io
import json
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from htdemucs.errors import CheckpointError
from htdemucs.fsutil import atomic_write
from htdemucs.model import (
    Bag,
    DemucsConfig,
    HDemucsConfig,
    HTDemucsConfig,
    Model,
    Network,
    NetworkConfig,
)
from htdemucs.model.architectures import CONFIGS, architecture, matches_config
from htdemucs.model.bag import networks
from htdemucs.model.config import OFF, ContextConfig, Seconds
from htdemucs.weights import safe_pickle
from htdemucs.weights.build import (
    build_network,
    checked_config,
    empty_network,
    exact_fraction,
    short_repr,
)
from htdemucs.weights.diffq import Quantised
from htdemucs.weights.safe_pickle import ARCHITECTURES, Contents, damaged, unknown_class


def read(path: Path) -> Network:
    """Return the network in an official file, on the CPU, in float32.

    Raises:
        CheckpointError: the file is damaged or unsafe, or of a network this package cannot run.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        read_contents = _read_safetensors if path.suffix == ".safetensors" else safe_pickle.read
        contents = read_contents(path)
        config = config_from_arguments(contents.architecture, contents.args, contents.kwargs)
        state = contents.state
        if isinstance(state, Quantised):
            state = state.parameters(_published_shapes(config, state.capacity))
        return network_from_state(config, state)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def network_from_state(config: NetworkConfig, state: Mapping[str, Any]) -> Network:
    """Return a network in evaluation mode with parameters under their published names.

    Without a transformer, published networks have unused projections to and from its width.

    Raises:
        CheckpointError: a parameter is missing, unknown, of the wrong shape, or not finite.
    """
    unused = "channel_" if isinstance(config, HTDemucsConfig) and not config.t_layers else ()
    parameters = {
        name: _from_convolution(name, value)
        for name, value in state.items()
        if not name.startswith(unused)
    }
    return build_network(config, parameters, key_mapping(config))


def write(network: Network, path: Path) -> None:
    """Write a network as the published package does, in float16 as released.

    Args:
        network: the network.
        path: of a `.th` file, which is a pickle, or a `.safetensors` file.

    Raises:
        CheckpointError: the file cannot be written, float16 cannot hold the parameters, or the
            published class has no such network.
    """
    encode = _th_bytes if path.suffix.lower() == ".th" else _safetensors_bytes
    _write_bytes(encode(network), path)


def write_bag(model: Model, path: Path) -> None:
    """Write a bag's `.yaml`, and its networks next to it as `SIGNATURE-CHECKSUM.th`.

    The published package reads them as the model `path.stem` in the repository `path.parent`. The
    signatures are made from the files' contents. A single network becomes a bag of one.

    Raises:
        CheckpointError: as `write`; or the bag lacks sources of its networks.
    """
    members = networks(model)
    fields: dict[str, Any] = {"models": []}
    if isinstance(model, Bag):
        if model.sources != members[0].sources:
            raise CheckpointError("a bag limited to some stems cannot be saved; save the whole bag")
        fields["weights"] = model.weights.tolist()
        if any(member.segment != model.segment for member in members):
            fields["segment"] = _yaml_seconds(model.segment)
    for member in members:
        content = _th_bytes(member)
        digest = hashlib.sha256(content).hexdigest()
        signature, checksum = digest[8:16], digest[:8]  # the published checksum is the beginning
        _write_bytes(content, path.parent / f"{signature}-{checksum}.th")
        fields["models"].append(signature)
    text = yaml.safe_dump(fields, sort_keys=False, default_flow_style=None)
    _write_bytes(text.encode(), path)


def _write_bytes(content: bytes, path: Path) -> None:
    try:
        with atomic_write(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error


def _yaml_seconds(seconds: Seconds) -> float:
    return int(seconds) if seconds == int(seconds) else float(seconds)


def _th_bytes(network: Network) -> bytes:
    state, buffer = _published_state(network), io.BytesIO()
    package = {
        "klass": _PublishedClass(_published_class(network)),
        "args": (),
        "kwargs": keywords_from_config(network.config),
        "state": state,
    }
    # torch pickles with the class Pickler of any module that it is given.
    module = SimpleNamespace(__name__="pickle", Pickler=_Pickler)
    torch.save(package, buffer, pickle_module=module)
    return buffer.getvalue()


@dataclass(frozen=True)
class _PublishedClass:
    """Stands for a class that a pickle names, and that this process cannot import."""

    name: str


class _Pickler(pickle._Pickler):  # the one in C imports each class that it writes
    """Writes the name of a published class without importing the published package."""

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        """Write one object."""
        if isinstance(obj, _PublishedClass):
            module, _, name = obj.name.rpartition(".")
            self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode("ascii"))  # type: ignore[attr-defined]
        else:
            super().save(obj, save_persistent_id)  # type: ignore[misc]


def _safetensors_bytes(network: Network) -> bytes:
    def encode_fraction(value: object) -> dict[str, Any]:
        if not isinstance(value, Fraction):
            raise TypeError(f"cannot write {value!r} as JSON")
        numerator, denominator = value.as_integer_ratio()
        return {"_type": "fraction", "numerator": numerator, "denominator": denominator}

    metadata = {
        "klass": _published_class(network),
        "args": "[]",
        "kwargs": json.dumps(keywords_from_config(network.config), default=encode_fraction),
    }
    return save(_published_state(network), metadata)


def _published_class(network: Network) -> str:
    return next(k for k, ours in ARCHITECTURES.items() if ours == architecture(network.config))


def _published_state(network: Network) -> dict[str, Tensor]:
    """Return a network's parameters by their published names, in float16."""
    if not matches_config(network):
        raise CheckpointError(
            "the network was changed (a layer, a hook or a method), and its published class cannot "
            "express that; undo the change first"
        )
    state, published_name = {}, key_mapping(network.config)
    for ours, value in network.state_dict().items():
        name = published_name(ours)
        half = value.detach().to("cpu", torch.float16)
        if not half.isfinite().all():
            raise CheckpointError(f"{ours} is too large for float16; convert to a folder instead")
        state[name] = _as_convolution(name, half).contiguous()
    return state


def _read_safetensors(path: Path) -> Contents:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if not {"klass", "args", "kwargs"} <= set(metadata):
            raise CheckpointError("not an official checkpoint: its metadata lacks klass or kwargs")
        if metadata["klass"] not in ARCHITECTURES:
            raise CheckpointError(unknown_class(short_repr(metadata["klass"])))
        args = json.loads(metadata["args"], object_hook=_decode_fraction)
        kwargs = json.loads(metadata["kwargs"], object_hook=_decode_fraction)
        if not isinstance(args, list) or not isinstance(kwargs, dict):
            raise CheckpointError("not an official checkpoint: its args or kwargs are damaged")
        parameters: dict[str, Any] | Quantised = state
        if "structure" in metadata:
            nested = _nested(json.loads(metadata["structure"]), state)
            parameters = Quantised(nested, nested["meta"]["klass"])
        return Contents(ARCHITECTURES[metadata["klass"]], args, kwargs, parameters)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file surfaces as almost anything
        raise CheckpointError(damaged(error)) from error


def _decode_fraction(value: dict[str, Any]) -> Any:
    if value.get("_type") != "fraction":
        return value
    return exact_fraction(value.get("numerator"), value.get("denominator"))


def _nested(node: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the value that a node of a quantised file's structure describes.

    A class becomes its name.
    """
    if not isinstance(node, dict):
        return node
    ((tag, value),) = node.items()
    if tag == "_dict":
        return {key: _nested(item, tensors) for key, item in value}
    if tag in ("_list", "_tuple"):
        return [_nested(item, tensors) for item in value]
    return tensors[value] if tag == "_tensor" else {"_class": value}[tag]


def _published_shapes(config: NetworkConfig, available: int) -> dict[str, torch.Size]:
    """Return the shapes of the published network's parameters; the file holds so many values."""
    state = empty_network(config, available).state_dict()
    published_name = key_mapping(config)
    names = {published_name(ours): value for ours, value in state.items()}
    return {name: _as_convolution(name, value).shape for name, value in names.items()}


def _as_convolution(name: str, value: Tensor) -> Tensor:
    """Turn a linear layer around the transformer into a 1x1 convolution, as published."""
    return value[..., None] if name.startswith("channel_") and value.dim() == 2 else value


def _from_convolution(name: str, value: Any) -> Any:
    if not isinstance(value, Tensor) or not name.startswith("channel_") or value.dim() != 3:
        return value
    if value.shape[-1] != 1:
        raise CheckpointError(f"its {short_repr(name)} is not a 1x1 convolution")
    return value[..., 0]


# Keywords


@dataclass(frozen=True)
class Keywords:
    """The keywords of one published constructor.

    Attributes:
        defaults: every keyword and its default, in order, because a checkpoint may pass them by
            position.
        fields: keyword -> field of our configuration with the same meaning.
        inert: keywords without effect on a trained network whose other keywords are all supported:
            settings of features that are off, of the initial values, or of the optimiser. They are
            not compared with the defaults, because released checkpoints have others (a sparse
            attention window of 400, for one).
        harmless: keywords that may differ from the default as long as the feature stays off; the
            function takes the value and all values.
    """

    defaults: Mapping[str, Any]
    fields: Mapping[str, str]
    inert: frozenset[str]
    harmless: Mapping[str, Callable[[Any, Mapping[str, Any]], bool]]


_OUR_NAMES = {"nfft": "n_fft", "samplerate": "sample_rate"}
_SCALARS = (type(None), bool, int, float, str, Fraction)
SAME = object()  # stands for the default of the field in our configuration


def _keywords(
    name: str,
    defaults: Mapping[str, Any],
    inert: Sequence[str] = (),
    harmless: Mapping[str, Callable[[Any, Mapping[str, Any]], bool]] | None = None,
) -> Keywords:
    known = CONFIGS[name].__dataclass_fields__
    names = {keyword: _OUR_NAMES.get(keyword, keyword) for keyword in defaults}
    fields = {keyword: field for keyword, field in names.items() if field in known}
    filled = {k: known[names[k]].default if v is SAME else v for k, v in defaults.items()}
    return Keywords(filled, fields, frozenset(inert), harmless or {})


KEYWORDS = {
    "HTDemucs": _keywords(
        "HTDemucs",
        {
            "sources": None,
            "audio_channels": SAME,
            "channels": SAME,
            "channels_time": None,
            "growth": SAME,
            "nfft": SAME,
            "wiener_iters": 0,
            "end_iters": 0,
            "wiener_residual": False,
            "cac": True,
            "depth": SAME,
            "rewrite": True,
            "multi_freqs": None,
            "multi_freqs_depth": 3,
            "freq_emb": SAME,
            "emb_scale": SAME,
            "emb_smooth": True,
            "kernel_size": 8,
            "time_stride": 2,
            "stride": 4,
            "context": 1,
            "context_enc": 0,
            "norm_starts": 4,
            "norm_groups": 4,
            "dconv_mode": 1,
            "dconv_depth": SAME,
            "dconv_comp": SAME,
            "dconv_init": SAME,
            "bottom_channels": 0,
            "t_layers": SAME,
            "t_emb": "sin",
            "t_hidden_scale": SAME,
            "t_heads": SAME,
            "t_dropout": SAME,
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
            "rescale": SAME,
            "samplerate": SAME,
            "segment": 10,
            "use_train_segment": True,
        },
        inert=(
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
            "use_train_segment",  # the engine pads segments, or gives them more context
        ),
        harmless={
            "channels_time": lambda value, values: not value or value == values["channels"],
            "multi_freqs": lambda value, _: not value,
            "norm_starts": lambda value, values: bool(value >= values["depth"]),
        },
    ),
    "HDemucs": _keywords(
        "HDemucs",
        {
            "sources": None,
            "audio_channels": SAME,
            "channels": SAME,
            "channels_time": None,
            "growth": SAME,
            "nfft": SAME,
            "wiener_iters": 0,
            "end_iters": 0,
            "wiener_residual": False,
            "cac": SAME,
            "depth": SAME,
            "rewrite": True,
            "hybrid": True,
            "hybrid_old": SAME,
            "multi_freqs": None,
            "multi_freqs_depth": 2,
            "freq_emb": SAME,
            "emb_scale": SAME,
            "emb_smooth": True,
            "kernel_size": 8,
            "time_stride": 2,
            "stride": 4,
            "context": 1,
            "context_enc": 0,
            "norm_starts": SAME,
            "norm_groups": SAME,
            "dconv_mode": SAME,
            "dconv_depth": SAME,
            "dconv_comp": SAME,
            "dconv_attn": SAME,
            "dconv_lstm": SAME,
            "dconv_init": 1e-4,
            "rescale": SAME,
            "samplerate": SAME,
            "segment": 40,
        },
        inert=("emb_smooth", "wiener_residual"),  # the latter adds up to nothing
        harmless={
            "channels_time": lambda value, values: not value or value == values["channels"],
            "wiener_iters": lambda value, values: value == 0 or bool(values["cac"]),
            "end_iters": lambda value, values: value == 0 or bool(values["cac"]),
        },
    ),
    "Demucs": _keywords(
        "Demucs",
        {
            "sources": None,
            "audio_channels": SAME,
            "channels": SAME,
            "growth": SAME,
            "depth": SAME,
            "rewrite": True,
            "lstm_layers": 0,
            "kernel_size": 8,
            "stride": 4,
            "context": 1,
            "gelu": True,
            "glu": True,
            "norm_starts": SAME,
            "norm_groups": SAME,
            "dconv_mode": SAME,
            "dconv_depth": SAME,
            "dconv_comp": SAME,
            "dconv_attn": SAME,
            "dconv_lstm": SAME,
            "dconv_init": SAME,
            "normalize": SAME,
            "resample": True,
            "rescale": SAME,
            "samplerate": SAME,
            "segment": 40,
        },
    ),
}


def config_from_arguments(
    architecture: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> NetworkConfig:
    """Return the configuration that a checkpoint's constructor arguments describe.

    Raises:
        CheckpointError: a keyword asks for a feature that this network lacks; the message names it.
    """
    keywords = KEYWORDS[architecture]
    if len(args) > len(keywords.defaults):
        raise CheckpointError(
            f"the checkpoint passes {len(args)} arguments, too many to be genuine"
        )
    by_position = dict(zip(keywords.defaults, args, strict=False))
    if twice := sorted(by_position.keys() & kwargs.keys()):
        raise CheckpointError(f"the checkpoint passes {twice[0]} twice; download it again")
    arguments = {name: _simple(value) for name, value in (by_position | dict(kwargs)).items()}
    values = {**keywords.defaults, **arguments}
    for name in arguments:
        if not _is_supported(keywords, name, values):
            raise CheckpointError(
                f"the checkpoint sets {short_repr(name)}={short_repr(values[name])}, which "
                f"no released {architecture} has and this package cannot run"
            )
    fields = {field: _whole(values[name]) for name, field in keywords.fields.items()}
    for name, off in OFF.items():  # the published package takes any false value, such as None
        if name in fields:
            fields[name] = fields[name] or off
    return checked_config(architecture, fields)


def keywords_from_config(config: NetworkConfig) -> dict[str, Any]:
    """Return the published constructor's keywords for this configuration."""
    keywords = KEYWORDS[architecture(config)]
    values = {name: getattr(config, field) for name, field in keywords.fields.items()}
    if "norm_starts" not in keywords.fields and "norm_starts" in keywords.defaults:
        values["norm_starts"] = max(4, config.depth)
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def _is_supported(keywords: Keywords, name: str, values: Mapping[str, Any]) -> bool:
    if name in keywords.fields or name in keywords.inert:
        return True
    value = values[name]
    if name not in keywords.defaults:
        return value in (None, False, 0, "", [], {}, ())  # an unknown feature, switched off
    if name in keywords.harmless:
        try:
            return keywords.harmless[name](value, values)
        except TypeError:
            return False
    default = keywords.defaults[name]
    return bool(value == default) or not (value or default)


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


# Names of parameters

# Regular expressions for our names -> the published names, applied one after another
Rules = Iterable[tuple[str, str]]

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


def key_mapping(config: NetworkConfig) -> Callable[[str], str]:
    """Return the function that maps a parameter's name to its published name."""
    if isinstance(config, HDemucsConfig):
        rules = _hdemucs_keys(config)
    elif isinstance(config, DemucsConfig):
        rules = _demucs_keys(config)
    else:
        rules = _HTDEMUCS_KEYS
    # Last, because the rules for DConvs need the published numbers of the layers around them.
    rules = (*rules, *_dconv_keys(config))
    compiled = [(re.compile(ours), theirs) for ours, theirs in rules]

    def published_name(name: str) -> str:
        for ours, theirs in compiled:
            name = ours.sub(theirs, name)
        return name

    return published_name


def _hdemucs_keys(config: HDemucsConfig) -> Rules:
    """The published encoders and decoders include merge and split; their norms have numbers."""
    outer, inner = config.outer_depth, config.depth - config.outer_depth - 1
    return (
        (r"^merge_layer\.time_conv\.", f"tencoder.{outer}.conv."),
        (r"^split_layer\.time_conv_transpose\.", "tdecoder.0.conv_tr."),
        (r"^split_layer\.time_norm\.", "tdecoder.0.norm2."),
        *((rf"^joint_encoder\.{i}\.", f"encoder.{outer + 1 + i}.") for i in range(inner)),
        *((rf"^joint_decoder\.{i}\.", f"decoder.{i}.") for i in range(inner)),
        (r"^merge_layer\.", f"encoder.{outer}."),
        (r"^split_layer\.", f"decoder.{inner}."),
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


def _demucs_keys(config: DemucsConfig) -> Iterator[tuple[str, str]]:
    """The published layers are sequences, whose modules have numbers instead of names."""
    decoder_dconv = ["dconv"] if config.dconv_mode == 3 else []
    layers = {
        "encoder": ["conv", "norm", "gelu", "dconv", "rewrite", "rewrite_norm", "glu"],
        "decoder": ["rewrite", "rewrite_norm", "glu", *decoder_dconv, "conv_transpose", "norm"],
    }
    for side, modules in layers.items():
        for i, ours in enumerate(modules):
            theirs = f"{i}.dconv" if ours == "dconv" else i
            yield rf"^({side}\.\d+)\.{ours}\.", rf"\1.{theirs}."


def _dconv_keys(config: NetworkConfig) -> Iterator[tuple[str, str]]:
    """The published DConvs are sequences, longer by an LSTM and attention in inner layers."""
    # The number of the outermost layer; decoders begin with the innermost one.
    outermost = {"encoder": 0, "tencoder": 0, "decoder": config.depth - 1}
    outermost["tdecoder"] = config.outer_depth if isinstance(config, HDemucsConfig) else 0
    dconv = "" if isinstance(config, DemucsConfig) else "dconv."
    for side, number in product(outermost, range(config.depth)):
        depth = abs(outermost[side] - number)
        context = []
        if isinstance(config, ContextConfig):
            context += ["context.lstm"] if depth >= config.dconv_lstm else []
            context += ["context.attention"] if depth >= config.dconv_attn else []
        modules = [
            "squeeze", "squeeze_norm", "gelu", *context,
            "expand", "expand_norm", "glu", "layer_scale",
        ]  # fmt: skip
        for i, module in enumerate(modules):
            ours = rf"^({side}\.{number}\..*?)dconv\.(\d+)\.{re.escape(module)}\."
            yield ours, rf"\1{dconv}layers.\2.{i}."
    yield r"\.fading\.", ".query_decay."
    yield r"\.(\d)\.output\.", r".\1.proj."
