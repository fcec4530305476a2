"""Download files from the hub and from the legacy root into a cache, each whole or not at all.

MERGED: Find a model's files by an official name or signature, a hub repository, a folder or a path.
"""

import contextlib
import difflib
import hashlib
import http.client
import inspect
import logging
import os
import re
import socket
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Self

import yaml

from htdemucs.environment import cached_sha256
from htdemucs.errors import (
    CheckpointError,
    DownloadError,
    HTDemucsError,
    ModelNotFoundError,
    UploadError,
)
from htdemucs.events import Downloading, EventCallback
from htdemucs.fsutil import user_cache
from htdemucs.model import NetworkConfig
from htdemucs.model.bag import needed_members
from htdemucs.model.config import Seconds, exact_seconds
from htdemucs.model.registry import CONFIGS
from htdemucs.weights import build, hub

LOG = logging.getLogger(__name__)
CHUNK = 1 << 20  # bytes
TIMEOUT = 30  # seconds without a byte
DAMAGED = "arrived damaged (its checksum differs); try again"
_listener: ContextVar[EventCallback | None] = ContextVar("listener", default=None)


@dataclass(frozen=True)
class HubOptions:
    """How to use the hub, in the words of its client."""

    cache_dir: Path | None = None  # for downloads; by default the hub's cache and our own
    revision: str | None = None
    token: str | bool | None = None
    force_download: bool = False
    local_files_only: bool = False


def default_cache() -> Path:
    """Return the folder for legacy files: HTDEMUCS_CACHE, else a folder in the user's cache."""
    if folder := os.environ.get("HTDEMUCS_CACHE"):
        return Path(folder).expanduser()
    return user_cache() / "htdemucs"


@contextmanager
def report_downloads_to(listener: EventCallback | None) -> Iterator[None]:
    """Tell a listener of the bytes that arrive meanwhile; without one the hub's bars show them."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def offline() -> bool:
    """Whether the user has switched the network off (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def cached_from_hub(repository: str, filename: str, access: HubOptions) -> Path | None:
    """Return a file's path in the hub's cache, or None. The network is not used."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(
        repository, filename, cache_dir=access.cache_dir, revision=access.revision
    )
    return Path(path) if isinstance(path, str) else None


def from_hub(repository: str, filename: str, access: HubOptions) -> Path:
    """Download a file into the hub's cache and return its path. A damaged one is replaced.

    The hub's own client does this, so its environment variables apply.

    Raises:
        DownloadError: the network is off, the hub is unreachable, or it has no such file; the file
            in the cache is damaged and cannot be replaced.
    """
    LOG.info("fetching %s/%s", repository, filename)
    path = _hub_download(repository, filename, access)
    blob = _blob(path)
    if blob is None:
        return path
    with contextlib.suppress(OSError):  # the cache is read only
        _delete_leftovers(blob)
    if is_intact(path):
        return path
    if access.local_files_only or offline():
        raise DownloadError(
            f"{blob} is damaged, and cannot be downloaded again without the network"
        )
    with _locked(default_cache() / blob.name):  # the first process does it for all
        if not is_intact(path):
            try:
                path = _hub_download(repository, filename, replace(access, force_download=True))
            except DownloadError as error:
                raise DownloadError(f"{blob} is damaged, and was not replaced: {error}") from error
    if not is_intact(path):
        raise DownloadError(f"{repository}/{filename} {DAMAGED}")
    return path


def is_intact(path: Path) -> bool:
    """Whether a file has the hash that the hub's cache names it after; others are not checked."""
    blob = _blob(path)
    if blob is None or not re.fullmatch(r"[0-9a-f]{40}([0-9a-f]{24})?", blob.name):
        return True
    if len(blob.name) == 64:  # of a large file
        return cached_sha256(path) == blob.name
    content = path.read_bytes()
    as_in_git = b"blob %d\0" % len(content) + content
    return blob.name in (hashlib.sha1(as_in_git).hexdigest(), hashlib.sha1(content).hexdigest())


def _delete_leftovers(blob: Path) -> None:
    """Delete what the hub's client left of killed downloads of a file that is there by now."""
    pattern = f"{blob.name}.*.incomplete"
    if any(blob.parent.glob(pattern)):
        with _locked(default_cache() / blob.name):  # no process of ours is replacing the file
            for leftover in blob.parent.glob(pattern):
                leftover.unlink()


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Let one process at a time work on a file."""
    from huggingface_hub.utils import WeakFileLock

    target.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(target.with_name(target.name + ".lock")):
        yield


def _blob(path: Path) -> Path | None:
    """Return the file in the hub's cache that a path of a snapshot stands for; None without one."""
    if not path.is_symlink():
        return None
    target = Path(os.path.normpath(path.parent / path.readlink()))
    return target if target.parent.name == "blobs" else None


def _hub_download(repository: str, filename: str, access: HubOptions) -> Path:
    from huggingface_hub import hf_hub_download

    online = not access.local_files_only
    with hub_client(f"{repository}/{filename}", DownloadError, online=online):
        known = inspect.signature(
            hf_hub_download
        ).parameters  # clients before 1.0 lack `tqdm_class`
        bar: dict[str, Any] = {"tqdm_class": _bar(filename)} if "tqdm_class" in known else {}
        return Path(hf_hub_download(repository, filename, **vars(access), **bar))


@contextmanager
def hub_client(what: str, kind: type[HTDemucsError], *, online: bool = True) -> Iterator[None]:
    """Turn every failure of the hub's client into an error of this kind, in one line.

    A download's says in a sentence why; an upload's says all, for it is the hub that checks cards.
    """
    from huggingface_hub import constants

    try:
        if online and not constants.HF_HUB_OFFLINE:
            _check_reachable(constants.ENDPOINT)
        with _silenced(logging.getLogger("huggingface_hub")):
            yield
    except Exception as error:  # the client's own errors, its transport's, the system's
        reason = " ".join(str(error).split()) if kind is UploadError else _first_sentence(error)
        raise kind(f"{what}: {reason}") from error


def from_url(url: str, target: Path, checksum: str) -> Path:
    """Download a file whose SHA-256 starts with `checksum`, and return its path.

    An interrupted download resumes. When several processes want the same file, one downloads it
    and the others wait.

    Raises:
        DownloadError: the server is unreachable or refuses, the file cannot be written, or its
            checksum differs (it is then deleted).
    """
    LOG.info("fetching %s", url)
    partial = target.with_name(target.name + ".part")
    try:
        with _locked(target):
            if not (target.is_file() and matches(target, checksum)):
                _download(url, partial)
                _accept(partial, target, checksum)
    except (OSError, ValueError, http.client.HTTPException) as error:  # URLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise DownloadError(f"{url}: {_first_line(reason)}") from error
    return target


def matches(path: Path, checksum: str) -> bool:
    """Whether the file's SHA-256 starts with these hex digits."""
    return cached_sha256(path).startswith(checksum)


def _check_reachable(url: str) -> None:
    """Raise OSError at once if the hub is unreachable; its client would retry for 23 seconds."""
    parts = urllib.parse.urlsplit(url)
    if not parts.hostname or parts.scheme in urllib.request.getproxies():
        return
    port = parts.port or {"http": 80}.get(parts.scheme, 443)
    try:
        socket.create_connection((parts.hostname, port), TIMEOUT).close()
    except OSError as error:
        raise OSError(f"cannot reach {parts.hostname} ({error.strerror or error})") from error


@contextmanager
def _silenced(logger: logging.Logger) -> Iterator[None]:
    """Silence a logger, because the hub's client logs every retry as a warning."""
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _first_sentence(reason: object) -> str:
    return _first_line(reason).partition(". ")[0]


def _first_line(reason: object) -> str:
    return next(iter(str(reason).strip().splitlines()), type(reason).__name__)


def _accept(partial: Path, target: Path, checksum: str) -> None:
    if not matches(partial, checksum):
        partial.unlink()
        raise OSError(DAMAGED)
    partial.replace(target)


def _bar(file: str) -> type[Any]:
    """Return the class of bars that count a download: the hub's, or one that tells the listener."""
    from huggingface_hub.utils import tqdm

    listener = _listener.get()
    if listener is None:
        return tqdm
    tell = listener

    class Counter:
        """Counts as the hub's bars do, but shows nothing."""

        def __init__(self, *, total: int | None = None, initial: int = 0, **_: Any) -> None:
            self.n, self.total = initial, total

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def update(self, n: int) -> None:
            self.n += n
            tell(Downloading(file, self.n, self.total))

        def update_transfer(self, n: int) -> None:
            """Count nothing: bytes on the wire come as bytes of the file too."""

        def __getattr__(self, name: str) -> Callable[..., None]:  # all that only draws
            return lambda *_, **__: None

    return Counter


def _download(url: str, partial: Path) -> None:
    start = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # the file is complete; the caller checks it
            return
        raise
    with response:
        if response.status != 206:  # the server sends the whole file again
            start = 0
        remaining = int(response.headers.get("Content-Length") or 0)
        with (
            partial.open("ab" if start else "wb") as file,
            _bar(partial.stem)(
                total=(start + remaining) or None,
                initial=start,
                unit="B",
                unit_scale=True,
                desc=partial.stem,
            ) as bar,
        ):
            received = 0
            while chunk := response.read(CHUNK):
                file.write(chunk)
                received += len(chunk)
                bar.update(len(chunk))
    if received < remaining:
        raise OSError(
            f"the connection broke after {received} of {remaining} bytes; try again to resume"
        )


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
    access: HubOptions | None = None,
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
        return _locate(name, repo, access or HubOptions(), stems)
    except OSError as error:
        raise ModelNotFoundError(
            f"cannot look for {build.shown(name)}: {error.strerror or error}"
        ) from error


def _locate(
    name: str, repo: Path | None, access: HubOptions, stems: Sequence[str] | None
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
    return License(hub.stated_license((shipped_folder() / hub.CARD_FILE).read_text("utf-8")))


def cached_members(model: OfficialModel) -> int:
    """Return how many of an official model's members are on this machine."""
    return sum(any(_cached_files(model, member, HubOptions())) for member in model.members)


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
        raise ModelNotFoundError(f"the repo {folder} is not a folder")
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
        if not matches(path, path.stem.rpartition("-")[2]):
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
    if weights is not None and not build.are_weights(weights):
        raise CheckpointError(f"{path}: weights must be a list of numbers for each model")
    return [_signature(value, path) for value in signatures], weights, _seconds(segment, path)


def _signature(value: Any, path: Path) -> str:
    if type(value) is int and 0 <= value < 1 << 53:  # digits only; yaml takes it for a number
        value = str(value)
    if not isinstance(value, str) or not _SAFE_NAME.fullmatch(value):
        raise CheckpointError(f"{path} names {build.shown(value)}, which is no signature")
    return value


def _seconds(value: Any, path: Path) -> Seconds | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not 0.001 <= value <= 86400:
        raise CheckpointError(f"{path}: segment must be a number of seconds")
    return exact_seconds(value)


def _on_hub(name: str, access: HubOptions) -> ModelFiles:
    """Download a repository in the published layout (a bag's yaml and members) or in our own."""
    namespace, _, name = name.rpartition("/")
    namespace = namespace or _table()["hub"]["namespace"]
    if not _SAFE_NAME.fullmatch(namespace) or not _SAFE_NAME.fullmatch(name):
        raise ModelNotFoundError("a hub model is named hf://namespace/name or hf://name")
    published = _published_name(name)
    repository = f"{namespace}/{_repository_name(published)}"
    try:
        description = from_hub(repository, f"{published}.yaml", access)
    except DownloadError as error:
        try:
            config = from_hub(f"{namespace}/{name}", "config.json", access)
        except DownloadError as second:
            raise DownloadError(f"{second}; {error}") from None
        from_hub(f"{namespace}/{name}", "model.safetensors", access)
        return ModelFiles((config.parent,))
    signatures, weights, segment = _read_bag(description)
    files = [from_hub(repository, f"{s}.safetensors", access) for s in signatures]
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


def _official(model: OfficialModel, access: HubOptions, stems: Sequence[str] | None) -> ModelFiles:
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
    model: OfficialModel, signature: str, access: HubOptions, legacy_first: bool = False
) -> Path:
    """Return a member's file: cached, else from the hub, else from the legacy root."""
    for path in filter(is_intact, _cached_files(model, signature, access)):
        return path
    reasons = []
    for fetch in (_from_legacy, _from_hub) if legacy_first else (_from_hub, _from_legacy):
        try:
            return fetch(model, signature, access)
        except DownloadError as error:
            reasons.append(str(error))
    raise DownloadError(_unreachable(model, signature, access, reasons))


def _from_hub(model: OfficialModel, signature: str, access: HubOptions) -> Path:
    return from_hub(model.repository, f"{signature}.safetensors", access)


def _from_legacy(_: OfficialModel, signature: str, access: HubOptions) -> Path:
    if offline():
        raise DownloadError("HF_HUB_OFFLINE is set")
    if access.local_files_only or access.revision:
        raise DownloadError("local_files_only or revision rules out other places")
    entry, filename = _legacy_file(signature)
    target = (access.cache_dir or default_cache()) / filename
    return from_url(f"{_legacy_root()}{entry['folder']}/{filename}", target, entry["checksum"])


def _cached_files(model: OfficialModel, signature: str, access: HubOptions) -> Iterator[Path]:
    """Yield a member's files in the hub's cache, in ours and in the published package's."""
    if access.force_download:
        return
    if cached := cached_from_hub(model.repository, f"{signature}.safetensors", access):
        yield cached
    if access.revision:
        return
    own = access.cache_dir or default_cache()
    if (path := own / f"{signature}.safetensors").is_file():
        yield path
    entry, filename = _legacy_file(signature)
    torch_home = Path(os.environ.get("TORCH_HOME") or user_cache() / "torch")
    for path in (own / filename, torch_home.expanduser() / "hub/checkpoints" / filename):
        if path.is_file() and matches(path, entry["checksum"]):
            yield path


def _legacy_root() -> str:
    """Return the URL of the legacy root, or of its mirror in HTDEMUCS_LEGACY_ROOT."""
    root: str = os.environ.get("HTDEMUCS_LEGACY_ROOT") or _table()["legacy"]["root"]
    return root if root.endswith("/") else root + "/"


def _legacy_file(signature: str) -> tuple[dict[str, str], str]:
    entry = _table()["signatures"][signature]
    return entry, f"{signature}-{entry['checksum']}.th"


def _unreachable(
    model: OfficialModel, signature: str, access: HubOptions, reasons: list[str]
) -> str:
    _, filename = _legacy_file(signature)
    folder = access.cache_dir or default_cache()
    return (
        f"the weights of {model.name} are missing here, or damaged, and could not be downloaded; "
        f"copy {signature}.safetensors or {filename} to {folder}, "
        f"or use the small model inside this package, {SHIPPED_MODEL} "
        f"({'; '.join(reasons)})"
    )


def _not_found(name: str) -> str:
    usable = [*official_models(), SHIPPED_MODEL]
    close = difflib.get_close_matches(name, usable, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known names: {', '.join(usable)}"
    return f"no model {build.shown(name)}; {hint} A path or hf://namespace/name works too."
