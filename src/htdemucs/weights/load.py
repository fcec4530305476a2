"""Load a model by any name or path, ready to run."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from htdemucs.devices import choose_device
from htdemucs.environment import CheckpointFiles, checksum
from htdemucs.errors import CheckpointError, ConfigError, ModelNotFoundError
from htdemucs.events import EventCallback, Loaded, Loading, ignore_events
from htdemucs.model import Bag, Model, Network, NetworkConfig
from htdemucs.model.architectures import matches_config
from htdemucs.model.bag import needed_members, networks
from htdemucs.weights import demucs_format, native_format, state_dict
from htdemucs.weights.download import HubOptions, report_downloads_to
from htdemucs.weights.registry import DEFAULT_MODEL, find_files, official_config, official_models

LOG = logging.getLogger(__name__)


def load_model(
    name_or_path: str | Path = DEFAULT_MODEL,
    *,
    repo: str | Path | None = None,
    device: str | torch.device | None = None,
    cache_dir: str | Path | None = None,
    stems: Sequence[str] | None = None,
    config: str | Path | None = None,
    on_progress: EventCallback | None = None,
) -> Model:
    """Return a model in evaluation mode. Its `origin` names the files it was read from.

    Nothing in a file is ever executed.

    Args:
        name_or_path: `htdemucs`, `htdemucs_ft`, `htdemucs_6s`; `mini`, which comes with this
            package; an official signature such as `955717e8`; `hf://namespace/name`; or a path to
            an official `.th` or `.safetensors`, a `.ckpt` of Music-Source-Separation-Training, a
            `.pt` of torchaudio's `hdemucs_high`, a bag's `.yaml`, or a folder written by
            `save_model`.
        repo: look for the name only in this folder, among its `.th`, `.safetensors` and `.yaml`
            files.
        device: the device for the model; by default a GPU if there is one, else the CPU.
        cache_dir: the folder for downloads; by default the usual caches.
        stems: limit a bag to these stems; networks that they do not need are neither downloaded
            nor read.
        config: the yaml file of Music-Source-Separation-Training that describes the network in a
            `.ckpt`; by default the one of the same name next to it.
        on_progress: called with the events (`htdemucs.events`) Loading, Downloading and Loaded;
            without it downloads show the hub's own progress bars.

    Raises:
        ModelNotFoundError: nothing has that name.
        DownloadError: the model is not on this machine and cannot be downloaded.
        CheckpointError: a file is damaged, unsafe, or of a network this package cannot run.
        ConfigError: this machine has no such device.
    """
    name, device = str(name_or_path), choose_device(device)
    options = HubOptions(Path(cache_dir) if cache_dir else None)
    on_event = on_progress or ignore_events
    on_event(Loading(name))
    with report_downloads_to(on_progress):
        model = read_model(
            name,
            options,
            repo=Path(repo) if repo else None,
            stems=stems,
            config=Path(config) if config else None,
        )
    model = model.to(device)
    on_event(Loaded(name, str(device)))
    return model


def read_model(
    name: str,
    options: HubOptions,
    *,
    repo: Path | None = None,
    stems: Sequence[str] | None = None,
    config: Path | None = None,
) -> Model:
    """Return a model on the CPU; the arguments and errors are those of `load_model`."""
    # From the name to files on this machine; missing ones are downloaded.
    files = find_files(name, repo, options, stems)

    # From a file to a network: its configuration and tensors are read and checked, the network is
    # built without initial values, and the tensors are copied into it.
    paths, weights = list(files.members), files.weights
    if config is not None and (len(paths) > 1 or paths[0].is_dir()):
        raise CheckpointError(f"{name} describes its networks itself; leave out the config")
    first = read_checkpoint(paths[0], name, config)
    if isinstance(first, Bag):
        return first.select_sources(stems) if stems and set(stems) <= set(first.sources) else first
    if len(paths) == 1 and weights is None and files.segment is None:
        return first

    # From networks to a bag, of those that the stems need. The caller refuses unknown stems.
    if not stems or not set(stems) <= set(first.sources):
        stems = None
    elif weights and [len(row) for row in weights] == [len(first.sources)] * len(paths):
        needed = needed_members(weights, [first.sources.index(stem) for stem in stems])
        paths, weights = [paths[i] for i in needed], [weights[i] for i in needed]
    members = {
        path: first if path == files.members[0] else read_checkpoint(path, name)
        for path in dict.fromkeys(paths)
    }
    try:
        bag = Bag([members[path] for path in paths], weights, files.segment, stems)  # type: ignore[misc]
    except ConfigError as error:
        raise CheckpointError(f"{name}: {error}") from error
    return bag.eval()


def read_checkpoint(path: Path, name: str, config: Path | None = None) -> Model:
    """Read the network in a file, or the network or bag in a folder in our format.

    Args:
        path: the file or folder.
        name: the model's name, for its `origin`.
        config: the yaml file that describes the network in a file of parameters.

    Raises:
        CheckpointError: the file or folder is damaged or unsafe, or is not a model.
    """
    if not path.is_dir() and (config or path.suffix in state_dict.SUFFIXES):
        config = config or state_dict.config_of(path)
        model: Model = state_dict.read(path, config)
        files: tuple[Path, ...] = (path, config) if config else (path,)
    elif not path.is_dir():
        model = demucs_format.read(path)
        files = (path,)
    elif native_format.is_model_folder(path):
        model = native_format.read(path)
        files = (path / native_format.CONFIG_FILE, path / native_format.WEIGHTS_FILE)
    else:
        raise CheckpointError(
            f"{path} has no config.json; for a model inside it, pass the folder as the repo"
        )
    for file in files:
        LOG.debug("read %s", file)
    for number, network in enumerate(networks(model)):
        network.origin = CheckpointFiles(name, files, number, checksum(network))
    return model


def is_unchanged(network: Network) -> bool:
    """Whether a network was read from files, and is unchanged since.

    Changes are those of parameters, buffers and configuration, and what `matches_config` notices.
    """
    return (
        network.origin is not None
        and network.origin.checksum == checksum(network)
        and matches_config(network)
    )


def reload_networks(members: Sequence[Network]) -> list[Network]:
    """Return networks like these, on the CPU, from the files that these were read from.

    Raises:
        CheckpointError: a file is gone or damaged, or has changed since.
    """
    read: dict[tuple[Path, ...], list[Network]] = {}
    reloaded: list[Network] = []
    for origin in (member.origin for member in members):
        assert origin is not None
        if origin.files not in read:
            path, *others = origin.files
            config = None
            if path.name == native_format.CONFIG_FILE:
                path = path.parent
            elif others:
                [config] = others
            read[origin.files] = networks(read_checkpoint(path, origin.name, config))
        candidates = read[origin.files]
        if origin.member >= len(candidates) or candidates[origin.member].origin != origin:
            raise CheckpointError(
                f"{origin.files[-1]} has changed since it was read; load the model again"
            )
        reloaded.append(candidates[origin.member])
    return reloaded


def known_config(name: str) -> NetworkConfig:
    """Return a model's configuration without a download; for a bag, that of its first network.

    Raises:
        ModelNotFoundError: the model is neither official nor on this machine.
        CheckpointError: its files are damaged.
    """
    return known_configs(name)[0]


def known_configs(name: str) -> list[NetworkConfig]:
    """Return the configurations of a model's networks, without a download.

    Raises:
        ModelNotFoundError: the model is neither official nor on this machine.
        CheckpointError: its files are damaged.
    """
    for model in official_models().values():
        if name in model.members:
            return [official_config(name)]
        if name == model.name:
            return [official_config(member) for member in dict.fromkeys(model.members)]
    if name.startswith("hf://"):
        raise ModelNotFoundError(f"{name} must be downloaded first; give a path to it instead")
    return [network.config for network in networks(load_model(name, device="cpu"))]
