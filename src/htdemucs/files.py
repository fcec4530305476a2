"""Writing files so that partial output never looks finished."""

import os
import zlib
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


def temporary_name(path: Path) -> Path:
    """A hidden name beside `path`, short whatever the length of its own."""
    return path.with_name(
        f".{zlib.crc32(path.name.encode('utf-8', 'replace')):08x}-{os.getpid()}.partial"
    )
