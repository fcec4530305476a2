"""Reading the bodies of requests: JSON, and files that are written to disk while they arrive.

Starlette's own form parser is not used: it knows no limits on the size of a file or the free space
of the disk, and stores files in the system's temporary folder first.
"""

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from email.message import Message as EmailMessage
from email.parser import HeaderParser
from email.utils import collapse_rfc2231_value
from pathlib import Path
from typing import Any, NamedTuple

from anyio import to_thread
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from htdemucs.errors import (
    BadRequestError,
    DiskFullError,
    InvalidValueError,
    TooLargeError,
    UnsupportedError,
)
from htdemucs.serve.settings import Limits
from htdemucs.stems.paths import LONGEST, file_name

BLOCK = 1 << 20  # bytes written at a time
TIMEOUT = 60.0  # seconds in which a client sends nothing
MAX_DRAINED = 1 << 28  # bytes of a refused request's body that are still read
DRAIN_TIMEOUT = 30.0  # seconds
MAX_JSON = 1 << 16  # bytes
MAX_JSON_BODY = 1 << 21  # bytes, of requests that name many tracks
MAX_PART_HEADERS = 1 << 13  # bytes of the headers of a form's part
FORM_OVERHEAD = 1 << 16  # bytes of a form around its file
FORM_START = re.compile(rb"\s*--[^\r\n]+\r?\ncontent-", re.IGNORECASE)
INCOMPLETE = "the file is incomplete; send it again"
USAGE = (
    "send the song in a form (curl -F file=@song.mp3 ADDRESS/api/tracks) or as the whole body "
    "(curl -X POST -T song.mp3 'ADDRESS/api/tracks?name=song.mp3')"
)


async def read_body(request: Request) -> AsyncIterator[bytes]:
    """Yield a request's body as it arrives.

    Raises:
        UnsupportedError: the body is compressed.
        BadRequestError: the body is incomplete, or nothing arrives for a while.
    """
    encodings = ",".join(request.headers.getlist("content-encoding")).split(",")
    if not {encoding.strip().lower() for encoding in encodings} <= {"identity", ""}:
        raise UnsupportedError(
            "compressed bodies are not supported; send the file without Content-Encoding"
        )
    chunks = request.stream()
    while True:
        try:
            yield await asyncio.wait_for(anext(chunks), TIMEOUT)
        except StopAsyncIteration:
            return
        except ClientDisconnect:
            raise BadRequestError(INCOMPLETE) from None
        except TimeoutError:
            raise BadRequestError("nothing has arrived for a while; send the file again") from None


class DrainMiddleware:
    """Reads the rest of a refused request's body before the connection is closed.

    A connection that is closed while data arrives is reset: many clients, and proxies, then lose
    the response. The response is sent first, so that clients that watch for it can stop.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and delay the end of its response until the body has arrived."""
        if scope["type"] != "http" or not _has_body(scope):
            await self.app(scope, receive, send)
            return
        is_complete = False

        async def receive_until_complete() -> Message:
            nonlocal is_complete
            message = await receive()
            is_complete = not message.get("more_body", False)
            return message

        async def send_draining(message: Message) -> None:
            is_end = message["type"] == "http.response.body" and not message.get("more_body")
            if is_end and not is_complete:
                await send({**message, "more_body": True})
                message = {"type": "http.response.body", "body": b""}
                drained = 0
                with suppress(TimeoutError):
                    async with asyncio.timeout(DRAIN_TIMEOUT):
                        while not is_complete and drained < MAX_DRAINED:
                            drained += len((await receive_until_complete()).get("body", b""))
            await send(message)

        await self.app(scope, receive_until_complete, send_draining)


class JSONLimitMiddleware:
    """Refuses bodies of JSON that are longer than `MAX_JSON_BODY`: they are read as a whole."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and stop reading its body at the limit."""
        if scope["type"] != "http" or "json" not in Headers(scope=scope).get("content-type", ""):
            await self.app(scope, receive, send)
            return
        size = 0

        async def receive_limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_JSON_BODY:
                raise HTTPException(413, "the JSON is too long")
            return message

        await self.app(scope, receive_limited, send)


def _has_body(scope: Scope) -> bool:
    """Return whether a body follows the request, without waiting for a `100 Continue`."""
    headers = Headers(scope=scope)
    is_sent = "content-length" in headers or "transfer-encoding" in headers
    return is_sent and "expect" not in headers


async def read_all(chunks: AsyncIterator[bytes], limit: int, problem: str) -> bytes:
    """Return all chunks as one.

    Raises:
        BadRequestError: with the message `problem`: they have more than `limit` bytes.
    """
    data = bytearray()
    async for chunk in chunks:
        data += chunk
        if len(data) > limit:
            raise BadRequestError(problem)
    return bytes(data)


async def read_json(request: Request) -> dict[str, Any]:
    """Return the JSON object in a request's body.

    Raises:
        BadRequestError: the body is too long.
        InvalidValueError: it is not a JSON object.
    """
    data = await read_all(read_body(request), MAX_JSON, "the JSON is too long")
    try:
        body = json.loads(data)
        json.dumps(body, ensure_ascii=False).encode()  # raises for an unpaired surrogate
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise InvalidValueError("the body must be a JSON object")
    return body


# Files


async def receive(chunks: AsyncIterator[bytes], path: Path, limits: Limits) -> int:
    """Write a file to `path` while it arrives; return its size.

    Raises:
        TooLargeError: the file is larger than the limit.
        DiskFullError: the disk has no space for it.
        BadRequestError: the file is empty or incomplete.
        UnsupportedError: the file is a form with another Content-Type.
    """
    size, buffer = 0, bytearray()
    with path.open("wb") as file:

        async def write() -> None:
            if size == len(buffer) and FORM_START.match(buffer):
                raise UnsupportedError(f"the body is a form, but its Content-Type is not; {USAGE}")
            check_size(size, path.parent, limits, written=size - len(buffer))
            await to_thread.run_sync(file.write, bytes(buffer))
            buffer.clear()

        async for chunk in chunks:
            buffer += chunk
            size += len(chunk)
            if len(buffer) >= BLOCK:
                await write()
        await write()
        # Otherwise a crash of the machine could leave a row in the database and an empty file.
        await to_thread.run_sync(os.fsync, file.fileno())
    if not size:
        raise BadRequestError("the file is empty")
    return size


def check_size(size: int, folder: Path, limits: Limits, written: int = 0) -> None:
    """Raise an error if a file is too large for the limits or the disk.

    Args:
        size: bytes of the file.
        folder: on the disk.
        limits: of the server.
        written: bytes of the file that are on the disk already.

    Raises:
        TooLargeError: the file is larger than the limit.
        DiskFullError: the disk has no space for it.
    """
    if size > limits.upload_bytes:
        raise TooLargeError(
            f"the file is larger than the {limits.upload_bytes / 1e6:.0f} MB that this server takes"
        )
    free = shutil.disk_usage(folder).free
    if free - (size - written) < limits.free_bytes:
        raise DiskFullError("the server's disk is full; delete some tracks first")


@contextmanager
def removed_on_error(folder: Path) -> Iterator[None]:
    """Remove a folder if the block raises."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def shown_name(name: str) -> str:
    """Return a client's name of a file as people see it: without folders and control characters."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return "".join(c for c in last if c.isprintable()).strip()[:LONGEST] or "track"


def safe_name(name: str) -> str:
    """Return a client's name of a file as a single part of a path that every system accepts."""
    name = name.replace("\\", "/").rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    if not dot or len(suffix) > 10:
        stem, dot, suffix = name, "", ""
    limit = LONGEST - len(suffix.encode("utf-8", "replace")) - 1
    short = stem.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")
    return file_name(f"{file_name(short) or 'track'}{dot}{suffix}") or "track"


# Forms


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
    """A multipart/form-data body (RFC 7578), read part by part while it arrives.

    Args:
        content_type: the request's header.
        chunks: the request's body.

    Raises:
        BadRequestError: the header has no boundary.
    """

    def __init__(self, content_type: str, chunks: AsyncIterator[bytes]) -> None:
        boundary = _parse_headers(f"content-type: {content_type}").get_boundary()
        if not boundary:
            raise BadRequestError(
                "the form's Content-Type has no boundary; let the HTTP library set this header"
            )
        self._delimiter = b"\r\n--" + boundary.encode("latin-1", "replace")
        self._chunks, self._buffer = chunks, bytearray()

    async def parts(self) -> AsyncIterator[Part]:
        """Yield the parts.

        Raises:
            BadRequestError: the body is not a form with this boundary, or is incomplete.
            UnsupportedError: a part is encoded.
        """
        start = self._delimiter[2:]
        if await self._read(len(start)) != start:
            raise BadRequestError("the form does not begin with its Content-Type's boundary")
        while (ending := await self._read(2)) == b"\r\n":
            data = await read_all(
                self._read_until(b"\r\n\r\n"),
                MAX_PART_HEADERS,
                "the headers of a form part are too long",
            )
            headers = _parse_headers(data.decode("utf-8", "replace"))
            encoding = headers.get("content-transfer-encoding", "binary").strip().lower()
            if encoding not in ("binary", "8bit", "7bit"):
                raise UnsupportedError(
                    "form parts with a Content-Transfer-Encoding are not supported"
                )
            field = _disposition_parameter(headers, "name")
            if field is None:
                raise BadRequestError("a part of the form has no name")
            filename = _disposition_parameter(headers, "filename")
            yield Part(field, filename, self._read_until(self._delimiter))
        if ending != b"--":
            raise BadRequestError(INCOMPLETE)

    async def _read_until(self, mark: bytes) -> AsyncIterator[bytes]:
        """Yield the bytes before a mark, and skip the mark."""
        while (end := self._buffer.find(mark)) < 0:
            # The last bytes may be the beginning of the mark.
            if (count := len(self._buffer) - len(mark) + 1) > 0:
                yield self._take(count)
            if not await self._receive():
                raise BadRequestError(INCOMPLETE)
        yield self._take(end)
        self._take(len(mark))

    async def _read(self, count: int) -> bytes:
        """Return the next `count` bytes, or fewer at the end."""
        while len(self._buffer) < count and await self._receive():
            pass
        return self._take(count)

    async def _receive(self) -> bool:
        chunk = await anext(self._chunks, None)
        self._buffer += chunk or b""
        return chunk is not None

    def _take(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data


def _parse_headers(text: str) -> EmailMessage:
    return HeaderParser().parsestr(text)


def _disposition_parameter(headers: EmailMessage, name: str) -> str | None:
    """Return a parameter of Content-Disposition; `name*` (RFC 5987) takes precedence."""
    try:
        parameters = headers.get_params([], header="content-disposition")
        values = [value for key, value in parameters if key.lower() == name]
        return collapse_rfc2231_value(values[-1]).replace("%22", '"') if values else None
    except ValueError:  # a codec that cannot decode text
        raise BadRequestError("a name in the form cannot be read; write it in UTF-8") from None
