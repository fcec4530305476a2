"""Our own format: a folder with `config.json` and `model.safetensors`, the hub's layout."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from htdemucs.errors import CheckpointError, ConfigError
from htdemucs.files import replacing
from htdemucs.model import Bag, HTDemucs, HTDemucsConfig, Model

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class _Description:
    """What `config.json` says: one configuration a member, and how members are weighed."""

    members: list[HTDemucsConfig]
    weights: list[list[float]] | None  # None where the folder holds a single network, no bag


def save_model(model: Model, folder: str | Path) -> None:
    """Write a network or a bag. Each file appears whole or not at all.

    Parameters are stored in float16 where that loses nothing (released checkpoints are float16),
    else in float32.

    Raises:
        CheckpointError: the folder cannot be written, or the bag is a part of another.
    """
    folder = Path(folder)
    networks = list(model.members) if isinstance(model, Bag) else [model]
    config: dict[str, Any] = {"format": "htdemucs", "version": FORMAT_VERSION}
    if isinstance(model, Bag):
        if model.sources != networks[0].sources:
            raise CheckpointError("a bag limited to some sources cannot be saved; save the whole")
        config["weights"] = model.weights.tolist()
    config["members"] = [network.config.to_dict() for network in networks]
    state = {
        f"members.{i}.{name}": _smallest(value.detach().cpu())
        for i, network in enumerate(networks)
        for name, value in network.state_dict().items()
    }
    try:
        with replacing(folder / WEIGHTS_FILE) as partial:
            save_file(state, partial, metadata={"format": "pt"})
        with replacing(folder / CONFIG_FILE) as partial:
            partial.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"cannot write {folder}: {error.strerror or error}") from error


def load_folder(folder: Path) -> Model:
    """The network or bag in a folder, on the CPU, as float32.

    Raises:
        CheckpointError: a file is missing, damaged, or does not fit the other.
    """
    description = _read_config(folder / CONFIG_FILE)
    try:
        state = load_file(folder / WEIGHTS_FILE)
    except FileNotFoundError:
        raise CheckpointError(f"{folder} has no {WEIGHTS_FILE}") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder / WEIGHTS_FILE} is damaged or incomplete") from error
    members = [HTDemucs(config).eval() for config in description.members]
    expected = {
        f"members.{i}.{name}": value
        for i, member in enumerate(members)
        for name, value in member.state_dict().items()
    }
    for name in sorted(expected.keys() ^ state.keys()):
        problem = "lacks" if name in expected else "has unknown"
        raise CheckpointError(f"{folder / WEIGHTS_FILE} {problem} parameter {name}")
    for name, value in expected.items():
        if value.shape != state[name].shape:
            raise CheckpointError(f"{folder / WEIGHTS_FILE}: {name} has the wrong shape")
        value.copy_(state[name])
    if description.weights is None:
        return members[0]
    try:
        return Bag(members, description.weights).eval()
    except ConfigError as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: {error}") from error


def is_model_folder(path: Path) -> bool:
    """Whether `path` looks like a folder of ours."""
    return (path / CONFIG_FILE).is_file()


def _read_config(path: Path) -> _Description:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path} is not valid JSON") from None
    if not isinstance(fields, dict) or fields.get("format") != "htdemucs":
        raise CheckpointError(f"{path} does not describe an htdemucs model")
    if fields.get("version") != FORMAT_VERSION:
        raise CheckpointError(f"{path} is of another version; update htdemucs to read it")
    members, weights = fields.get("members"), fields.get("weights")
    if not isinstance(members, list) or not members or (len(members) > 1 and weights is None):
        raise CheckpointError(f"{path} must list its members, and weights where there are several")
    try:
        return _Description([HTDemucsConfig.from_dict(member) for member in members], weights)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def _smallest(value: Tensor) -> Tensor:
    half = value.to(torch.float16)
    return (half if torch.equal(half.float(), value.float()) else value.float()).contiguous()
