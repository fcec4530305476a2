"""Files on their way in: written to disk while they arrive, under limits."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from anyio import to_thread
from starlette.requests import ClientDisconnect

from htdemucs.errors import BadRequestError, DiskFullError, TooLargeError
from htdemucs.serve.settings import Limits
from htdemucs.stems.naming import LONGEST, file_name

CHUNK = 1 << 20  # bytes written at a time
PATIENCE = 60.0  # seconds that a client may send nothing


async def receive(
    chunks: AsyncIterator[bytes], path: Path, limits: Limits, announced: int | None
) -> int:
    """Write what arrives to `path`; return its bytes. If it fails, nothing is left.

    Args:
        chunks: the file.
        path: in a folder that is not there yet.
        limits: on its size.
        announced: bytes that the client says it sends.

    Raises:
        TooLargeError: it is larger than the limit.
        DiskFullError: the disk has no room for it.
        BadRequestError: it is empty, incomplete, or the client sends nothing any more.
    """
    folder = path.parent
    check_size(announced or 0, folder.parent, limits)
    folder.mkdir(parents=True)
    size, done = 0, False
    try:
        with path.open("wb") as file:
            held = bytearray()
            async for chunk in _patiently(chunks):
                held += chunk
                size += len(chunk)
                if len(held) >= CHUNK:
                    check_size(size, folder, limits, written=size - len(held))
                    await to_thread.run_sync(file.write, bytes(held))
                    held.clear()
            check_size(size, folder, limits, written=size - len(held))
            await to_thread.run_sync(file.write, bytes(held))
            await to_thread.run_sync(_to_disk, file.fileno())
        if not size:
            raise BadRequestError("the file is empty")
        if announced is not None and size != announced:
            raise BadRequestError("the file did not arrive whole; send it again")
        done = True
        return size
    finally:
        if not done:
            shutil.rmtree(folder, ignore_errors=True)


def check_size(size: int, folder: Path, limits: Limits, written: int = 0) -> None:
    """Refuse so many bytes if they are too many for the limits or the disk.

    Args:
        size: bytes of the whole.
        folder: on the disk.
        limits: that apply.
        written: how many of them are on the disk already.

    Raises:
        TooLargeError: they are more than the server takes.
        DiskFullError: the disk has no room for them.
    """
    if size > limits.upload_bytes:
        raise TooLargeError(
            f"the file is larger than the {limits.upload_bytes / 1e6:.0f} MB that this server takes"
        )
    free = shutil.disk_usage(folder).free
    if free - (size - written) < limits.free_bytes:
        raise DiskFullError("the server's disk is full; delete some tracks first")


async def _patiently(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    iterator = aiter(chunks)
    while True:
        try:
            yield await asyncio.wait_for(anext(iterator), PATIENCE)
        except StopAsyncIteration:
            return
        except ClientDisconnect:
            raise BadRequestError("the file did not arrive whole; send it again") from None
        except TimeoutError:
            raise BadRequestError("nothing has arrived for a while; send the file again") from None


def _to_disk(descriptor: int) -> None:
    """Let the system write it down, so that a row never speaks of a file that a crash ate."""
    os.fsync(descriptor)


def safe_name(name: str) -> str:
    """Return a client's name for a file, as one part of a path: no folders, no tricks."""
    name = name.replace("\\", "/").rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    if not dot or len(suffix) > 10:
        stem, dot, suffix = name, "", ""
    room = LONGEST - len(suffix.encode("utf-8", "replace")) - 1
    short = stem.encode("utf-8", "replace")[:room].decode("utf-8", "ignore")
    return file_name(f"{file_name(short) or 'track'}{dot}{suffix}") or "track"
