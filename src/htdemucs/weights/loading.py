"""Any name or path to a model that is ready to run."""

from collections.abc import Sequence
from pathlib import Path

import torch

from htdemucs.errors import CheckpointError, ConfigError, ModelNotFoundError
from htdemucs.model import Bag, HTDemucs, HTDemucsConfig, Model
from htdemucs.model.bag import needed_members
from htdemucs.weights import folder, official, registry


def load_model(
    name_or_path: str | Path = registry.DEFAULT_MODEL,
    *,
    repo: str | Path | None = None,
    device: str | torch.device | None = None,
    cache_dir: str | Path | None = None,
    stems: Sequence[str] | None = None,
) -> Model:
    """A model in evaluation mode.

    Args:
        name_or_path: `htdemucs`, `htdemucs_ft`, `htdemucs_6s`; `mini`, which comes with this
            package; an official signature such as `955717e8`; `hf://namespace/name`; or a path to
            an official `.th` or `.safetensors`, a bag's `.yaml`, or a folder written by
            `save_model`.
        repo: a folder of `.th`/`.safetensors` and `.yaml` files to take the name from instead.
        device: where to put it; by default a GPU where there is one, else the CPU.
        cache_dir: keep downloads here instead of in the usual caches.
        stems: all that a bag is wanted for: it then gives only these, and networks that they do
            not need are neither downloaded nor read.

    Raises:
        ModelNotFoundError, DownloadError, CheckpointError: see `registry.locate`; reading a file
            never executes anything from it.
    """
    chosen = choose_device(device)
    files = registry.locate(
        str(name_or_path),
        Path(repo) if repo else None,
        Path(cache_dir) if cache_dir else None,
        stems,
    )
    first = read_member(files.members[0])
    if isinstance(first, Bag):
        model: Model = first
    elif len(files.members) == 1 and files.weights is None and files.segment is None:
        model = first
    else:
        try:
            model = _bag(first, files, stems).eval()
        except ConfigError as error:
            raise CheckpointError(f"{name_or_path}: {error}") from error
    return model.to(chosen)


def _bag(first: HTDemucs, files: registry.ModelFiles, stems: Sequence[str] | None) -> Bag:
    """The bag whose first member is read already; the rest of those needed are read here."""
    paths, rows = list(files.members), files.weights
    if not stems or not set(stems) <= set(first.sources):
        stems = None  # what is not there is told by whoever asks for it
    elif rows and [len(row) for row in rows] == [len(first.sources)] * len(paths):
        needed = needed_members(rows, [first.sources.index(name) for name in stems])
        paths, rows = [paths[i] for i in needed], [rows[i] for i in needed]
    members = [first if path == files.members[0] else read_member(path) for path in paths]
    return Bag(members, rows, files.segment, stems)  # type: ignore[arg-type]


def read_member(path: Path) -> Model:
    """The network in an official file, or the network or bag in a folder of ours."""
    if not path.is_dir():
        return official.read(path)
    if folder.is_model_folder(path):
        return folder.load_folder(path)
    raise CheckpointError(f"{path} has no config.json; give the name of a model in it with --repo")


def known_config(name: str) -> HTDemucsConfig:
    """The configuration of a model, without downloading anything; for a bag, of its first member.

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


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, checked; by default CUDA, else MPS, else the CPU.

    Raises:
        ConfigError: this machine has no such device.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ConfigError(f"there is no device {device} here; try -d cpu") from None
    return chosen
