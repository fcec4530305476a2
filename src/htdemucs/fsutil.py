"""Writing files so that partial output never looks finished."""

import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from htdemucs.errors import ServerError

_LOCKED_BYTE = 1 << 40  # behind all contents: Windows lets nobody else read what is locked


class AtomicFile:
    """A file written under a temporary name beside `path`; `commit` gives it its name.

    Use `atomic_write` where one `with` block writes the file.

    Attributes:
        path: the final name; its folder is made.
        temporary: the name to write to.
    """

    def __init__(self, path: Path, temporary: Path | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.temporary = path, temporary or temporary_name(path)

    def commit(self) -> None:
        """Rename the file, replacing what was there."""
        self.temporary.replace(self.path)

    def discard(self) -> None:
        """Delete the temporary file, if it exists."""
        self.temporary.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` if the block raises nothing."""
    file = AtomicFile(path)
    try:
        yield file.temporary
        file.commit()
    finally:
        file.discard()


def delete_partials(folder: Path) -> None:
    """Delete what killed writers left in a folder, which nobody else writes to, and below it."""
    for partial in folder.rglob(".*.partial"):
        partial.unlink(missing_ok=True)


def user_cache() -> Path:
    """Return the folder for caches: XDG_CACHE_HOME, else ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def user_data() -> Path:
    """Return the folder for data that stays, as the system has it: XDG_DATA_HOME and the like."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")


def fresh_folder(path: Path) -> Path:
    """Return the folder at `path`, empty."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def model_folder(name: str) -> str:
    """Return the name of a model's folder of stems: its name, fit for a path."""
    if not name.startswith("hf://") and Path(name).exists():
        return Path(name).resolve().stem or "model"
    return name.removeprefix("hf://").replace("/", "_").lstrip(".") or "model"


def lock(file: BinaryIO) -> bool:
    """Have an open file to this process alone, until it is closed; False if another one has it."""
    try:
        try:
            import fcntl
        except ImportError:  # Windows
            import msvcrt

            file.seek(_LOCKED_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
            file.seek(0)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def open_locked(path: Path) -> BinaryIO | None:
    """Open the file at `path` for this process alone, with what is in it; None if another has it.

    It is made if it does not exist, and all that is written to it is appended. The system lets go
    of it when the process dies.

    Raises:
        OSError: the file cannot be opened, or its file system has no locks.
    """
    while True:
        file = path.open("a+b")
        try:
            if not lock(file):
                file.close()
                return None
            if _is_at(file, path):
                file.seek(0)
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # deleted before it was locked: another process may have made a new one


def delete_locked(file: BinaryIO, path: Path) -> None:
    """Delete a file of `open_locked`, and close it: in this order, lest one be deleted that is new.

    Raises OSError.
    """
    try:
        path.unlink(missing_ok=True)
    except PermissionError:  # Windows deletes no open file; one that another has open stays there
        file.close()
        with suppress(PermissionError):
            path.unlink(missing_ok=True)
    file.close()


def delete_unused(path: Path) -> None:
    """Delete a file, unless a process has it from `open_locked`. Raises OSError."""
    if path.exists() and (file := open_locked(path)) is not None:
        delete_locked(file, path)


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Have the file at `path` to this process alone; the system lets go of it when that dies.

    Raises:
        ServerError: another process has it.
    """
    try:
        file = open_locked(path)
    except OSError:  # a file system without locks
        file = None
    if file is None:
        raise ServerError(
            f"another server uses {path.parent}; stop it, or choose another data folder"
        )
    with file:
        yield


def temporary_name(path: Path) -> Path:
    """Return a hidden, unique name beside `path`, short however long `path` is."""
    return path.with_name(f".{secrets.token_hex(8)}.partial")
