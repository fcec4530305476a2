"""The server process: uvicorn, the workers, and the lock on the data folder."""

import asyncio
import secrets
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from htdemucs.errors import ServerError
from htdemucs.fsutil import file_lock
from htdemucs.serve.app import create_app
from htdemucs.serve.app_state import AppState
from htdemucs.serve.auth import Access
from htdemucs.serve.db import Database
from htdemucs.serve.jobs import Jobs
from htdemucs.serve.settings import Settings
from htdemucs.serve.supervisor import Supervisor

LOOPBACK = ("127.0.0.1", "::1", "localhost")
BACKLOG = 128  # connections that wait to be accepted
HEADER_TIMEOUT = 10.0  # seconds in which a client must send the headers of a request


def make_folders(settings: Settings) -> None:
    """Create the folders of the server.

    Raises:
        ServerError: one cannot be created, or cannot be written.
    """
    for name, folder in {"data": settings.data, "library": settings.library}.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            reason = "it is a file" if folder.is_file() else error.strerror
            raise ServerError(
                f"the {name} folder {folder} cannot be used ({reason}); choose another one"
            ) from error


def stored_secret(settings: Settings, name: str) -> str:
    """Return a random text from a file in the data folder, which the first call writes."""
    make_folders(settings)
    path = settings.data / name
    try:
        with path.open("x", encoding="ascii") as file:
            path.chmod(0o600)
            file.write(secrets.token_urlsafe(24))
    except FileExistsError:
        pass
    return path.read_text(encoding="ascii").strip()


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address; with port 0 the system chooses one.

    Raises:
        ServerError: the port is in use, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ServerError(
            f"{host}:{port} cannot be used ({error.strerror}); choose another port or host"
        ) from error
    return listener


def check_certificate(certificate: Path, private_key: Path | None) -> None:
    """Raise ServerError unless the PEM files are a certificate and its unencrypted key."""
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, private_key, password=lambda: b"")
    except ssl.SSLError as error:
        raise ServerError(
            f"{private_key or certificate} does not contain the unencrypted key of {certificate}, "
            f"or one of them is not a PEM file ({error.reason or error})"
        ) from None
    except OSError as error:
        raise ServerError(f"cannot read {certificate}: {error.strerror or error}") from None


def make_config(
    app: ASGIApp, forwarded_allow_ips: Iterable[str] = (), **options: Any
) -> uvicorn.Config:
    """Return uvicorn's configuration.

    Args:
        app: the application.
        forwarded_allow_ips: addresses or networks of proxies whose X-Forwarded headers are used;
            those of this machine always are.
        options: others of uvicorn, such as `ssl_certfile` and `ssl_keyfile`.
    """
    return uvicorn.Config(
        app,
        http=_Protocol,
        forwarded_allow_ips=["127.0.0.1", "::1", *forwarded_allow_ips],
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
        **options,
    )


def serve(
    settings: Settings,
    access: Access,
    listener: socket.socket,
    on_ready: Callable[[], None],
    **options: Any,
) -> None:
    """Serve on `listener` until a signal, then close it.

    `on_ready` is called when requests are accepted; `options` are those of `make_config`.

    Raises:
        ServerError: another server uses the folder, or the database cannot be opened.
    """
    with ExitStack() as stack:
        stack.enter_context(listener)
        make_folders(settings)
        stack.enter_context(file_lock(settings.data / "lock"))
        database = Database(settings.database)
        stack.callback(database.close)
        supervisor = Supervisor(settings, Jobs(database))
        state = AppState(settings, database, supervisor.wake)
        config = make_config(create_app(state, access, supervisor), **options)
        _Server(config, state, on_ready).run(sockets=[listener])


class _Protocol(H11Protocol):
    """Closes a connection on which the headers of a request do not arrive in HEADER_TIMEOUT.

    The time begins with the connection or, for later requests, with their first byte. Before that
    byte, and only then, uvicorn itself has a limit.
    """

    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._update_header_timer()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._update_header_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._cancel_header_timer()

    def _update_header_timer(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:  # a request is answered
            self._cancel_header_timer()
        elif self._header_timer is None:
            self._header_timer = self.loop.call_later(HEADER_TIMEOUT, self.transport.close)

    def _cancel_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None


class _Server(uvicorn.Server):
    """Calls `on_ready`, and ends event streams before uvicorn waits for open connections."""

    def __init__(
        self, config: uvicorn.Config, state: AppState, on_ready: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._app_state, self._on_ready = state, on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._app_state.changes.stop()
        await super().shutdown(sockets)
