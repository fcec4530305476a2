"""Reading and writing files by URL, in object stores and everything else that fsspec reaches.

The functions work on URLs. `Store` is the output folder of a library, local or at a URL, and
`scratch_folder` holds local copies.
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

from htdemucs.audio.ffmpeg import audio_errors
from htdemucs.errors import ConfigError, HTDemucsError, StorageError, TrackBusyError, reason
from htdemucs.fsutil import atomic_write, delete_locked, open_locked
from htdemucs.stems.manifest import MAX_SIZE, matches_fingerprint, parse_manifest, read_manifest

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# The packages that fsspec needs for some schemes; users install them.
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs"}
_LOCAL = ("file", "local")  # schemes


@dataclass(frozen=True)
class RemoteFile:
    """A file at a URL.

    Attributes:
        url: its URL.
        bytes: its size.
        version: its ETag, else its modification time; changes when the file does.
    """

    url: str
    bytes: int
    version: str | None


def is_url(location: str) -> bool:
    """Whether this is a URL rather than a path."""
    return _URL.match(location) is not None


def join(url: str, path: str | PurePosixPath) -> str:
    """Return the URL of a relative path below `url`."""
    return f"{url.rstrip('/')}/{path}"


def name(url: str) -> str:
    """Return the name of the file at a URL."""
    parts = urlsplit(url)
    if parts.scheme.lower() in ("http", "https"):  # only these may have a query after the name
        return unquote(PurePosixPath(parts.path).name)
    return PurePosixPath(url).name


def stat(url: str) -> RemoteFile:
    """Return the size and version of the file at a URL.

    Raises:
        StorageError: the file does not exist or cannot be read.
    """
    with _reporting(url, "cannot be read"):
        files, path = filesystem(url)
        return _remote_file(url, files.info(path))


def list_files(url: str) -> list[RemoteFile]:
    """Return the file at a URL or, if there is none, all files below it, sorted by path.

    Raises:
        StorageError: the URL cannot be listed.
    """
    with _reporting(url, "cannot be listed"):
        files, root = filesystem(url)
        if files.isfile(root):
            return [_remote_file(url, files.info(root))]
        listing = sorted(files.find(root, detail=True).items())
        top = root.rstrip("/")
        return [_remote_file(join(url, path[len(top) + 1 :]), info) for path, info in listing]


def file_sizes(folder: str) -> dict[str, int]:
    """Return the sizes of the files directly in a folder, by name; {} if it does not exist.

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
            PurePosixPath(info["name"]).name: int(info["size"])
            for info in listing
            if info["type"] == "file"
        }


def read_bytes(url: str, max_size: int) -> bytes | None:
    """Return a file's contents; None if it does not exist or has more than `max_size` bytes.

    Raises:
        StorageError: the file cannot be read.
    """
    with _reporting(url, "cannot be read"):
        files, path = filesystem(url)
        try:
            return files.cat_file(path) if files.info(path)["size"] <= max_size else None
        except FileNotFoundError:
            return None


def download(url: str, path: Path) -> None:
    """Copy the file at a URL to a path; the copy appears only when it is complete.

    Raises:
        StorageError: the file cannot be read, or the copy cannot be written.
    """
    with _reporting(url, "cannot be fetched"), atomic_write(path) as partial:
        files, remote_path = filesystem(url)
        files.get_file(remote_path, str(partial))


def upload(path: Path, url: str) -> None:
    """Copy a file to a URL.

    Raises:
        StorageError: the URL cannot be written.
    """
    with _reporting(url, "cannot be written"):
        files, remote_path = filesystem(url)
        files.put_file(str(path), remote_path)


def check_writable(folder: str) -> None:
    """Write and delete a small file, to detect missing permissions before the work starts.

    Raises:
        AudioError, StorageError: no file can be written below this path or URL.
    """
    if not is_url(folder):
        probe_path = Path(folder, ".htdemucs-probe")
        with (
            audio_errors(Path(folder), "cannot be written to", "choose another folder"),
            atomic_write(probe_path) as partial,
        ):
            partial.touch()
        probe_path.unlink(missing_ok=True)
        return
    with _reporting(folder, "cannot be written to"):
        files, path = filesystem(join(folder, ".htdemucs-probe"))
        files.pipe_file(path, b"a test for write permission\n")
        with suppress(Exception):  # some users may write but not delete
            files.rm_file(path)


def filesystem(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for a URL, and the path in it.

    Raises:
        StorageError: a package for this scheme is missing, or the scheme is unknown.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise StorageError(
            f"{url} needs fsspec; in the repository, run: pip install '.[batch]'"
        ) from None
    scheme = url.partition("://")[0].lower()
    options: Mapping[str, Any] = {"auto_mkdir": True} if scheme in _LOCAL else {}
    try:
        # Listings are not cached: the cache would grow with the store, and others may write to it.
        files, path = url_to_fs(url, use_listings_cache=False, **options)
    except ImportError:
        package = _PACKAGES.get(scheme, "what fsspec needs for it")
        raise StorageError(f"{scheme}:// needs another package; pip install {package}") from None
    except ValueError as error:
        raise StorageError(f"{url} cannot be reached ({reason(error)}); check the URL") from error
    return files, path


@contextmanager
def _reporting(url: str, problem: str) -> Iterator[None]:
    """Turn errors of any file system into a StorageError of one line."""
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


def _remote_file(url: str, info: Mapping[str, Any]) -> RemoteFile:
    if info.get("type") == "directory":
        raise StorageError(f"{url} is a folder; specify an audio file inside it")
    tag = info.get("ETag") or info.get("etag") or info.get("md5Hash")
    modified = info.get("LastModified") or info.get("mtime") or info.get("created")
    if isinstance(modified, datetime):  # some methods of a store return a date, others seconds
        modified = modified.timestamp()
    if isinstance(modified, float):
        modified = f"{modified:.6f}"
    version = str(tag).strip('"') if tag else str(modified) if modified else None
    return RemoteFile(url, int(info.get("size") or 0), version)


@contextmanager
def scratch_folder(parent: Path | None, name: str, location: str) -> Iterator[Path]:
    """Create and lock the folder `name` for the local copies of one track.

    The folder is deleted at the end and after an error. An interrupted or killed process leaves
    it, so that the work can be resumed.

    Args:
        parent: the folder of all scratch folders; by default in the system's temporary folder.
        name: the name of the folder.
        location: the track, for error messages.

    Raises:
        TrackBusyError: another process separates the same track.
        StorageError: the folder cannot be created.
    """
    folder = _scratch_parent(parent) / name
    path = folder.with_suffix(".lock")
    with audio_errors(path, "cannot be locked", "choose another folder for scratch files"):
        lock = open_locked(path)
    if lock is None:
        raise TrackBusyError(f"{location} is being separated by another htdemucs; wait for it")
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


def _scratch_parent(folder: Path | None) -> Path:
    """Return the folder of all scratch folders, which only this user can write to.

    Raises:
        StorageError: the folder cannot be created, or belongs to another user.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = folder or Path(tempfile.gettempdir(), f"htdemucs-{user}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
    except OSError as error:
        raise StorageError(f"{folder} cannot hold temporary files ({error.strerror})") from error
    if owner != user and hasattr(os, "getuid"):
        raise StorageError(
            f"{folder} is another user's; specify a folder of yours for scratch files"
        )
    return folder


class Store:
    """An output folder on this machine. Files are compared by size and time, else by hash.

    Attributes:
        folder: the folder of all output paths; "." for a URL.
        is_local: whether output paths are files of this machine.
    """

    is_local = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def location(self, path: Path) -> str:
        """Return the path or URL under which users find a file."""
        return str(path)

    def read_manifest(self, path: Path) -> dict[str, Any] | None:
        """Return a manifest; None if it does not exist or is not valid."""
        return read_manifest(path)

    def contains(self, files: Mapping[Path, Any]) -> bool:
        """Whether every file exists and matches its entry in a manifest."""
        return all(matches_fingerprint(path, entry) for path, entry in files.items())

    def upload(self, local_path: Path, path: Path) -> None:
        """Copy a file of this machine to its output path, unless it is the same file."""


class RemoteStore(Store):
    """An output folder at a URL. Files are compared by size, without reading them."""

    is_local = False

    def __init__(self, url: str) -> None:
        super().__init__(Path())
        self.url = url

    def location(self, path: Path) -> str:
        """Return the URL of a file."""
        return join(self.url, PurePosixPath(path))

    def read_manifest(self, path: Path) -> dict[str, Any] | None:
        """Download a manifest; return None if it does not exist or is not valid."""
        data = read_bytes(self.location(path), MAX_SIZE)
        return parse_manifest(data) if data else None

    def contains(self, files: Mapping[Path, Any]) -> bool:
        """Whether every file exists with the size in its entry in a manifest."""
        folders = {path.parent for path in files}
        sizes = {folder: file_sizes(self.location(folder)) for folder in folders}
        return all(
            isinstance(entry, dict) and sizes[path.parent].get(path.name, -1) == entry.get("bytes")
            for path, entry in files.items()
        )

    def upload(self, local_path: Path, path: Path) -> None:
        """Copy a file of this machine to its URL."""
        upload(local_path, self.location(path))


def open_store(out: str) -> Store:
    """Return the store at a path or URL.

    Raises:
        ConfigError: the path is that of a file.
    """
    if is_url(out):
        return RemoteStore(out)
    for path in (Path(out), *Path(out).parents):
        if path.is_file():
            raise ConfigError(f"the output folder {path} is a file; name a folder")
    return Store(Path(out))
