"""Our own format: a folder with `config.json` and `model.safetensors`, the hub's layout."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from htdemucs.errors import CheckpointError, ConfigError
from htdemucs.fsutil import atomic_write
from htdemucs.model import Bag, Model, NetworkConfig
from htdemucs.model.config import Seconds, exact_seconds, json_seconds
from htdemucs.model.registry import architecture
from htdemucs.weights import build

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
FORMAT_VERSION = 1
FIRST_KIND = "HTDemucs"  # of members that name none: folders of the first version have no other


@dataclass(frozen=True)
class _Description:
    """The contents of `config.json`: the members' configurations, and their weights in the bag."""

    members: list[NetworkConfig]
    weights: list[list[float]] | None  # None for a single network, which is no bag
    segment: Seconds | None  # only a bag has it


def save_model(model: Model, folder: str | Path) -> None:
    """Write a network or a bag to a folder. It replaces an earlier model; the two are never mixed.

    Each parameter is stored in float16 if that is exact (released checkpoints are float16), else
    in float32.

    Raises:
        CheckpointError: the folder cannot be written, or the bag lacks sources of its members.
    """
    folder = Path(folder)
    networks = list(model.members) if isinstance(model, Bag) else [model]
    config: dict[str, Any] = {"format": "htdemucs", "version": FORMAT_VERSION}
    if isinstance(model, Bag):
        if model.sources != networks[0].sources:
            raise CheckpointError("a bag limited to some stems cannot be saved; save the whole bag")
        config |= {"weights": model.weights.tolist(), "segment": json_seconds(model.segment)}
    config["members"] = [
        {"kind": architecture(network.config)} | network.config.to_dict() for network in networks
    ]
    state = {
        f"members.{i}.{name}": _smallest(value.detach().cpu())
        for i, network in enumerate(networks)
        for name, value in network.state_dict().items()
    }
    try:
        _write(folder, json.dumps(config, indent=2) + "\n", state)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"cannot write {folder}: {reason}") from error


def load_folder(folder: Path) -> Model:
    """Return the network or bag in a folder, on the CPU, in float32.

    Raises:
        CheckpointError: a file is missing or damaged, or does not fit the other one.
    """
    description = _read_config(folder / CONFIG_FILE)
    path = folder / WEIGHTS_FILE
    try:
        state = load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{folder} has no {WEIGHTS_FILE}; copy it there") from None
    except Exception as error:  # a damaged file surfaces as almost anything
        raise CheckpointError(f"{path} is damaged or incomplete; copy it there again") from error
    try:
        return _model(description, state)
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def is_model_folder(path: Path) -> bool:
    """Whether `path` is a folder in our format."""
    return (path / CONFIG_FILE).is_file()


def _write(folder: Path, config: str, state: dict[str, Tensor]) -> None:
    """Write both files. Weights never lie beside the configuration of another model."""
    path = folder / CONFIG_FILE
    with (
        atomic_write(path) as config_partial,
        atomic_write(folder / WEIGHTS_FILE) as weights_partial,
    ):
        # Not save_file: it makes files that only their owner can read.
        weights_partial.write_bytes(save(state, metadata={"format": "pt"}))
        config_partial.write_text(config, encoding="utf-8")
        if path.exists() and path.read_bytes() != config_partial.read_bytes():
            path.unlink()  # until both files are replaced, this is no model folder


def _model(description: _Description, state: dict[str, Tensor]) -> Model:
    parameters: list[dict[str, Tensor]] = [{} for _ in description.members]
    for name, value in state.items():
        member = re.match(r"members\.(\d{1,6})\.", name, re.ASCII)
        if not member or int(member[1]) >= len(parameters):
            raise CheckpointError(f"it has an unknown parameter: {build.shown(name)}")
        parameters[int(member[1])][name] = value
    members = [
        build.network(config, parameters[i], f"members.{i}.{{}}".format)
        for i, config in enumerate(description.members)
    ]
    if description.weights is None:
        return members[0]
    return Bag(members, description.weights, description.segment).eval()


def _read_config(path: Path) -> _Description:
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
    if weights is not None and not build.are_weights(weights):
        raise CheckpointError(f"{path}: its weights must be a list of numbers for each member")
    try:
        configs = [_member_config(member) for member in members]
        segment = _seconds(fields["segment"]) if "segment" in fields else None
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    return _Description(configs, weights, segment)


def _member_config(fields: Any) -> NetworkConfig:
    if not isinstance(fields, dict):
        raise CheckpointError(f"each member must be a JSON object, not {build.shown(fields)}")
    fields = dict(fields)
    if "segment" in fields:
        fields["segment"] = _seconds(fields["segment"])
    return build.configuration(fields.pop("kind", FIRST_KIND), fields)


def _seconds(value: Any) -> Seconds:
    return exact_seconds(value if type(value) is float else build.exact_fraction(value))


def _smallest(value: Tensor) -> Tensor:
    half = value.to(torch.float16)
    lossless = torch.equal(half.float(), value.float())
    return (half if lossless else value.to(torch.float32, copy=True)).contiguous()
