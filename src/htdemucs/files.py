"""Writing files so that partial output never looks finished."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to; rename it to `path` if all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = temporary_name(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def user_cache() -> Path:
    """Return the folder for caches: XDG_CACHE_HOME, else ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def temporary_name(path: Path) -> Path:
    """Return a hidden, unique name beside `path`, short however long `path` is."""
    return path.with_name(f".{secrets.token_hex(8)}.partial")
