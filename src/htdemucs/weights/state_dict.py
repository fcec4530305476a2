"""Checkpoints that hold parameters only: of Music-Source-Separation-Training and of torchaudio.

Those of Music-Source-Separation-Training (MSST) belong to a yaml file, which describes the network
and names its sources. Those of torchaudio's HDemucs (`hdemucs_high`) have the same four sources.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file
from torch import Tensor

from htdemucs.errors import CheckpointError
from htdemucs.model import HDemucsConfig, Network, NetworkConfig
from htdemucs.model.config import STRIDE
from htdemucs.weights import demucs_format, safe_pickle
from htdemucs.weights.build import checked_config, short_repr
from htdemucs.weights.demucs_format import config_from_arguments, network_from_state
from htdemucs.weights.safe_pickle import damaged, unknown_class

SUFFIXES = (".ckpt", ".chpt", ".pt", ".pth")
CONFIG_SUFFIXES = (".yaml", ".yml")
_EXPONENT = re.compile(r"[-+]?\d{1,9}(\.\d{0,9})?[eE][-+]?\d{1,2}", re.ASCII)
_ARCHITECTURES = {"htdemucs": "HTDemucs", "hdemucs": "HDemucs", "demucs": "Demucs"}

# Networks that cannot be run, by settings that only their yaml files have...
_OTHERS_BY_SETTING = {
    "freqs_per_bands": "a BS-RoFormer",
    "num_bands": "a Mel-Band RoFormer",
    "band_SR": "an SCNet",
    "bandsplit_ratios": "an SCNet",
    "bottleneck_factor": "an MDX23C",
    "band_specs": "a BandIt",
    "feature_dim": "an Apollo or a BS-Mamba2",
    "encoder_name": "of Segmentation Models",
}
# ... and by names of parameters that only they have.
_OTHERS_BY_PARAMETER = {
    "band_split.to_features.": "a BS-RoFormer or Mel-Band RoFormer",
    "separation_net.": "an SCNet",
    "encoder_blocks.": "an MDX23C",
    "band_split.norm_fc_modules.": "a BandIt",
    "stg1_low_band_net.": "a VR network",
    "mask_generator.": "a Conv-TasNet",
}

# torchaudio's names -> the published names.
_TORCHAUDIO = {
    "freq_encoder": "encoder",
    "freq_decoder": "decoder",
    "time_encoder": "tencoder",
    "time_decoder": "tdecoder",
}


def read(path: Path, config: Path | None = None) -> Network:
    """Return the network in a checkpoint, in evaluation mode, on the CPU, in float32.

    Args:
        path: the checkpoint: parameters only, or an official one.
        config: the yaml file of MSST that describes the network.

    Raises:
        CheckpointError: a file is missing, damaged or unsafe, or of a network that this package
            cannot run.
    """
    try:
        path.open("rb").close()
        if path.suffix == ".safetensors":
            state, official = _read_safetensors(path), False
        else:
            state, official = safe_pickle.read_state(path)
        if official and config is None:
            return demucs_format.read(path)
        if any(name.startswith("freq_encoder.") for name in state):
            torchaudio = _torchaudio_config(state)
            return network_from_state(torchaudio, _from_torchaudio(state, torchaudio))
        for start, network in _OTHERS_BY_PARAMETER.items():
            if any(name.startswith(start) for name in state):
                raise CheckpointError(unknown_class(network))
        if config is None:
            raise CheckpointError(
                "it does not describe its network; put the yaml file that belongs to it next to it "
                f"as {path.stem}.yaml, or give it as the configuration"
            )
        return network_from_state(read_config(config), state)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except CheckpointError as error:
        text = str(error)
        raise CheckpointError(text if text.startswith(str(path)) else f"{path}: {text}") from error


def config_of(path: Path) -> Path | None:
    """Return the yaml file next to a checkpoint with the same name; None if it does not exist."""
    if path.suffix not in SUFFIXES:
        return None
    candidates = [path.with_suffix(suffix) for suffix in CONFIG_SUFFIXES]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def read_config(path: Path) -> NetworkConfig:
    """Return the configuration of the network that a yaml file of MSST describes.

    Raises:
        CheckpointError: the file cannot be read, or its network cannot be run.
    """
    fields = read_yaml(path)
    if not is_config(fields):
        raise CheckpointError(
            f"{path} is not a yaml file of Music-Source-Separation-Training: it must have model "
            "and training"
        )
    model, training = fields["model"], fields["training"]
    if isinstance(model, dict):
        other = next(
            (o for key, o in _OTHERS_BY_SETTING.items() if key in model), "of another kind"
        )
        raise CheckpointError(f"{path}: {unknown_class(other)}")
    if not isinstance(model, str) or model not in _ARCHITECTURES:
        raise CheckpointError(f"{path}: {unknown_class(short_repr(model))}")
    keywords = fields.get(model) or {}
    if not isinstance(keywords, dict) or not all(isinstance(name, str) for name in keywords):
        raise CheckpointError(f"{path}: its {model} must be a table of settings")
    keywords = {name: _number(value) for name, value in keywords.items()}
    if keywords.get("num_subbands") == 1:  # MSST's own keyword; 1 is the published network
        del keywords["num_subbands"]
    names = {"instruments": "sources", "channels": "audio_channels"}
    for name in ("instruments", "channels", "samplerate", "segment"):
        if name not in training:
            raise CheckpointError(f"{path}: its training lacks {name}")
        keywords[names.get(name, name)] = training[name]
    try:
        return config_from_arguments(_ARCHITECTURES[model], (), keywords)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def read_yaml(path: Path) -> Any:
    """Return the contents of a yaml file; tuples of Python become lists.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a readable yaml file") from error


def is_config(fields: object) -> bool:
    """Whether the contents of a yaml file are those of a configuration of MSST."""
    if not isinstance(fields, dict):
        return False
    return "model" in fields and isinstance(fields.get("training"), dict)


def _torchaudio_config(state: Mapping[str, Any]) -> HDemucsConfig:
    """Return the configuration of torchaudio's HDemucs with these parameters."""
    conv = state.get("freq_encoder.0.conv.weight")
    table = state.get("freq_emb.embedding.weight")
    if not isinstance(conv, Tensor) or not isinstance(table, Tensor):
        raise CheckpointError("it is not one of torchaudio's HDemucs with a frequency embedding")
    layers = {name.split(".")[1] for name in state if name.startswith("freq_encoder.")}
    n_fft = 2 * STRIDE * len(table)  # the table has a row for each bin after the first layer
    fields = {"channels": len(conv), "n_fft": n_fft, "depth": len(layers)}
    config = checked_config("HDemucs", fields)
    assert isinstance(config, HDemucsConfig)
    return config


def _from_torchaudio(state: Mapping[str, Any], config: HDemucsConfig) -> dict[str, Any]:
    """Return torchaudio's state dict by the published names.

    The time encoder's last layer has a norm there that nothing uses.
    """
    unused = f"time_encoder.{config.outer_depth}.norm1."
    published = {}
    for name, value in state.items():
        first, dot, rest = name.partition(".")
        if not name.startswith(unused):
            published[_TORCHAUDIO.get(first, first) + dot + rest] = value
    return published


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        return dict(load_file(path))
    except Exception as error:  # a damaged file surfaces as almost anything
        raise CheckpointError(damaged(error)) from error


def _number(value: Any) -> Any:
    """Return a string such as 1e-3 as a number: MSST's yaml parser takes it for one, PyYAML not."""
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


class _Loader(yaml.SafeLoader):
    """Reads the tuples of Python in MSST's yaml files, and creates no other object."""


_Loader.add_constructor(
    "tag:yaml.org,2002:python/tuple",
    _Loader.construct_yaml_seq,  # type: ignore[type-var]
)
