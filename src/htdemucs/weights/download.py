"""Download files from the Hugging Face hub, or from a URL, into a cache: each whole or not at all.

The hub's own client downloads from the hub, so that its cache and its environment variables apply.
This module adds what the client lacks: verification of cached files, quick failure when the hub is
unreachable, progress events, and errors of one line.
"""

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
from pathlib import Path
from typing import Any, Self

from htdemucs.environment import cached_sha256
from htdemucs.errors import DownloadError, HTDemucsError, UploadError
from htdemucs.events import Downloading, EventCallback
from htdemucs.fsutil import user_cache

LOG = logging.getLogger(__name__)
CHUNK = 1 << 20  # bytes
TIMEOUT = 30  # seconds without a byte
DAMAGED = "arrived damaged (its checksum differs); try again"
_on_event: ContextVar[EventCallback | None] = ContextVar("on_event", default=None)


@dataclass(frozen=True)
class HubOptions:
    """How to use the hub; the fields have the names of its client's arguments."""

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


def offline() -> bool:
    """Whether the user has switched the network off (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


@contextmanager
def report_downloads_to(on_event: EventCallback | None) -> Iterator[None]:
    """Report downloads in this block as `Downloading` events; without a callback, in hub bars."""
    token = _on_event.set(on_event)
    try:
        yield
    finally:
        _on_event.reset(token)


def cached_from_hub(repository: str, filename: str, options: HubOptions) -> Path | None:
    """Return a file's path in the hub's cache, or None. The network is not used."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(
        repository, filename, cache_dir=options.cache_dir, revision=options.revision
    )
    return Path(path) if isinstance(path, str) else None


def download_from_hub(repository: str, filename: str, options: HubOptions) -> Path:
    """Download a file into the hub's cache and return its path. A damaged file is replaced.

    Raises:
        DownloadError: the network is off, the hub is unreachable, or it has no such file; the file
            in the cache is damaged and cannot be replaced.
    """
    LOG.info("fetching %s/%s", repository, filename)
    path = _call_hub_client(repository, filename, options)
    blob = _cache_blob(path)
    if blob is None:
        return path
    with contextlib.suppress(OSError):  # the cache is read only
        _delete_leftovers(blob)
    if is_intact(path):
        return path
    if options.local_files_only or offline():
        raise DownloadError(
            f"{blob} is damaged, and cannot be downloaded again without the network"
        )
    with _file_lock(default_cache() / blob.name):  # one process replaces it for all
        if not is_intact(path):
            try:
                path = _call_hub_client(repository, filename, replace(options, force_download=True))
            except DownloadError as error:
                raise DownloadError(f"{blob} is damaged, and was not replaced: {error}") from error
    if not is_intact(path):
        raise DownloadError(f"{repository}/{filename} {DAMAGED}")
    return path


def is_intact(path: Path) -> bool:
    """Whether a file has the hash that the hub's cache names it after; others are not checked."""
    blob = _cache_blob(path)
    if blob is None or not re.fullmatch(r"[0-9a-f]{40}([0-9a-f]{24})?", blob.name):
        return True
    if len(blob.name) == 64:  # the SHA-256 of a large file
        return cached_sha256(path) == blob.name
    content = path.read_bytes()
    as_in_git = b"blob %d\0" % len(content) + content
    return blob.name in (hashlib.sha1(as_in_git).hexdigest(), hashlib.sha1(content).hexdigest())


def _cache_blob(path: Path) -> Path | None:
    """Return the file in the hub's cache that a snapshot's link points to; None without one."""
    if not path.is_symlink():
        return None
    target = Path(os.path.normpath(path.parent / path.readlink()))
    return target if target.parent.name == "blobs" else None


def _delete_leftovers(blob: Path) -> None:
    """Delete partial files that killed downloads of a blob, which is complete by now, left."""
    pattern = f"{blob.name}.*.incomplete"
    if any(blob.parent.glob(pattern)):
        with _file_lock(default_cache() / blob.name):  # no process of ours is replacing the file
            for leftover in blob.parent.glob(pattern):
                leftover.unlink()


@contextmanager
def _file_lock(target: Path) -> Iterator[None]:
    """Let one process at a time work on a file."""
    from huggingface_hub.utils import WeakFileLock

    target.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(target.with_name(target.name + ".lock")):
        yield


def _call_hub_client(repository: str, filename: str, options: HubOptions) -> Path:
    from huggingface_hub import hf_hub_download

    online = not options.local_files_only
    with hub_errors(f"{repository}/{filename}", DownloadError, online=online):
        bar = _progress_bar_class(filename)
        return Path(hf_hub_download(repository, filename, **vars(options), tqdm_class=bar))


@contextmanager
def hub_errors(
    subject: str, error_class: type[HTDemucsError], *, online: bool = True
) -> Iterator[None]:
    """Turn every failure of the hub's client in this block into a one-line error of ours.

    A download error keeps the first sentence of the client's message; an upload error keeps all of
    it, because the hub's check of a model card is in it.
    """
    from huggingface_hub import constants

    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    try:
        if online and not constants.HF_HUB_OFFLINE:
            _check_reachable(constants.ENDPOINT)
        logger.setLevel(logging.CRITICAL)  # the client logs every retry as a warning
        yield
    except Exception as error:  # the client's own errors, its transport's, the system's
        if error_class is UploadError:
            reason = " ".join(str(error).split())
        else:
            reason = _first_line(error).partition(". ")[0]
        raise error_class(f"{subject}: {reason}") from error
    finally:
        logger.setLevel(level)


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


def download_from_url(url: str, target: Path, checksum: str) -> Path:
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
        with _file_lock(target):
            if not (target.is_file() and has_checksum(target, checksum)):
                _resume_download(url, partial)
                if not has_checksum(partial, checksum):
                    partial.unlink()
                    raise OSError(DAMAGED)
                partial.replace(target)
    except (OSError, ValueError, http.client.HTTPException) as error:  # URLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise DownloadError(f"{url}: {_first_line(reason)}") from error
    return target


def has_checksum(path: Path, checksum: str) -> bool:
    """Whether the file's SHA-256 starts with these hex digits."""
    return cached_sha256(path).startswith(checksum)


def _resume_download(url: str, partial: Path) -> None:
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
            _progress_bar_class(partial.stem)(
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


def _progress_bar_class(filename: str) -> type[Any]:
    """Return the hub's class of progress bars, or a silent one that reports to the callback."""
    from huggingface_hub.utils import tqdm

    callback = _on_event.get()
    if callback is None:
        return tqdm
    on_event = callback

    class EventBar:
        """Counts like the hub's bars, but sends events instead of drawing."""

        def __init__(self, *, total: int | None = None, initial: int = 0, **_: Any) -> None:
            self.n, self.total = initial, total

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def update(self, n: int) -> None:
            self.n += n
            on_event(Downloading(filename, self.n, self.total))

        def update_transfer(self, n: int) -> None:
            """Ignore bytes on the wire: they also arrive as bytes of the file."""

        def __getattr__(self, name: str) -> Callable[..., None]:  # everything that only draws
            return lambda *_, **__: None

    return EventBar


def _first_line(reason: object) -> str:
    return next(iter(str(reason).strip().splitlines()), type(reason).__name__)
