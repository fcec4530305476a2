"""Find a model's files by an official name or signature, a hub repository, a folder or a path."""

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

import yaml

from htdemucs.errors import CheckpointError, DownloadError, ModelNotFoundError
from htdemucs.files import user_cache
from htdemucs.model import NetworkConfig
from htdemucs.model.bag import needed_members
from htdemucs.model.config import Seconds, exact_seconds
from htdemucs.model.family import CONFIGS
from htdemucs.weights import assembly, card, downloads
from htdemucs.weights.downloads import Access

DEFAULT_MODEL = "htdemucs"
SHIPPED_MODEL = "mini"  # a folder of our own format beside this file
_SAFE_NAME = re.compile(r"[\w][\w.-]*")


@dataclass(frozen=True)
class ModelFiles:
    """A model's files: one for each member, or a single folder in our own format."""

    members: tuple[Path, ...]
    weights: list[list[float]] | None = None
    segment: Seconds | None = None


@dataclass(frozen=True)
class License:
    """The licence of weights, as their source states it."""

    name: str | None  # None: not stated
    read: date | None = None  # when the source was looked at
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
    return CONFIGS[entry.get("kind", "HTDemucs")].from_dict(entry.get("config", {}))


def locate(
    name: str,
    repo: Path | None = None,
    access: Access | None = None,
    stems: Sequence[str] | None = None,
) -> ModelFiles:
    """Return the files of a model; download those that are missing.

    Args:
        name: an official name or signature, `mini`, `hf://[namespace/]name`, or a path to a `.th`,
            a `.safetensors`, a bag's `.yaml`, or a folder in our own format.
        repo: look for the name only in this folder.
        access: how to use the hub; its `cache_dir` is for legacy files too.
        stems: limit an official bag to the members that these stems need.

    Raises:
        ModelNotFoundError: nothing has that name.
        DownloadError: a file is not on this machine and cannot be downloaded.
        CheckpointError: a bag's yaml is damaged, or a file's checksum differs.
    """
    try:
        return _locate(name, repo, access or Access(), stems)
    except OSError as error:
        raise ModelNotFoundError(
            f"cannot look for {assembly.shown(name)}: {error.strerror or error}"
        ) from error


def _locate(
    name: str, repo: Path | None, access: Access, stems: Sequence[str] | None
) -> ModelFiles:
    if repo is not None:
        return _in_folder(name, repo)
    if name.startswith("hf://"):
        return _on_hub(name.removeprefix("hf://"), access)
    if name in official_models():
        return _official(official_models()[name], access, stems)
    if name in _table()["signatures"]:
        model = next(m for m in official_models().values() if name in m.members)
        return ModelFiles((_official_member(model, name, access),))
    if name == SHIPPED_MODEL:
        return ModelFiles((shipped_folder(),))
    path = Path(name)
    with contextlib.suppress(RuntimeError):  # ~name, but no user has that name
        path = path.expanduser()
    if path.exists():
        return _at_path(path)
    raise ModelNotFoundError(_not_found(name))


def shipped_folder() -> Path:
    """Return the folder of the model that comes with this package."""
    return Path(__file__).parent / SHIPPED_MODEL


def shipped_license() -> License:
    """Return the licence that the card of the shipped model states."""
    return License(card.stated_license((shipped_folder() / card.CARD_FILE).read_text("utf-8")))


def cached_members(model: OfficialModel) -> int:
    """Return how many of an official model's members are on this machine."""
    return sum(any(_cached_files(model, member, Access())) for member in model.members)


def _at_path(path: Path) -> ModelFiles:
    if path.is_dir() or path.suffix in (".th", ".safetensors"):
        return ModelFiles((path,))
    if path.suffix in (".yaml", ".yml"):
        return _bag(path, path.parent)
    raise ModelNotFoundError(
        f"{path} is no model: it must be a .th, .safetensors or .yaml file, or a folder with "
        "config.json and model.safetensors"
    )


def _in_folder(name: str, folder: Path) -> ModelFiles:
    if not folder.is_dir():
        raise ModelNotFoundError(f"`repo` {folder} is not a folder")
    if not _SAFE_NAME.fullmatch(name):
        raise ModelNotFoundError(f"{name!r} cannot be the name of a model in {folder}")
    if member := _member_in_folder(name, folder):
        return ModelFiles((member,))
    for suffix in (".yaml", ".yml"):
        if (path := folder / (name + suffix)).is_file():
            return _bag(path, folder)
    if (folder / name).is_dir():
        return ModelFiles((folder / name,))
    suffixes = (".yaml", ".yml", ".th", ".safetensors")
    names = sorted({p.stem for p in folder.iterdir() if p.suffix in suffixes})
    raise ModelNotFoundError(
        f"no model {name} in {folder}; it has {', '.join(names[:20]) or 'no models'}"
    )


def _member_in_folder(signature: str, folder: Path) -> Path | None:
    """Return SIG.safetensors, SIG.th or SIG-CHECKSUM.th, whose checksum is verified; else None."""
    for suffix in (".safetensors", ".th"):
        if (path := folder / (signature + suffix)).is_file():
            return path
    candidates = [p for p in folder.glob("*-*.th") if p.stem.rpartition("-")[0] == signature]
    if len(candidates) > 1:
        raise CheckpointError(f"{folder} has several files for {signature}; delete all but one")
    for path in candidates:
        if not downloads.matches(path, path.stem.rpartition("-")[2]):
            raise CheckpointError(f"{path} is damaged: its checksum differs; copy it there again")
        return path
    return None


def _bag(path: Path, folder: Path) -> ModelFiles:
    """Return the files of the bag that a yaml file describes; `folder` holds its members."""
    signatures, weights, segment = _read_bag(path)
    members = []
    for signature in signatures:
        member = _member_in_folder(signature, folder)
        if member is None:
            raise ModelNotFoundError(
                f"{path.name} needs {signature}.th or {signature}.safetensors in {folder}"
            )
        members.append(member)
    return ModelFiles(tuple(members), weights, segment)


def _read_bag(path: Path) -> tuple[list[str], list[list[float]] | None, Seconds | None]:
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a readable yaml file") from error
    if not isinstance(fields, dict) or set(fields) - {"models", "weights", "segment"}:
        raise CheckpointError(f"{path} must have models, and may have weights and segment")
    signatures, weights, segment = (fields.get(k) for k in ("models", "weights", "segment"))
    if not isinstance(signatures, list) or not signatures:
        raise CheckpointError(f"{path} must list its models by signature")
    if weights is not None and not assembly.are_weights(weights):
        raise CheckpointError(f"{path}: weights must be a list of numbers for each model")
    return [_signature(value, path) for value in signatures], weights, _seconds(segment, path)


def _signature(value: Any, path: Path) -> str:
    if type(value) is int and 0 <= value < 1 << 53:  # digits only; yaml takes it for a number
        value = str(value)
    if not isinstance(value, str) or not _SAFE_NAME.fullmatch(value):
        raise CheckpointError(f"{path} names {assembly.shown(value)}, which is no signature")
    return value


def _seconds(value: Any, path: Path) -> Seconds | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not 0.001 <= value <= 86400:
        raise CheckpointError(f"{path}: segment must be a number of seconds")
    return exact_seconds(value)


def _on_hub(name: str, access: Access) -> ModelFiles:
    """Download a repository in the published layout (a bag's yaml and members) or in our own."""
    namespace, _, name = name.rpartition("/")
    namespace = namespace or _table()["hub"]["namespace"]
    if not _SAFE_NAME.fullmatch(namespace) or not _SAFE_NAME.fullmatch(name):
        raise ModelNotFoundError("a hub model is named hf://namespace/name or hf://name")
    published = _published_name(name)
    repository = f"{namespace}/{_repository_name(published)}"
    try:
        description = downloads.from_hub(repository, f"{published}.yaml", access)
    except DownloadError as error:
        try:
            config = downloads.from_hub(f"{namespace}/{name}", "config.json", access)
        except DownloadError as second:
            raise DownloadError(f"{second}; {error}") from None
        downloads.from_hub(f"{namespace}/{name}", "model.safetensors", access)
        return ModelFiles((config.parent,))
    signatures, weights, segment = _read_bag(description)
    files = [downloads.from_hub(repository, f"{s}.safetensors", access) for s in signatures]
    return ModelFiles(tuple(files), weights, segment)


def _repository_name(name: str) -> str:
    if name == "htdemucs":
        return "HTDemucs"
    if name.startswith("htdemucs_"):
        return "HTDemucs-" + name.removeprefix("htdemucs_")
    return "Demucs-" + name


def _published_name(name: str) -> str:
    """Return the model's name if this is the name of its repository, else the name itself."""
    for start, published in (("HTDemucs-", "htdemucs_"), ("Demucs-", "")):
        if name.startswith(start) and name != start:
            return published + name.removeprefix(start)
    return "htdemucs" if name == "HTDemucs" else name


def _official(model: OfficialModel, access: Access, stems: Sequence[str] | None) -> ModelFiles:
    weights = model.weights
    needed = list(range(len(model.members)))
    if weights and stems and set(stems) <= set(model.sources):
        needed = needed_members(weights, [model.sources.index(name) for name in stems])
        weights = [weights[i] for i in needed]
    members: list[Path] = []
    for signature in (model.members[i] for i in needed):
        # If the hub failed for one member, do not wait for it again.
        legacy_first = bool(members) and members[-1].suffix == ".th"
        members.append(_official_member(model, signature, access, legacy_first))
    return ModelFiles(tuple(members), weights, model.segment)


def _official_member(
    model: OfficialModel, signature: str, access: Access, legacy_first: bool = False
) -> Path:
    """Return a member's file: cached, else from the hub, else from the legacy root."""
    for path in filter(downloads.is_intact, _cached_files(model, signature, access)):
        return path
    reasons = []
    for fetch in (_from_legacy, _from_hub) if legacy_first else (_from_hub, _from_legacy):
        try:
            return fetch(model, signature, access)
        except DownloadError as error:
            reasons.append(str(error))
    raise DownloadError(_unreachable(model, signature, access, reasons))


def _from_hub(model: OfficialModel, signature: str, access: Access) -> Path:
    return downloads.from_hub(model.repository, f"{signature}.safetensors", access)


def _from_legacy(_: OfficialModel, signature: str, access: Access) -> Path:
    if downloads.offline():
        raise DownloadError("HF_HUB_OFFLINE is set")
    if access.local_files_only or access.revision:
        raise DownloadError("`local_files_only` or `revision` rules out other places")
    entry, filename = _legacy_file(signature)
    target = (access.cache_dir or downloads.default_cache()) / filename
    return downloads.from_url(
        f"{_legacy_root()}{entry['folder']}/{filename}", target, entry["checksum"]
    )


def _cached_files(model: OfficialModel, signature: str, access: Access) -> Iterator[Path]:
    """Yield a member's files in the hub's cache, in ours and in the published package's."""
    if access.force_download:
        return
    if cached := downloads.cached_from_hub(model.repository, f"{signature}.safetensors", access):
        yield cached
    if access.revision:
        return
    own = access.cache_dir or downloads.default_cache()
    if (path := own / f"{signature}.safetensors").is_file():
        yield path
    entry, filename = _legacy_file(signature)
    torch_home = Path(os.environ.get("TORCH_HOME") or user_cache() / "torch")
    for path in (own / filename, torch_home.expanduser() / "hub/checkpoints" / filename):
        if path.is_file() and downloads.matches(path, entry["checksum"]):
            yield path


def _legacy_root() -> str:
    """Return the URL of the legacy root, or of its mirror in HTDEMUCS_LEGACY_ROOT."""
    root: str = os.environ.get("HTDEMUCS_LEGACY_ROOT") or _table()["legacy"]["root"]
    return root if root.endswith("/") else root + "/"


def _legacy_file(signature: str) -> tuple[dict[str, str], str]:
    entry = _table()["signatures"][signature]
    return entry, f"{signature}-{entry['checksum']}.th"


def _unreachable(model: OfficialModel, signature: str, access: Access, reasons: list[str]) -> str:
    _, filename = _legacy_file(signature)
    folder = access.cache_dir or downloads.default_cache()
    return (
        f"the weights of {model.name} are missing here, or damaged, and could not be downloaded; "
        f"copy {signature}.safetensors or {filename} to {folder}, "
        f"or use the small model inside this package, `name={SHIPPED_MODEL}` "
        f"({'; '.join(reasons)})"
    )


def _not_found(name: str) -> str:
    usable = [*official_models(), SHIPPED_MODEL]
    close = difflib.get_close_matches(name, usable, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known names: {', '.join(usable)}"
    return f"no model {assembly.shown(name)}; {hint} A path or hf://namespace/name works too."
