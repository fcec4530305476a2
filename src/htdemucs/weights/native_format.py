"""Our own format: a folder with `config.json`, `model.safetensors` and perhaps a card, `README.md`.

This is the layout of a repository on the hub.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from htdemucs.errors import CheckpointError, ConfigError, is_out_of_memory
from htdemucs.fsutil import atomic_write
from htdemucs.model import Bag, Model, NetworkConfig
from htdemucs.model.architectures import architecture
from htdemucs.model.bag import networks
from htdemucs.model.config import Seconds, exact_seconds, json_seconds
from htdemucs.weights.build import (
    build_network,
    checked_config,
    exact_fraction,
    is_weight_table,
    short_repr,
)

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
FORMAT_VERSION = 1
DEFAULT_ARCHITECTURE = "HTDemucs"  # of members that name none


@dataclass(frozen=True)
class ModelConfig:
    """The contents of `config.json`."""

    members: list[NetworkConfig]
    weights: list[list[float]] | None  # of the members in a bag; None for a single network
    segment: Seconds | None  # of a bag


def save_model(model: Model, folder: str | Path) -> None:
    """Write a network or a bag to a folder. It replaces an earlier model; the two are never mixed.

    Each parameter is stored in float16 if that is exact (released checkpoints are float16), else
    in float32.

    Raises:
        CheckpointError: the folder cannot be written, or the bag lacks sources of its members.
    """
    folder = Path(folder)
    members = networks(model)
    config: dict[str, Any] = {"format": "htdemucs", "version": FORMAT_VERSION}
    # As in other repositories of the hub; this package does not read these two.
    name = type(model).__name__ if isinstance(model, Bag) else architecture(model.config)
    config |= {"architectures": [name], "model_type": name.lower()}
    if isinstance(model, Bag):
        if model.sources != members[0].sources:
            raise CheckpointError("a bag limited to some stems cannot be saved; save the whole bag")
        config |= {"weights": model.weights.tolist(), "segment": json_seconds(model.segment)}
    config["members"] = [
        {"architecture": architecture(member.config)} | member.config.to_dict()
        for member in members
    ]
    state = {
        f"members.{i}.{name}": _smallest(value.detach().cpu())
        for i, member in enumerate(members)
        for name, value in member.state_dict().items()
    }
    path = folder / CONFIG_FILE
    try:
        with (
            atomic_write(path) as config_partial,
            atomic_write(folder / WEIGHTS_FILE) as weights_partial,
        ):
            # Not save_file: it makes files that only their owner can read.
            weights_partial.write_bytes(save(state, metadata={"format": "pt"}))
            config_partial.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            if path.exists() and path.read_bytes() != config_partial.read_bytes():
                path.unlink()  # without it the folder is not a model until both files are replaced
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"cannot write {folder}: {reason}") from error


def _smallest(value: Tensor) -> Tensor:
    half = value.to(torch.float16)
    lossless = torch.equal(half.float(), value.float())
    return (half if lossless else value.to(torch.float32, copy=True)).contiguous()


def is_model_folder(path: Path) -> bool:
    """Whether `path` is a folder in our format."""
    return (path / CONFIG_FILE).is_file()


def read(folder: Path) -> Model:
    """Return the network or bag in a folder, on the CPU, in float32.

    Raises:
        CheckpointError: a file is missing or damaged, or does not fit the other one.
    """
    config = read_config(folder)
    path = folder / WEIGHTS_FILE
    try:
        state = load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{folder} has no {WEIGHTS_FILE}; copy it there") from None
    except Exception as error:  # a damaged file surfaces as almost anything
        if is_out_of_memory(error):
            raise
        raise CheckpointError(f"{path} is damaged or incomplete; copy it there again") from error
    try:
        parameters: list[dict[str, Tensor]] = [{} for _ in config.members]
        for name, value in state.items():
            member = re.match(r"members\.(\d{1,6})\.", name, re.ASCII)
            if not member or int(member[1]) >= len(parameters):
                raise CheckpointError(f"it has an unknown parameter: {short_repr(name)}")
            parameters[int(member[1])][name] = value
        members = [
            build_network(member, parameters[i], f"members.{i}.{{}}".format)
            for i, member in enumerate(config.members)
        ]
        if config.weights is None:
            return members[0]
        return Bag(members, config.weights, config.segment).eval()
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def read_config(folder: Path) -> ModelConfig:
    """Return what `config.json` describes.

    Raises:
        CheckpointError: the file is missing or damaged, or describes an impossible network.
    """
    path = folder / CONFIG_FILE
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path} is not valid JSON; copy it there again") from None
    if not isinstance(fields, dict) or fields.get("format") != "htdemucs":
        raise CheckpointError(f"{path} does not describe an htdemucs model")
    if fields.get("version") != FORMAT_VERSION:
        raise CheckpointError(f"{path} is of another version; update htdemucs to read it")
    members, weights = fields.get("members"), fields.get("weights")
    if not isinstance(members, list) or not members or (len(members) > 1 and weights is None):
        raise CheckpointError(f"{path} must list its members and, if there are several, weights")
    if weights is not None and not is_weight_table(weights):
        raise CheckpointError(f"{path}: its weights must be a list of numbers for each member")
    try:
        configs = [_member_config(member) for member in members]
        segment = _seconds(fields["segment"]) if "segment" in fields else None
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    return ModelConfig(configs, weights, segment)


def _member_config(fields: Any) -> NetworkConfig:
    if not isinstance(fields, dict):
        raise CheckpointError(f"each member must be a JSON object, not {short_repr(fields)}")
    fields = dict(fields)
    if "segment" in fields:
        fields["segment"] = _seconds(fields["segment"])
    return checked_config(fields.pop("architecture", DEFAULT_ARCHITECTURE), fields)


def _seconds(value: Any) -> Seconds:
    return exact_seconds(value if type(value) is float else exact_fraction(value))


def stated_license(card: str) -> str | None:
    """Return the licence in the metadata of a model card; None if the card states none."""
    metadata = re.match(r"---\r?\n(.*?)\r?\n---", card, re.DOTALL)
    try:
        fields = yaml.safe_load(metadata[1]) if metadata else None
    except yaml.YAMLError:
        return None
    licence = fields.get("license") if isinstance(fields, dict) else None
    return licence if isinstance(licence, str) and licence else None
