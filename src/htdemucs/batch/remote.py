"""Read and write files by URL, in object stores and everything else that fsspec can reach.

MERGED: Where a library's stems go: a folder of this machine, or a store reached by URL.
MERGED: Find the tracks of a large run: in folders, lists, tables and stores.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from htdemucs.audio.ffmpeg import audio_errors, reason
from htdemucs.errors import AudioError, HTDemucsError, StorageError
from htdemucs.fsutil import atomic_write, delete_locked, open_locked
from htdemucs.stems.manifest import MAX_SIZE, is_same, parse_manifest, read_manifest

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# The package that fsspec needs for a kind of URL; users install it.
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs"}
_LOCAL = ("file", "local")


@dataclass(frozen=True)
class Stored:
    """A file in a store.

    Attributes:
        url: its URL.
        bytes: its size.
        version: the store's ETag, else the time of modification; changes when the file does.
    """

    url: str
    bytes: int
    version: str | None


def is_url(place: str) -> bool:
    """Whether `place` is a URL; if not, it is a path."""
    return _URL.match(place) is not None


def join(url: str, path: str | PurePosixPath) -> str:
    """Return the URL of a relative path below `url`."""
    return f"{url.rstrip('/')}/{path}"


def name(url: str) -> str:
    """Return the name of the file at a URL."""
    parts = urlsplit(url)
    if parts.scheme.lower() in ("http", "https"):  # only these have queries after the name
        return unquote(PurePosixPath(parts.path).name)
    return PurePosixPath(url).name


def stat(url: str) -> Stored:
    """Return the size and version of the file at a URL.

    Raises:
        StorageError: the file does not exist or cannot be read.
    """
    with _reporting(url, "cannot be read"):
        files, path = filesystem(url)
        return _stored(url, files.info(path))


def below(url: str) -> list[Stored]:
    """Return the file at a URL or, if there is none, all files below it, sorted by path.

    Raises:
        StorageError: the URL cannot be listed.
    """
    with _reporting(url, "cannot be listed"):
        files, root = filesystem(url)
        if files.isfile(root):
            return [_stored(url, files.info(root))]
        listing = sorted(files.find(root, detail=True).items())
        top = root.rstrip("/")
        return [_stored(join(url, path[len(top) + 1 :]), about) for path, about in listing]


def sizes(folder: str) -> dict[str, int]:
    """Return the sizes of a folder's own files, by name; empty if there is no such folder.

    Raises:
        StorageError: the folder cannot be listed.
    """
    with _reporting(folder, "cannot be listed"):
        files, path = filesystem(folder)
        try:
            listing = files.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        return {
            PurePosixPath(about["name"]).name: int(about["size"])
            for about in listing
            if about["type"] == "file"
        }


def read(url: str, most: int) -> bytes | None:
    """Return a file's contents; None if it does not exist or has more than `most` bytes.

    Raises:
        StorageError: the file cannot be read.
    """
    with _reporting(url, "cannot be read"):
        files, path = filesystem(url)
        try:
            return files.cat_file(path) if files.info(path)["size"] <= most else None
        except FileNotFoundError:
            return None


def fetch(url: str, path: Path) -> None:
    """Copy the file at a URL to a path; the copy appears there only when it is whole.

    Raises:
        StorageError: the file cannot be read, or the copy cannot be written.
    """
    with _reporting(url, "cannot be fetched"), atomic_write(path) as partial:
        files, remote = filesystem(url)
        files.get_file(remote, str(partial))


def put(path: Path, url: str) -> None:
    """Copy a file to a URL.

    Raises:
        StorageError: the URL cannot be written.
    """
    with _reporting(url, "cannot be written"):
        files, remote = filesystem(url)
        files.put_file(str(path), remote)


def check_writable(place: str) -> None:
    """Write and delete a small file, to notice a lack of permission before the work starts.

    Raises:
        AudioError, StorageError: no file can be written below this path or URL.
    """
    if not is_url(place):
        with (
            audio_errors(Path(place), "cannot be written to", "choose another folder"),
            atomic_write(Path(place, ".htdemucs-probe")) as partial,
        ):
            partial.touch()
        Path(place, ".htdemucs-probe").unlink(missing_ok=True)
        return
    probe = join(place, ".htdemucs-probe")
    with _reporting(place, "cannot be written to"):
        files, path = filesystem(probe)
        files.pipe_file(path, b"written to see whether it can be\n")
        with suppress(Exception):  # some users may write but not delete
            files.rm_file(path)


def filesystem(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for a URL, and the path in it.

    Raises:
        StorageError: a package for this kind of URL is missing, or the kind is unknown.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise StorageError(
            f"{url} needs fsspec; install it with: pip install 'htdemucs[batch]'"
        ) from None
    kind = url.partition("://")[0].lower()
    options: Mapping[str, Any] = {"auto_mkdir": True} if kind in _LOCAL else {}
    try:
        # No cache of listings: it would grow with the store, and others may write to the store.
        files, path = url_to_fs(url, use_listings_cache=False, **options)
    except ImportError:
        package = _PACKAGES.get(kind, "what fsspec needs for it")
        raise StorageError(f"{kind}:// needs another package; pip install {package}") from None
    except ValueError as error:
        raise StorageError(f"{url} cannot be reached ({reason(error)}); check the URL") from error
    return files, path


@contextmanager
def _reporting(url: str, problem: str) -> Iterator[None]:
    """Turn an error of any store into a StorageError of one line."""
    try:
        yield
    except HTDemucsError:
        raise
    except FileNotFoundError as error:
        raise StorageError(f"{url} {problem}: it does not exist; check the URL") from error
    except Exception as error:
        raise StorageError(
            f"{url} {problem} ({reason(error)}); check the URL and your credentials"
        ) from error


def _stored(url: str, about: Mapping[str, Any]) -> Stored:
    if about.get("type") == "directory":
        raise StorageError(f"{url} is a folder; name an audio file inside it")
    tag = about.get("ETag") or about.get("etag") or about.get("md5Hash")
    changed = about.get("LastModified") or about.get("mtime") or about.get("created")
    if isinstance(changed, datetime):  # one call of a store returns a date, another one seconds
        changed = changed.timestamp()
    if isinstance(changed, float):
        changed = f"{changed:.6f}"
    version = str(tag).strip('"') if tag else str(changed) if changed else None
    return Stored(url, int(about.get("size") or 0), version)


@contextmanager
def scratch_folder(parent: Path | None, name: str, location: str) -> Iterator[Path]:
    """Have the folder `name` for a track's copies to this process alone, below all scratch folders.

    It is deleted at the end, and after a failure; an interrupted or killed process leaves it.

    Raises:
        AudioError: another process works on the same track.
        StorageError: it cannot be made.
    """
    folder = _private(parent) / name
    path = folder.with_suffix(".lock")
    with audio_errors(path, "cannot be locked", "choose another folder for scratch files"):
        lock = open_locked(path)
    if lock is None:
        raise AudioError(f"{location} is being separated by another htdemucs; wait for it")
    try:
        folder.mkdir(exist_ok=True)
        try:
            yield folder
        except Exception:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        with suppress(OSError):
            delete_locked(lock, path)


def _private(folder: Path | None) -> Path:
    """Return the folder of all scratch folders, which nobody else can write to.

    Raises:
        StorageError: it cannot be made, or is somebody else's.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = folder or Path(tempfile.gettempdir(), f"htdemucs-{user}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
    except OSError as error:
        raise StorageError(f"{folder} cannot hold temporary files ({error.strerror})") from error
    if owner != user and hasattr(os, "getuid"):
        raise StorageError(f"{folder} is another user's; name a folder of yours for scratch files")
    return folder


class Store:
    """A folder. Files are compared by size and time and, where times differ, by hash.

    Attributes:
        top: the folder; paths are those of `OutputPaths` below it.
        is_local: whether paths are files of this machine.
    """

    is_local = True

    def __init__(self, top: Path) -> None:
        self.top = top

    def location(self, path: Path) -> str:
        """Return the path or URL under which users find a file."""
        return str(path)

    def read_manifest(self, path: Path) -> dict[str, Any] | None:
        """Return a manifest; None if there is none that can be read."""
        return read_manifest(path)

    def holds(self, files: Mapping[Path, Any]) -> bool:
        """Whether every file is there as its entry in a manifest says."""
        return all(is_same(path, entry) for path, entry in files.items())

    def put(self, file: Path, path: Path) -> None:
        """Bring a file of this machine to its path in the store; in a folder it is there."""


class UrlStore(Store):
    """A URL. Files are compared by size: reading them would cost as much as making them."""

    is_local = False

    def __init__(self, url: str) -> None:
        super().__init__(Path())
        self.url = url

    def location(self, path: Path) -> str:
        """Return the URL of a file."""
        return join(self.url, PurePosixPath(path))

    def read_manifest(self, path: Path) -> dict[str, Any] | None:
        """Fetch a manifest; None if there is none that can be read."""
        data = read(self.location(path), MAX_SIZE)
        return parse_manifest(data) if data else None

    def holds(self, files: Mapping[Path, Any]) -> bool:
        """Whether every file is there with the size that its entry in a manifest says."""
        folders = {path.parent for path in files}
        sizes = {folder: sizes(self.location(folder)) for folder in folders}
        return all(
            isinstance(entry, dict) and sizes[path.parent].get(path.name, -1) == entry.get("bytes")
            for path, entry in files.items()
        )

    def put(self, file: Path, path: Path) -> None:
        """Copy a file of this machine to its URL."""
        put(file, self.location(path))


def open_store(place: str) -> Store:
    """Return the store at a path or URL."""
    return UrlStore(place) if is_url(place) else Store(Path(place))
