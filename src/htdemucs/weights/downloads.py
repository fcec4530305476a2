"""Download files from the hub and from the legacy root into a cache, each whole or not at all."""

import contextlib
import hashlib
import http.client
import logging
import os
import re
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any, Self

from htdemucs.errors import DownloadError, HTDemucsError, UploadError
from htdemucs.events import Downloading, Listener
from htdemucs.files import user_cache
from htdemucs.provenance import cached_sha256

LOG = logging.getLogger(__name__)
CHUNK = 1 << 20  # bytes
TIMEOUT = 30  # seconds without a byte
DAMAGED = "arrived damaged (its checksum differs); try again"
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@dataclass(frozen=True)
class Access:
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
def told_to(listener: Listener | None) -> Iterator[None]:
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


def cached_from_hub(repository: str, filename: str, access: Access) -> Path | None:
    """Return a file's path in the hub's cache, or None. The network is not used."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(
        repository, filename, cache_dir=access.cache_dir, revision=access.revision
    )
    return Path(path) if isinstance(path, str) else None


def from_hub(repository: str, filename: str, access: Access) -> Path:
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


def _hub_download(repository: str, filename: str, access: Access) -> Path:
    from huggingface_hub import hf_hub_download

    online = not access.local_files_only
    with hub_client(f"{repository}/{filename}", DownloadError, online=online):
        known = signature(hf_hub_download).parameters  # clients before 1.0 lack `tqdm_class`
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
