"""From any name or path to a model that is ready to run."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from htdemucs.devices import choose_device
from htdemucs.errors import CheckpointError, ConfigError, ModelNotFoundError
from htdemucs.model import Bag, HTDemucs, HTDemucsConfig, Model
from htdemucs.model.bag import needed_members, networks
from htdemucs.provenance import Origin
from htdemucs.weights import folder, official, registry

LOG = logging.getLogger(__name__)


def load_model(
    name_or_path: str | Path = registry.DEFAULT_MODEL,
    *,
    repo: str | Path | None = None,
    device: str | torch.device | None = None,
    cache_dir: str | Path | None = None,
    stems: Sequence[str] | None = None,
) -> Model:
    """Load a model, in evaluation mode; its `origin` names the files it was read from.

    Args:
        name_or_path: `htdemucs`, `htdemucs_ft`, `htdemucs_6s`; `mini`, which comes with this
            package; an official signature such as `955717e8`; `hf://namespace/name`; or a path to
            an official `.th` or `.safetensors`, a bag's `.yaml`, or a folder written by
            `save_model`.
        repo: a folder of `.th`/`.safetensors` and `.yaml` files to take the name from instead.
        device: where to put it; by default a GPU where there is one, else the CPU.
        cache_dir: keep downloads here instead of in the usual caches.
        stems: limit a bag to these; networks that they do not need are neither downloaded nor
            read.

    Raises:
        ModelNotFoundError, DownloadError, CheckpointError: see `registry.locate`; reading a file
            never executes anything from it.
    """
    chosen = choose_device(device)
    name = str(name_or_path)
    files = registry.locate(name, _path(repo), _path(cache_dir), stems)
    first = read_member(files.members[0], name)
    if isinstance(first, Bag):
        model: Model = first
    elif len(files.members) == 1 and files.weights is None and files.segment is None:
        model = first
    else:
        try:
            model = _bag(first, files, name, stems).eval()
        except ConfigError as error:
            raise CheckpointError(f"{name}: {error}") from error
    return model.to(chosen)


def _path(path: str | Path | None) -> Path | None:
    return Path(path) if path else None


def _bag(
    first: HTDemucs, files: registry.ModelFiles, name: str, stems: Sequence[str] | None
) -> Bag:
    """Make a bag of its first member, read already, and the others that the stems need."""
    paths, rows = list(files.members), files.weights
    if not stems or not set(stems) <= set(first.sources):
        stems = None  # whoever asked for an unknown stem reports it
    elif rows and [len(row) for row in rows] == [len(first.sources)] * len(paths):
        needed = needed_members(rows, [first.sources.index(stem) for stem in stems])
        paths, rows = [paths[i] for i in needed], [rows[i] for i in needed]
    members = [first if path == files.members[0] else read_member(path, name) for path in paths]
    return Bag(members, rows, files.segment, stems)  # type: ignore[arg-type]


def read_member(path: Path, name: str) -> Model:
    """Read the network in an official file, or the network or bag in a folder of our format.

    Args:
        path: of the file or folder.
        name: the model's name, for its `origin`.
    """
    if not path.is_dir():
        model: Model = official.read(path)
        read: tuple[Path, ...] = (path,)
    elif folder.is_model_folder(path):
        model = folder.load_folder(path)
        read = (path / folder.CONFIG_FILE, path / folder.WEIGHTS_FILE)
    else:
        raise CheckpointError(f"{path} has no config.json; name a model inside it, with `repo`")
    for path in read:
        LOG.debug("read %s", path)
    for network in networks(model):
        network.origin = Origin(name, read)
    return model


def known_config(name: str) -> HTDemucsConfig:
    """Return a model's configuration without a download; for a bag, that of its first member.

    Raises:
        ModelNotFoundError: neither an official name or signature nor a file or folder here.
    """
    for model in registry.official_models().values():
        if name == model.name or name in model.members:
            registry.check_supported(model, name)
            return HTDemucsConfig(**model.config)
    if name.startswith("hf://"):
        raise ModelNotFoundError(f"{name} would have to be downloaded; give a path to it instead")
    loaded = load_model(name, device="cpu")
    return loaded.members[0].config if isinstance(loaded, Bag) else loaded.config
