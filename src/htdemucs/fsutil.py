"""Files: atomic writes, locks, and the user's folders."""

import errno
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from htdemucs.errors import ServerError, reason

_LOCKED_BYTE = 1 << 40  # beyond all contents: Windows denies reading of locked bytes


def error_line(error: OSError) -> str:
    """Return the file and the reason of a system's error, without its number."""
    return f"{error.filename}: {reason(error)}" if error.filename else reason(error)


def is_disk_full(error: BaseException) -> bool:
    """Return whether the system raised an error because a disk or quota has no space."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)


class AtomicFile:
    """A file written under a temporary name beside `path`; `commit` gives it its name.

    A link stays one: the file that it leads to is replaced. Devices and pipes are written directly.
    Use `atomic_write` where one `with` block writes the file.

    Attributes:
        path: the final name; its folder is made.
        temporary: the name to write to.
    """

    def __init__(self, path: Path, temporary: Path | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path.resolve() if path.is_symlink() else path
        is_special = path.exists() and not path.is_file() and not path.is_dir()
        self.temporary = self.path if is_special else temporary or temporary_name(self.path)

    def commit(self) -> None:
        """Rename the file, replacing what was there."""
        if self.temporary != self.path:
            self.temporary.replace(self.path)

    def discard(self) -> None:
        """Delete the temporary file, if it exists."""
        if self.temporary != self.path:
            self.temporary.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` if no exception is raised."""
    file = AtomicFile(path)
    try:
        yield file.temporary
        file.commit()
    finally:
        file.discard()


def delete_partials(folder: Path) -> None:
    """Delete the temporary files of killed writers below a folder that no other process uses."""
    for partial in folder.rglob(".*.partial"):
        partial.unlink(missing_ok=True)


def user_cache() -> Path:
    """Return the folder for caches: XDG_CACHE_HOME, else ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def user_data() -> Path:
    """Return the user's folder for application data: XDG_DATA_HOME or the system's equivalent."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")


def fresh_folder(path: Path) -> Path:
    """Create an empty folder at `path`; delete what was there."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def model_folder(name: str) -> str:
    """Return the name of the output folder for a model: the model's name as part of a path."""
    if not name.startswith("hf://") and Path(name).exists():
        path = Path(name).resolve()
        return (path.name if path.is_dir() else path.stem) or "model"
    return name.removeprefix("hf://").replace("/", "_").lstrip(".") or "model"


def lock(file: BinaryIO) -> bool:
    """Lock an open file until it is closed; return False if another process has locked it."""
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
    """Open and lock a file for reading and appending; return None if another process has it.

    The file is created if it does not exist. The system unlocks it when the process dies.

    Raises:
        OSError: the file cannot be opened, or its file system does not support locks.
    """
    while True:
        file = path.open("a+b")
        try:
            if not lock(file):
                file.close()
                return None
            if _is_same_file(file, path):
                file.seek(0)
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # it was deleted before it was locked; another process may have a new one


def is_locked(path: Path) -> bool:
    """Whether another process has locked a file with `open_locked`."""
    try:
        with path.open("r+b") as file:
            return not lock(file)
    except OSError:  # it does not exist, or its file system does not support locks
        return False


def delete_locked(file: BinaryIO, path: Path) -> None:
    """Delete a file from `open_locked`, then close it. (After closing, it might be another's.)

    Raises OSError.
    """
    try:
        path.unlink(missing_ok=True)
    except PermissionError:  # Windows does not delete open files; others may have it open
        file.close()
        with suppress(PermissionError):
            path.unlink(missing_ok=True)
    file.close()


def delete_unused(path: Path) -> None:
    """Delete a file unless a process has locked it. Raises OSError."""
    if path.exists() and (file := open_locked(path)) is not None:
        delete_locked(file, path)


def _is_same_file(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a server's data folder; the system releases it when the process dies.

    Raises:
        ServerError: another process holds it.
    """
    try:
        file = open_locked(path)
    except OSError:  # the file system does not support locks
        file = None
    if file is None:
        raise ServerError(
            f"another server uses {path.parent}; stop it, or choose another data folder"
        )
    with file:
        yield


def temporary_name(path: Path) -> Path:
    """Return a hidden, unique path in the same folder, short even if the name of `path` is long."""
    return path.with_name(f".{secrets.token_hex(8)}.partial")
