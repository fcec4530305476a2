"""The models that have names, and where the files of a model are.

`models.toml` lists the official models. `find_files` turns a name or a path into files on this
machine; it downloads those that are missing. `named_models` lists what `htdemucs models` prints.
"""

import contextlib
import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from htdemucs.errors import (
    CheckpointError,
    DownloadError,
    FileMissingError,
    ModelNotFoundError,
)
from htdemucs.fsutil import user_cache
from htdemucs.model import NetworkConfig
from htdemucs.model.architectures import CONFIGS, network_class
from htdemucs.model.bag import needed_members
from htdemucs.model.config import Seconds, exact_seconds
from htdemucs.weights import native_format, state_dict
from htdemucs.weights.build import is_weight_table, short_repr
from htdemucs.weights.download import (
    HubOptions,
    cached_from_hub,
    default_cache,
    download_from_hub,
    download_from_url,
    file_url,
    has_checksum,
    is_intact,
    offline,
    repository_url,
)

DEFAULT_MODEL = "htdemucs"
BUNDLED_MODEL = "mini"  # a folder in our own format, next to this file
_SAFE_NAME = re.compile(r"[\w][\w.-]*")
_BAG_SUFFIXES = (".yaml", ".yml")
_NETWORK_SUFFIXES = (".safetensors", ".th", *state_dict.SUFFIXES)


@dataclass(frozen=True)
class License:
    """The licence of weights, as their source states it."""

    name: str | None  # None: not stated
    read: date | None = None  # when the source was checked
    note: str = ""


@dataclass(frozen=True)
class OfficialModel:
    """An official model, as known without a download."""

    name: str
    repository: str  # on the hub
    members: tuple[str, ...]  # signatures
    weights: list[list[float]] | None
    about: str
    segment: Seconds | None
    quantised: bool
    sources: tuple[str, ...]
    license: License


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(
        resources.files("htdemucs.weights").joinpath("models.toml").read_text("utf-8")
    )


@cache
def official_models() -> dict[str, OfficialModel]:
    """Return every official model, by name."""
    namespace = _table()["hub"]["namespace"]
    return {
        name: OfficialModel(
            name=name,
            repository=f"{namespace}/{entry['repository']}",
            members=tuple(entry["members"]),
            weights=entry.get("weights"),
            about=entry.get("about", ""),
            segment=exact_seconds(entry["segment"]) if "segment" in entry else None,
            quantised=entry.get("quantised", False),
            sources=official_config(entry["members"][0]).sources,
            license=License(**{"name": None} | _table()["license"]),
        )
        for name, entry in _table()["models"].items()
    }


@cache
def official_config(signature: str) -> NetworkConfig:
    """Return the configuration of an official network, as far as it is known without its file."""
    entry = _table()["signatures"][signature]
    return CONFIGS[entry.get("architecture", "HTDemucs")].from_dict(entry.get("config", {}))


def bundled_folder() -> Path:
    """Return the folder of the model that comes with this package."""
    return Path(__file__).parent / BUNDLED_MODEL


def named_models() -> list[dict[str, Any]]:
    """Return a dictionary for each model; `bytes` is its download, 0 where unknown."""
    folder = bundled_folder()
    card = (folder / native_format.CARD_FILE).read_text("utf-8")
    bundled = {
        "name": BUNDLED_MODEL,
        "sources": list(native_format.read_config(folder).members[0].sources),
        "members": [],
        "bytes": (folder / native_format.WEIGHTS_FILE).stat().st_size,
        "cached": True,
        "about": "small, comes with this package: to try things, not for listening",
        **_license_fields(License(native_format.stated_license(card))),
    }
    official = [
        {
            "name": model.name,
            "sources": list(model.sources),
            "members": list(model.members),
            "bytes": 0 if model.quantised else sum(map(_network_bytes, set(model.members))),
            "cached": is_cached(model),
            "about": model.about,
            **_license_fields(model.license),
        }
        for model in official_models().values()
    ]
    return [bundled, *official]


@cache
def _network_bytes(signature: str) -> int:
    """Return the bytes of an official network in float16, as far as its sizes are known."""
    config = official_config(signature)
    return 2 * sum(p.numel() for p in network_class(config).empty(config).parameters())


def _license_fields(license: License) -> dict[str, str | None]:
    checked = license.read.isoformat() if license.read else None
    return {"license": license.name, "license_read": checked, "license_note": license.note}


def is_cached(model: OfficialModel) -> bool:
    """Whether all members of an official model are on this machine."""
    return all(any(_cached_files(model, member, HubOptions())) for member in model.members)


def known_sources(name: str) -> tuple[str, ...] | None:
    """Return the sources of a model that is official or in a folder; None for others.

    Raises:
        CheckpointError: the folder's configuration is damaged.
    """
    for model in official_models().values():
        if name == model.name or name in model.members:
            return model.sources
    folder = bundled_folder() if name == BUNDLED_MODEL else Path(name)
    if not native_format.is_model_folder(folder):
        return None
    return native_format.read_config(folder).members[0].sources


def is_downloaded(name: str) -> bool:
    """Return whether a model with a name needs no download. Nothing is known about other models."""
    model = official_models().get(name)
    return model is None or is_cached(model)


@dataclass(frozen=True)
class ModelFiles:
    """A model's files: one for each member, or a single folder in our own format."""

    members: tuple[Path, ...]
    weights: list[list[float]] | None = None
    segment: Seconds | None = None


def find_files(
    name: str,
    repo: Path | None = None,
    options: HubOptions | None = None,
    stems: Sequence[str] | None = None,
) -> ModelFiles:
    """Return the files of a model; download those that are missing.

    Args:
        name: an official name or signature, `mini`, `hf://[namespace/]name`, or a path to a `.th`,
            a `.safetensors`, a `.ckpt`, a `.pt`, a bag's `.yaml`, or a folder in our own format.
        repo: look for the name only in this folder.
        options: how to use the hub; its `cache_dir` is for legacy files too.
        stems: limit an official bag to the members that these stems need.

    Raises:
        ModelNotFoundError: nothing has that name.
        DownloadError: a file is not on this machine and cannot be downloaded.
        CheckpointError: a bag's yaml is damaged, or a file's checksum differs.
    """
    options = options or HubOptions()
    try:
        if repo is not None:
            return _in_folder(name, repo)
        if name.startswith("hf://"):
            return _in_hub_repository(name.removeprefix("hf://"), options)
        if name in official_models():
            return _of_official_model(official_models()[name], options, stems)
        if name in _table()["signatures"]:
            model = next(m for m in official_models().values() if name in m.members)
            return ModelFiles((_of_official_network(model, name, options),))
        if name == BUNDLED_MODEL:
            return ModelFiles((bundled_folder(),))
        check_name(name)
        return _at_path(_expanded(name))
    except OSError as error:
        raise ModelNotFoundError(
            f"cannot look for {short_repr(name)}: {error.strerror or error}"
        ) from error


def check_name(name: str) -> None:
    """Check that there is a model of this name; those on the hub are not looked for.

    Raises:
        ModelNotFoundError: there is none.
    """
    names = [*official_models(), BUNDLED_MODEL]
    if name in names or name in _table()["signatures"] or name.startswith("hf://"):
        return
    if _expanded(name).exists():
        return
    if "/" in name or os.sep in name or Path(name).suffix in _NETWORK_SUFFIXES + _BAG_SUFFIXES:
        raise ModelNotFoundError(
            f"no model at {short_repr(name)}: there is no such file or folder (a model on the hub "
            "is hf://namespace/name)"
        )
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known names: {', '.join(names)}"
    raise ModelNotFoundError(
        f"no model {short_repr(name)}; {hint} (a path or hf://namespace/name works, too)"
    )


def _expanded(name: str) -> Path:
    path = Path(name)
    with contextlib.suppress(RuntimeError):  # ~name, but no user has that name
        path = path.expanduser()
    return path


def _at_path(path: Path) -> ModelFiles:
    if path.is_dir() or path.suffix in _NETWORK_SUFFIXES:
        return ModelFiles((path,))
    if path.suffix in _BAG_SUFFIXES:
        return _of_bag(path)
    raise ModelNotFoundError(
        f"{path} is not a model: it must be a .th, .safetensors, .ckpt, .pt or .yaml file, or a "
        "folder with config.json and model.safetensors"
    )


def _in_folder(name: str, folder: Path) -> ModelFiles:
    if not folder.is_dir():
        raise ModelNotFoundError(f"the repo {folder} is not a folder")
    if not _SAFE_NAME.fullmatch(name):
        raise ModelNotFoundError(f"{name!r} cannot be the name of a model in {folder}")
    if network := _network_in_folder(name, folder):
        return ModelFiles((network,))
    for suffix in _BAG_SUFFIXES:
        if (path := folder / (name + suffix)).is_file():
            return _of_bag(path)
    if (folder / name).is_dir():
        return ModelFiles((folder / name,))
    suffixes = _BAG_SUFFIXES + _NETWORK_SUFFIXES
    names = sorted({p.stem for p in folder.iterdir() if p.suffix in suffixes})
    raise ModelNotFoundError(
        f"no model {name} in {folder}; it has {', '.join(names[:20]) or 'no models'}"
    )


def _network_in_folder(signature: str, folder: Path) -> Path | None:
    """Return SIG.safetensors, SIG.th or SIG-CHECKSUM.th, whose checksum is verified; else None."""
    for suffix in _NETWORK_SUFFIXES:
        if (path := folder / (signature + suffix)).is_file():
            return path
    candidates = [p for p in folder.glob("*-*.th") if p.stem.rpartition("-")[0] == signature]
    if len(candidates) > 1:
        raise CheckpointError(f"{folder} has several files for {signature}; delete all but one")
    for path in candidates:
        if not has_checksum(path, path.stem.rpartition("-")[2]):
            raise CheckpointError(f"{path} is damaged: its checksum differs; copy it there again")
        return path
    return None


def _of_bag(path: Path) -> ModelFiles:
    """Return the files of the bag that a yaml file describes; its members are in its folder."""
    signatures, weights, segment = _read_bag(path)
    members = []
    for signature in signatures:
        member = _network_in_folder(signature, path.parent)
        if member is None:
            raise ModelNotFoundError(
                f"{path.name} needs {signature}.th or {signature}.safetensors in {path.parent}"
            )
        members.append(member)
    return ModelFiles(tuple(members), weights, segment)


def _read_bag(path: Path) -> tuple[list[str], list[list[float]] | None, Seconds | None]:
    """Return the signatures, the weights and the segment in a bag's yaml file."""
    fields = state_dict.read_yaml(path)
    if state_dict.is_config(fields):
        state_dict.read_config(path)  # says so if the network is one that cannot be run
        raise CheckpointError(
            f"{path} only describes a network; name the checkpoint that it belongs to, and give "
            "this file as its configuration"
        )
    if not isinstance(fields, dict) or set(fields) - {"models", "weights", "segment"}:
        raise CheckpointError(f"{path} must have models, and may have weights and segment")
    signatures, weights, segment = (fields.get(k) for k in ("models", "weights", "segment"))
    if not isinstance(signatures, list) or not signatures:
        raise CheckpointError(f"{path} must list its models by signature")
    if weights is not None and not is_weight_table(weights):
        raise CheckpointError(f"{path}: weights must be a list of numbers for each model")
    for i, value in enumerate(signatures):
        if type(value) is int and 0 <= value < 1 << 53:  # digits only: yaml reads a number
            signatures[i] = str(value)
        elif not isinstance(value, str) or not _SAFE_NAME.fullmatch(value):
            raise CheckpointError(f"{path} names {short_repr(value)}, which is not a signature")
    if segment is not None:
        if type(segment) not in (int, float) or not 0.001 <= segment <= 86400:
            raise CheckpointError(f"{path}: segment must be a number of seconds")
        segment = exact_seconds(segment)
    return signatures, weights, segment


def _in_hub_repository(name: str, options: HubOptions) -> ModelFiles:
    """Download a repository in the published layout (a bag's yaml and members) or in our own."""
    namespace, _, name = name.rpartition("/")
    namespace = namespace or _table()["hub"]["namespace"]
    if not _SAFE_NAME.fullmatch(namespace) or not _SAFE_NAME.fullmatch(name):
        raise ModelNotFoundError("a hub model is named hf://namespace/name or hf://name")
    published = _published_name(name)
    repository = f"{namespace}/{repository_name(published)}"
    ours = f"{namespace}/{name}"
    folder = f"{options.subfolder}/" if options.subfolder else ""
    try:
        try:
            bag = download_from_hub(repository, f"{folder}{published}.yaml", options)
        except FileMissingError as error:
            try:
                config = download_from_hub(ours, folder + native_format.CONFIG_FILE, options)
            except FileMissingError as second:
                raise FileMissingError(f"{second}; {error}") from None
            download_from_hub(ours, folder + native_format.WEIGHTS_FILE, options)
            return ModelFiles((config.parent,))
        signatures, weights, segment = _read_bag(bag)
        names = [f"{folder}{signature}.safetensors" for signature in signatures]
        files = [download_from_hub(repository, name, options) for name in names]
        return ModelFiles(tuple(files), weights, segment)
    except DownloadError as error:
        if isinstance(error, FileMissingError) and options.online:
            raise
        raise DownloadError(
            f"hf://{ours} is not on this machine, and cannot be downloaded; -n {BUNDLED_MODEL} "
            f"works without a download ({error})\n"
            f"  download all files from {repository_url(ours)} or {repository_url(repository)}\n"
            f"  into a folder, and load it or, with a .yaml, {published} from the repo FOLDER"
        ) from error


def repository_name(model: str) -> str:
    """Return the name that a published model's repository on the hub has."""
    if model == "htdemucs":
        return "HTDemucs"
    if model.startswith("htdemucs_"):
        return "HTDemucs-" + model.removeprefix("htdemucs_")
    return "Demucs-" + model


def _published_name(name: str) -> str:
    """Return the model's name if this is the name of its repository, else the name itself."""
    for start, published in (("HTDemucs-", "htdemucs_"), ("Demucs-", "")):
        if name.startswith(start) and name != start:
            return published + name.removeprefix(start)
    return "htdemucs" if name == "HTDemucs" else name


def _of_official_model(
    model: OfficialModel, options: HubOptions, stems: Sequence[str] | None
) -> ModelFiles:
    signatures, weights = list(model.members), model.weights
    if weights and stems and set(stems) <= set(model.sources):
        needed = needed_members(weights, [model.sources.index(name) for name in stems])
        signatures = [signatures[i] for i in needed]
        weights = [weights[i] for i in needed]
    files: list[Path] = []
    for signature in signatures:
        # If the hub failed for one member, do not wait for it again.
        legacy_first = bool(files) and files[-1].suffix == ".th"
        files.append(_of_official_network(model, signature, options, legacy_first))
    return ModelFiles(tuple(files), weights, model.segment)


def _of_official_network(
    model: OfficialModel, signature: str, options: HubOptions, legacy_first: bool = False
) -> Path:
    """Return a network's file: cached, else from the hub, else from the legacy root."""
    for path in filter(is_intact, _cached_files(model, signature, options)):
        return path
    reasons = []
    for root in ("legacy", "hub") if legacy_first else ("hub", "legacy"):
        try:
            if root == "hub":
                return download_from_hub(model.repository, f"{signature}.safetensors", options)
            return _download_legacy_file(signature, options)
        except DownloadError as error:
            reasons.append(str(error))
    if options.revision:
        raise DownloadError(
            f"revision {options.revision} of {model.name} is not on this machine, and cannot be "
            f"downloaded ({'; '.join(reasons)})"
        )
    address = file_url(model.repository, f"{signature}.safetensors", options)
    raise DownloadError(
        f"{model.name} is not on this machine, or damaged, and cannot be downloaded; "
        f"-n {BUNDLED_MODEL} works without a download ({'; '.join(reasons)})\n"
        f"  download {address} or {legacy_url(signature)}\n"
        f"  into {options.cache_dir or default_cache()}, and repeat the command"
    )


def _cached_files(model: OfficialModel, signature: str, options: HubOptions) -> Iterator[Path]:
    """Yield a network's files in the hub's cache, in ours and in the published package's."""
    if options.force_download:
        return
    if cached := cached_from_hub(model.repository, f"{signature}.safetensors", options):
        yield cached
    if options.revision:
        return
    own = options.cache_dir or default_cache()
    if (path := own / f"{signature}.safetensors").is_file():
        yield path
    filename = legacy_filename(signature)
    torch_home = Path(os.environ.get("TORCH_HOME") or user_cache() / "torch")
    for path in (own / filename, torch_home.expanduser() / "hub/checkpoints" / filename):
        if path.is_file() and has_checksum(path, _table()["signatures"][signature]["checksum"]):
            yield path


def _download_legacy_file(signature: str, options: HubOptions) -> Path:
    if offline():
        raise DownloadError("HF_HUB_OFFLINE is set")
    if options.local_files_only or options.revision:
        raise DownloadError("local_files_only or revision rules out other places")
    target = (options.cache_dir or default_cache()) / legacy_filename(signature)
    checksum = _table()["signatures"][signature]["checksum"]
    return download_from_url(legacy_url(signature), target, checksum)


def legacy_filename(signature: str) -> str:
    """Return the name of an official network's file on the published package's server."""
    return f"{signature}-{_table()['signatures'][signature]['checksum']}.th"


def legacy_url(signature: str) -> str:
    """Return the file's URL on that server, or on its mirror in HTDEMUCS_LEGACY_ROOT."""
    root: str = os.environ.get("HTDEMUCS_LEGACY_ROOT") or _table()["legacy"]["root"]
    folder = _table()["signatures"][signature]["folder"]
    return f"{root.removesuffix('/')}/{folder}/{legacy_filename(signature)}"
