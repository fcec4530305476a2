"""Any name or path to a model that is ready to run."""

from pathlib import Path

import torch

from htdemucs.errors import CheckpointError, ConfigError, ModelNotFoundError
from htdemucs.model import Bag, HTDemucsConfig, Model
from htdemucs.weights import folder, official, registry


def load_model(
    name_or_path: str | Path = registry.DEFAULT_MODEL,
    *,
    repo: str | Path | None = None,
    device: str | torch.device | None = None,
    cache_dir: str | Path | None = None,
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

    Raises:
        ModelNotFoundError, DownloadError, CheckpointError: see `registry.locate`; reading a file
            never executes anything from it.
    """
    chosen = choose_device(device)
    files = registry.locate(
        str(name_or_path), Path(repo) if repo else None, Path(cache_dir) if cache_dir else None
    )
    members = [read_member(path) for path in files.members]
    if isinstance(members[0], Bag):
        model: Model = members[0]
    elif len(members) == 1 and files.weights is None and files.segment is None:
        model = members[0]
    else:
        try:
            model = Bag(members, files.weights, files.segment).eval()  # type: ignore[arg-type]
        except ConfigError as error:
            raise CheckpointError(f"{name_or_path}: {error}") from error
    return model.to(chosen)


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
