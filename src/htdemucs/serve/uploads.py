"""The bodies of requests: files are written to disk while they arrive, under limits."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from email.message import Message
from email.parser import HeaderParser
from email.utils import collapse_rfc2231_value
from pathlib import Path
from typing import NamedTuple

from anyio import to_thread
from starlette.requests import ClientDisconnect, Request

from htdemucs.errors import BadRequestError, DiskFullError, TooLargeError, UnsupportedError
from htdemucs.serve.settings import Limits
from htdemucs.stems.paths import LONGEST, file_name

CHUNK = 1 << 20  # bytes written at a time
PATIENCE = 60.0  # seconds that a client may send nothing
MOST_HEADERS = 1 << 13  # bytes of a form's part
MOST_FORM = 1 << 16  # bytes of a form around its file
ENVELOPE = re.compile(rb"\s*--[^\r\n]+\r?\ncontent-", re.IGNORECASE)  # the beginning of a form
INCOMPLETE = "the file did not arrive whole; send it again"
USAGE = (
    "send the song in a form (curl -F file=@song.mp3 ADDRESS/api/tracks) or as the whole body "
    "(curl -X POST -T song.mp3 'ADDRESS/api/tracks?name=song.mp3')"
)


async def read_body(request: Request) -> AsyncIterator[bytes]:
    """Yield a request's body as it arrives.

    Raises:
        UnsupportedError: it is compressed.
        BadRequestError: it ends early, or nothing arrives for a while.
    """
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedError(
            "compressed bodies are not supported; send the file without Content-Encoding"
        )
    chunks = request.stream()
    while True:
        try:
            yield await asyncio.wait_for(anext(chunks), PATIENCE)
        except StopAsyncIteration:
            return
        except ClientDisconnect:
            raise BadRequestError(INCOMPLETE) from None
        except TimeoutError:
            raise BadRequestError("nothing has arrived for a while; send the file again") from None


@contextmanager
def removed_on_error(folder: Path) -> Iterator[None]:
    """Remove a folder if the block raises."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


async def receive(chunks: AsyncIterator[bytes], path: Path, limits: Limits) -> int:
    """Write a file to `path` while it arrives; return its bytes.

    Raises:
        TooLargeError: it is larger than the limit.
        DiskFullError: the disk has no room for it.
        BadRequestError: it is empty, or incomplete.
        UnsupportedError: it is a form under another Content-Type.
    """
    size, held = 0, bytearray()
    with path.open("wb") as file:

        async def write() -> None:
            if size == len(held) and ENVELOPE.match(held):
                raise UnsupportedError(f"the body is a form, but its Content-Type is not; {USAGE}")
            check_size(size, path.parent, limits, written=size - len(held))
            await to_thread.run_sync(file.write, bytes(held))
            held.clear()

        async for chunk in chunks:
            held += chunk
            size += len(chunk)
            if len(held) >= CHUNK:
                await write()
        await write()
        await to_thread.run_sync(_to_disk, file.fileno())
    if not size:
        raise BadRequestError("the file is empty")
    return size


class Part(NamedTuple):
    """A part of a form.

    Attributes:
        field: its name.
        filename: None if it has none.
        contents: must be read before the next part.
    """

    field: str
    filename: str | None
    contents: AsyncIterator[bytes]


class Form:
    """A body of multipart/form-data (RFC 7578), read part by part while it arrives.

    Args:
        content_type: the request's header.
        chunks: the request's body.

    Raises:
        BadRequestError: the header has no boundary.
    """

    def __init__(self, content_type: str, chunks: AsyncIterator[bytes]) -> None:
        boundary = _headers(f"content-type: {content_type}").get_boundary()
        if not boundary:
            raise BadRequestError(
                "the form's Content-Type has no boundary; let the HTTP library set this header"
            )
        self._delimiter = b"\r\n--" + boundary.encode("latin-1", "replace")
        self._chunks, self._held = chunks, bytearray()

    async def parts(self) -> AsyncIterator[Part]:
        """Yield the parts.

        Raises:
            BadRequestError: the body is not such a form, or is incomplete.
            UnsupportedError: a part is encoded.
        """
        begin = self._delimiter[2:]
        if await self._take(len(begin)) != begin:
            raise BadRequestError("the form does not begin with its Content-Type's boundary")
        while (mark := await self._take(2)) == b"\r\n":
            head = await read_all(
                self._before(b"\r\n\r\n"), MOST_HEADERS, "the headers of a form part are too long"
            )
            headers = _headers(head.decode("utf-8", "replace"))
            coding = headers.get("content-transfer-encoding", "binary").strip().lower()
            if coding not in ("binary", "8bit", "7bit"):
                raise UnsupportedError(
                    "form parts with a Content-Transfer-Encoding are not supported"
                )
            field = _parameter(headers, "name")
            if field is None:
                raise BadRequestError("a part of the form has no name")
            yield Part(field, _parameter(headers, "filename"), self._before(self._delimiter))
        if mark != b"--":
            raise BadRequestError(INCOMPLETE)

    async def _before(self, mark: bytes) -> AsyncIterator[bytes]:
        """Yield the bytes before a mark, and drop the mark."""
        while (end := self._held.find(mark)) < 0:
            if (sure := len(self._held) - len(mark) + 1) > 0:
                yield self._cut(sure)
            if not await self._more():
                raise BadRequestError(INCOMPLETE)
        yield self._cut(end)
        self._cut(len(mark))

    async def _take(self, count: int) -> bytes:
        """Return the next `count` bytes, or fewer at the end."""
        while len(self._held) < count and await self._more():
            pass
        return self._cut(count)

    async def _more(self) -> bool:
        chunk = await anext(self._chunks, None)
        self._held += chunk or b""
        return chunk is not None

    def _cut(self, count: int) -> bytes:
        data = bytes(self._held[:count])
        del self._held[:count]
        return data


async def read_all(chunks: AsyncIterator[bytes], longest: int, problem: str) -> bytes:
    """Return all chunks as one.

    Raises:
        BadRequestError: they have more than `longest` bytes; `problem` is its message.
    """
    data = bytearray()
    async for chunk in chunks:
        data += chunk
        if len(data) > longest:
            raise BadRequestError(problem)
    return bytes(data)


def _headers(text: str) -> Message:
    return HeaderParser().parsestr(text)


def _parameter(headers: Message, name: str) -> str | None:
    """Return a parameter of Content-Disposition; `name*` (RFC 5987) has precedence over `name`."""
    try:
        parameters = headers.get_params([], header="content-disposition")
        found = [value for key, value in parameters if key.lower() == name]
        return collapse_rfc2231_value(found[-1]).replace("%22", '"') if found else None
    except ValueError:  # a codec that cannot decode text
        raise BadRequestError("a name in the form cannot be read; write it in UTF-8") from None


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
