"""Writing files so that partial output never looks finished."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it takes that place if nothing went wrong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = temporary_name(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def user_cache() -> Path:
    """Where programs keep what can be fetched or made again: XDG_CACHE_HOME, else ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def temporary_name(path: Path) -> Path:
    """A hidden name beside `path`, short whatever the length of its own, and nobody else's."""
    return path.with_name(f".{secrets.token_hex(8)}.partial")
