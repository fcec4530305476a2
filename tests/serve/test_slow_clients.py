"""Clients that do not finish their headers are disconnected; slow uploads and streams are not."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
import uvicorn

from htdemucs.serve import server
from htdemucs.serve.app import create_app

PATIENCE = 60  # seconds before a test gives up; none depends on it
HEAD = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
UPLOAD = b"POST /api/tracks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n"
STREAM = b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n"


@asynccontextmanager
async def connected(state):
    """Serve, and yield a connection's reader and writer."""
    running = uvicorn.Server(server.make_config(create_app(state)))
    listener = server.listening_socket("127.0.0.1", 0)
    task = asyncio.create_task(running.serve(sockets=[listener]))
    while not running.started:
        await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    try:
        async with asyncio.timeout(PATIENCE):
            yield reader, writer
    finally:
        writer.close()
        running.should_exit = True
        await task


async def is_closed(reader):
    """Wait until the server closes the connection; return what it sent before."""
    with suppress(ConnectionError):
        return await reader.read()


async def read_response(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if b"content-length" in line)
    return head.split()[1], await reader.readexactly(int(length.split(b":")[1]))


@pytest.mark.parametrize("sent", [b"", b"G", HEAD, HEAD + b"X-More: " + b"x" * 1000])
def test_half_sent_headers_are_closed(state, monkeypatch, sent):
    monkeypatch.setattr(server, "HEADER_TIMEOUT", 0.05)

    async def go():
        async with connected(state) as (reader, writer):
            writer.write(sent)
            assert not await is_closed(reader)

    asyncio.run(go())


def test_headers_that_trickle_are_closed(state, monkeypatch):
    monkeypatch.setattr(server, "HEADER_TIMEOUT", 0.05)

    async def go():
        async with connected(state) as (reader, writer):
            writer.write(HEAD + b"X-More: ")
            while not reader.at_eof():
                writer.write(b"x")
                with suppress(TimeoutError, ConnectionError):
                    await asyncio.wait_for(reader.read(), 0.01)

    asyncio.run(go())


def test_half_sent_headers_of_a_later_request_are_closed(state, monkeypatch):
    async def go():
        async with connected(state) as (reader, writer):
            for _ in range(2):
                writer.write(HEAD + b"\r\n")
                assert (await read_response(reader))[0] == b"200"
            monkeypatch.setattr(server, "HEADER_TIMEOUT", 0.05)
            writer.write(HEAD)
            assert not await is_closed(reader)

    asyncio.run(go())


@pytest.mark.parametrize("request_head", [UPLOAD, STREAM])
def test_slow_uploads_and_event_streams_are_not_closed(state, monkeypatch, request_head):
    """Its time runs until the headers are complete, and then no more."""

    async def go():
        timers, loop = [], asyncio.get_running_loop()
        call_later = loop.call_later

        def record(delay, *arguments, **options):
            timer = call_later(delay, *arguments, **options)
            if delay == server.HEADER_TIMEOUT:
                timers.append(timer)
            return timer

        monkeypatch.setattr(loop, "call_later", record)
        async with connected(state) as (reader, writer):
            writer.write(request_head[:20])
            while not timers:
                await asyncio.sleep(0.01)
            assert not timers[0].cancelled()
            writer.write(request_head[20:])
            if request_head == STREAM:
                assert b"event: tracks" in await reader.readuntil(b"event: tracks")
            else:
                for byte in b"abc":
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0.01)
                assert (await read_response(reader))[0] == b"201"
            assert [timer.cancelled() for timer in timers] == [True]

    asyncio.run(go())
