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
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from htdemucs.environment import cached_sha256
from htdemucs.errors import DownloadError, FileMissingError, HTDemucsError, UploadError
from htdemucs.events import Downloading, EventCallback, ignore_events
from htdemucs.fsutil import user_cache

LOG = logging.getLogger(__name__)
CHUNK = 1 << 20  # bytes
TIMEOUT = 10  # seconds without a byte from the legacy root
RETRY_SECONDS = (1.0, 2.0)  # before the hub is asked again
_RETRIED = (429, 500, 502, 503, 504)  # statuses of a hub that may soon recover
_MISSING = (401, 403, 404)
# What the hub's X-Error-Code means.
_ERROR_CODES = {
    "EntryNotFound": "the repository has no such file",
    "RevisionNotFound": "the repository has no such revision",
    "RepoNotFound": "no such repository, or a private one: log in with `hf auth login`",
    "GatedRepo": "accept its conditions on the hub, then log in with `hf auth login`",
}
_ERRNO = re.compile(r"^\[Errno -?\d+\] ")
_COMMIT = re.compile(r"[0-9a-f]{40}")
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
    subfolder: str = ""  # of the repository; `registry` puts it before the names of files

    @property
    def online(self) -> bool:
        """Whether the network may be used."""
        return not (self.local_files_only or offline())


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

    try:
        path = try_to_load_from_cache(
            repository, filename, cache_dir=options.cache_dir, revision=options.revision
        )
    except ValueError:  # the name of the commit is damaged
        return None
    return Path(path) if isinstance(path, str) else None


def file_url(repository: str, filename: str, options: HubOptions) -> str:
    """Return the address of a file on the hub."""
    from huggingface_hub import hf_hub_url

    return hf_hub_url(repository, filename, revision=options.revision)


def repository_url(repository: str) -> str:
    """Return the address of the page that lists a repository's files."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repository}/tree/{constants.DEFAULT_REVISION}"


def download_from_hub(repository: str, filename: str, options: HubOptions) -> Path:
    """Download a file into the hub's cache and return its path. A damaged file is replaced.

    If the hub fails, an undamaged file in the cache is used, though it may be outdated.

    Raises:
        FileMissingError: the hub has no such file; or the network is off, and the file is not in
            the cache.
        DownloadError: the hub is unreachable, or fails; the file in the cache is damaged and
            cannot be replaced.
    """
    if options.online:
        LOG.info("fetching %s/%s", repository, filename)
        try:
            _ask_hub(repository, filename, options)
        except FileMissingError:
            raise
        except DownloadError as error:
            cached = cached_from_hub(repository, filename, options)
            if options.force_download or cached is None or not is_intact(cached):
                raise
            LOG.warning("%s; using the file in the hub's cache", error)
            return cached
        _delete_damaged_ref(repository, options)
    path = _call_hub_client(repository, filename, options)
    blob = _cache_blob(path)
    if blob is not None:
        with contextlib.suppress(OSError):  # the cache is read only
            _delete_leftovers(blob)
    if is_intact(path):
        return path
    damaged = blob or path
    if not options.online:
        raise DownloadError(
            f"{damaged} is damaged, and cannot be downloaded again without the network"
        )
    try:
        with _blob_lock(damaged):  # one process replaces it for all
            if not is_intact(path):
                if blob is None:  # the client replaces links only
                    path.unlink()
                again = replace(options, force_download=True)
                path = _call_hub_client(repository, filename, again)
    except (DownloadError, OSError) as error:
        reason = str(error) if isinstance(error, DownloadError) else _system_error(error)
        raise DownloadError(f"{damaged} is damaged, and was not replaced: {reason}") from error
    if not is_intact(path):
        raise DownloadError(f"{repository}/{filename} {DAMAGED}")
    return path


def is_intact(path: Path) -> bool:
    """Whether a file in the hub's cache is undamaged, as far as this can be verified.

    The hub's client names a file after its hash, and a link in a snapshot leads there. A snapshot
    that was copied without links has no hashes: then only the size of weights is verified.
    """
    blob = _cache_blob(path)
    if blob is None:
        return path.suffix != ".safetensors" or _is_complete(path)
    if not re.fullmatch(r"[0-9a-f]{40}([0-9a-f]{24})?", blob.name):
        return True
    if len(blob.name) == 64:  # the SHA-256 of a large file
        return cached_sha256(path) == blob.name
    content = path.read_bytes()
    as_in_git = b"blob %d\0" % len(content) + content
    return blob.name in (hashlib.sha1(as_in_git).hexdigest(), hashlib.sha1(content).hexdigest())


def _is_complete(path: Path) -> bool:
    """Whether a safetensors file has the size that its header requires."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt"):
            return True
    except (SafetensorError, OSError):
        return False


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
        with _blob_lock(blob):  # no process of ours is replacing the file
            for leftover in blob.parent.glob(pattern):
                leftover.unlink()


def _delete_damaged_ref(repository: str, options: HubOptions) -> None:
    """Delete the file that names a branch's commit if it does not; the hub's client writes it."""
    from huggingface_hub import constants

    cache = Path(options.cache_dir or constants.HF_HUB_CACHE)
    folder = cache / f"models--{repository.replace('/', '--')}" / "refs"
    ref = folder / (options.revision or constants.DEFAULT_REVISION)
    with contextlib.suppress(OSError):
        if not _COMMIT.fullmatch(ref.read_text(encoding="ascii", errors="replace").strip()):
            ref.unlink()


def _blob_lock(blob: Path) -> AbstractContextManager[None]:
    """Let one process at a time replace a file in the hub's cache. Raises OSError."""
    parts = blob.parts
    repository = next(i for i, part in enumerate(parts) if part in ("blobs", "snapshots")) - 1
    locks = Path(*parts[:repository], ".locks", parts[repository])  # the hub's own folder
    return _file_lock(locks / f"{blob.name}.htdemucs")


@contextmanager
def _file_lock(target: Path) -> Iterator[None]:
    """Let one process at a time work on a file."""
    from huggingface_hub.utils import WeakFileLock

    target.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(target.with_name(target.name + ".lock")):
        yield


def _ask_hub(repository: str, filename: str, options: HubOptions) -> None:
    """Verify that the hub has a file; report its size.

    The hub's client would retry for up to minutes, and not state the cause.

    Raises:
        FileMissingError: the hub has no such file, or does not show it to this user.
        DownloadError: the hub is unreachable, or fails.
    """
    from huggingface_hub.utils import build_hf_headers

    on_event, subject = _on_event.get() or ignore_events, f"{repository}/{filename}"
    on_event(Downloading(filename, 0, None))
    with hub_errors(subject, DownloadError):
        url = file_url(repository, filename, options)
        headers = build_hf_headers(token=options.token)
        response = _head(url, headers)
        for seconds in RETRY_SECONDS:
            if response.status_code in _RETRIED:
                time.sleep(seconds)
                response = _head(url, headers)
    status, phrase = response.status_code, response.reason_phrase
    if status >= 400:
        why = _ERROR_CODES.get(response.headers.get("X-Error-Code"), phrase or "no reason given")
        error_class = FileMissingError if status in _MISSING else DownloadError
        host = urllib.parse.urlsplit(url).hostname
        raise error_class(f"{subject}: {host} answered {status} ({why})")
    size = response.headers.get("X-Linked-Size") or response.headers.get("Content-Length") or ""
    if size.isdecimal() and (status < 300 or "X-Linked-Size" in response.headers):
        LOG.info("%s has %.1f MB", filename, int(size) / 1e6)


def _call_hub_client(repository: str, filename: str, options: HubOptions) -> Path:
    from huggingface_hub import hf_hub_download

    subject, bar = f"{repository}/{filename}", _progress_bar_class(filename)
    if not options.online:
        if (cached := cached_from_hub(repository, filename, options)) is not None:
            return cached
        setting = "HF_HUB_OFFLINE" if offline() else "local_files_only"
        raise FileMissingError(f"{subject} is not in the hub's cache, and {setting} is set")
    with hub_errors(subject, DownloadError):
        settings = vars(options) | {"subfolder": None}  # which is part of the filename
        return Path(hf_hub_download(repository, filename, **settings, tqdm_class=bar))


@contextmanager
def hub_errors(subject: str, error_class: type[HTDemucsError]) -> Iterator[None]:
    """Turn every failure of the hub's client in this block into a one-line error of ours.

    A download error keeps the first sentence of the client's message; an upload error keeps all of
    it, because the hub's check of a model card is in it.
    """
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    try:
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


def check_hub_reachable() -> None:
    """Raise OSError within seconds if the hub is unreachable; its client would retry for long."""
    from huggingface_hub import constants

    if not offline():
        _head(constants.ENDPOINT, {})


def _head(url: str, headers: Mapping[str, str]) -> Any:
    """Return the hub's response to a HEAD request, without retries or redirects.

    The hub's client makes the request, with its certificates and proxies. Raises OSError.
    """
    from huggingface_hub import constants, get_session

    seconds = constants.HF_HUB_ETAG_TIMEOUT
    try:
        return get_session().request(
            "HEAD", url, headers=headers, timeout=seconds, follow_redirects=False
        )
    except Exception as error:  # of its transport
        is_timeout = "Timeout" in type(error).__name__
        why = f"no answer within {seconds:g} s" if is_timeout else _first_line(error)
        host = urllib.parse.urlsplit(url).hostname
        proxy = _proxy_of(url)
        way = f"{host} through the proxy {proxy}" if proxy else host
        raise OSError(f"cannot reach {way} ({_ERRNO.sub('', why)})") from error


def _proxy_of(url: str) -> str | None:
    """Return the proxy for a URL, without its password; None without a proxy."""
    proxies = urllib.request.getproxies()
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:  # not a URL
        return None
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return re.sub(r"//[^/]*@", "//", proxy)


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
        way = f" through the proxy {proxy}" if (proxy := _proxy_of(url)) else ""
        raise DownloadError(f"{url}{way}: {_system_error(error)}") from error
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
        if remaining:
            LOG.info("%s has %.1f MB", partial.stem, (start + remaining) / 1e6)
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


def _system_error(error: Exception) -> str:
    """Return what went wrong, with the status of a response or the path of a file."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} ({error.reason})"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename} cannot be written ({error.strerror})"
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return _ERRNO.sub("", _first_line(reason))


def _first_line(reason: object) -> str:
    return next(iter(str(reason).strip().splitlines()), type(reason).__name__)
