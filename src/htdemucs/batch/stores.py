"""Where a library's stems go: a folder of this machine, or a store reached by URL."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from htdemucs.batch import storage
from htdemucs.stems.manifest import MAX_SIZE, is_same, parse_manifest, read_manifest


class Store:
    """A folder. Files are compared by size and time and, where times differ, by hash.

    Attributes:
        top: the folder; paths are those of `Places` below it.
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
        return storage.join(self.url, PurePosixPath(path))

    def read_manifest(self, path: Path) -> dict[str, Any] | None:
        """Fetch a manifest; None if there is none that can be read."""
        data = storage.read(self.location(path), MAX_SIZE)
        return parse_manifest(data) if data else None

    def holds(self, files: Mapping[Path, Any]) -> bool:
        """Whether every file is there with the size that its entry in a manifest says."""
        folders = {path.parent for path in files}
        sizes = {folder: storage.sizes(self.location(folder)) for folder in folders}
        return all(
            isinstance(entry, dict) and sizes[path.parent].get(path.name, -1) == entry.get("bytes")
            for path, entry in files.items()
        )

    def put(self, file: Path, path: Path) -> None:
        """Copy a file of this machine to its URL."""
        storage.put(file, self.location(path))


def open_store(place: str) -> Store:
    """Return the store at a path or URL."""
    return UrlStore(place) if storage.is_url(place) else Store(Path(place))
