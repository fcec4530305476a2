"""Load a model by any name or path, ready to run.

MERGED: The models that have names, as far as they are known without a download.
"""

import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from htdemucs.devices import choose_device
from htdemucs.environment import CheckpointFiles, checksum
from htdemucs.errors import CheckpointError, ConfigError, ModelNotFoundError
from htdemucs.events import EventCallback, Loaded, Loading, ignore_events
from htdemucs.model import Bag, Model, Network, NetworkConfig, build
from htdemucs.model.bag import needed_members, networks
from htdemucs.weights import demucs_format, native_format, registry
from htdemucs.weights.registry import (
    SHIPPED_MODEL,
    License,
    cached_members,
    official_config,
    official_models,
    shipped_folder,
    shipped_license,
)

LOG = logging.getLogger(__name__)


def load_model(
    name_or_path: str | Path = registry.DEFAULT_MODEL,
    *,
    repo: str | Path | None = None,
    device: str | torch.device | None = None,
    cache_dir: str | Path | None = None,
    stems: Sequence[str] | None = None,
    on_progress: EventCallback | None = None,
) -> Model:
    """Return a model in evaluation mode. Its `origin` names the files it was read from.

    Nothing in a file is ever executed.

    Args:
        name_or_path: `htdemucs`, `htdemucs_ft`, `htdemucs_6s`; `mini`, which comes with this
            package; an official signature such as `955717e8`; `hf://namespace/name`; or a path to
            an official `.th` or `.safetensors`, a bag's `.yaml`, or a folder written by
            `save_model`.
        repo: look for the name only in this folder, among its `.th`, `.safetensors` and `.yaml`
            files.
        device: the device for the model; by default a GPU if there is one, else the CPU.
        cache_dir: the folder for downloads; by default the usual caches.
        stems: limit a bag to these stems; networks that they do not need are neither downloaded
            nor read.
        on_progress: called with the events (`htdemucs.events`) Loading, Downloading and Loaded;
            without it downloads show the hub's own progress bars.

    Raises:
        ModelNotFoundError: nothing has that name.
        DownloadError: the model is not on this machine and cannot be downloaded.
        CheckpointError: a file is damaged, unsafe, or of a network this package cannot run.
        ConfigError: this machine has no such device.
    """
    place = choose_device(device)
    name, access = str(name_or_path), registry.HubOptions(_path(cache_dir))
    tell = on_progress or ignore_events
    tell(Loading(name))
    with registry.report_downloads_to(on_progress):
        model = read_model(name, access, repo=_path(repo), stems=stems).to(place)
    tell(Loaded(name, str(place)))
    return model


def read_model(
    name: str,
    access: registry.HubOptions,
    *,
    repo: Path | None = None,
    stems: Sequence[str] | None = None,
) -> Model:
    """Return a model on the CPU; the arguments and errors are those of `load_model`."""
    files = registry.locate(name, repo, access, stems)
    first = read_member(files.members[0], name)
    if isinstance(first, Bag):
        return first
    if len(files.members) == 1 and files.weights is None and files.segment is None:
        return first
    try:
        return _bag(first, files, name, stems).eval()
    except ConfigError as error:
        raise CheckpointError(f"{name}: {error}") from error


def _path(path: str | Path | None) -> Path | None:
    return Path(path) if path else None


def _bag(first: Network, files: registry.ModelFiles, name: str, stems: Sequence[str] | None) -> Bag:
    """Return a bag of `first`, its first member, and of the other members that the stems need."""
    paths, rows = list(files.members), files.weights
    if not stems or not set(stems) <= set(first.sources):
        stems = None  # the caller refuses unknown stems
    elif rows and [len(row) for row in rows] == [len(first.sources)] * len(paths):
        needed = needed_members(rows, [first.sources.index(stem) for stem in stems])
        paths, rows = [paths[i] for i in needed], [rows[i] for i in needed]
    members = {
        path: first if path == files.members[0] else read_member(path, name)
        for path in dict.fromkeys(paths)
    }
    return Bag([members[path] for path in paths], rows, files.segment, stems)  # type: ignore[misc]


def read_member(path: Path, name: str) -> Model:
    """Read the network in an official file, or the network or bag in a folder in our format.

    Args:
        path: the file or folder.
        name: the model's name, for its `origin`.

    Raises:
        CheckpointError: the file or folder is damaged or unsafe, or is no model.
    """
    if not path.is_dir():
        model: Model = demucs_format.read(path)
        files: tuple[Path, ...] = (path,)
    elif native_format.is_model_folder(path):
        model = native_format.load_folder(path)
        files = (path / native_format.CONFIG_FILE, path / native_format.WEIGHTS_FILE)
    else:
        raise CheckpointError(
            f"{path} has no config.json; for a model inside it, pass the folder as the repo"
        )
    for path in files:
        LOG.debug("read %s", path)
    for number, network in enumerate(networks(model)):
        network.origin = CheckpointFiles(name, files, number, checksum(network))
    return model


def is_as_read(network: Network) -> bool:
    """Whether a network was read from files, and nobody has changed its parameters since."""
    return network.origin is not None and network.origin.checksum == checksum(network)


def read_again(members: Sequence[Network]) -> list[Network]:
    """Return networks like these, on the CPU, from the files that these were read from.

    Raises:
        CheckpointError: a file is gone or damaged, or has changed since.
    """
    found: dict[tuple[Path, ...], list[Network]] = {}
    again = []
    for origin in (member.origin for member in members):
        assert origin is not None
        if origin.files not in found:
            path = origin.files[0]
            path = path.parent if path.name == native_format.CONFIG_FILE else path
            found[origin.files] = networks(read_member(path, origin.name))
        again += found[origin.files][origin.member : origin.member + 1]
        if not again or again[-1].origin != origin:
            path = origin.files[-1]
            raise CheckpointError(f"{path} has changed since it was read; load the model again")
    return again


def known_config(name: str) -> NetworkConfig:
    """Return a model's configuration without a download; for a bag, that of its first member.

    Raises:
        ModelNotFoundError: the model is neither official nor on this machine.
        CheckpointError: its files are damaged.
    """
    for model in registry.official_models().values():
        if name == model.name or name in model.members:
            return registry.official_config(name if name in model.members else model.members[0])
    if name.startswith("hf://"):
        raise ModelNotFoundError(f"{name} must be downloaded first; give a path to it instead")
    loaded = load_model(name, device="cpu")
    return loaded.members[0].config if isinstance(loaded, Bag) else loaded.config


def named_models() -> list[dict[str, Any]]:
    """Return a dictionary for each model; `bytes` is its download, 0 where unknown."""
    rows = [_shipped_row()]
    for model in official_models().values():
        size = 0 if model.quantised else sum(map(_size, set(model.members)))
        rows.append(
            {
                "name": model.name,
                "sources": list(model.sources),
                "members": list(model.members),
                "bytes": size,
                "cached": cached_members(model) == len(model.members),
                "about": model.about,
                **_license(model.license),
            }
        )
    return rows


@cache
def _size(signature: str) -> int:
    """Return the bytes of an official network in float16, as far as its sizes are known."""
    with torch.device("meta"):
        return 2 * sum(p.numel() for p in build(official_config(signature)).parameters())


@cache
def _shipped_sources() -> tuple[str, ...]:
    return known_config(SHIPPED_MODEL).sources


def _shipped_row() -> dict[str, Any]:
    return {
        "name": SHIPPED_MODEL,
        "sources": list(_shipped_sources()),
        "members": [],
        "bytes": (shipped_folder() / "model.safetensors").stat().st_size,
        "cached": True,
        "about": "small, comes with this package: to try things, not for listening",
        **_license(shipped_license()),
    }


def _license(license: License) -> dict[str, str | None]:
    """Return what a source states, and when it was read; None for a licence that none states."""
    read = license.read.isoformat() if license.read else None
    return {"license": license.name, "license_read": read, "license_note": license.note}
