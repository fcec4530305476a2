"""The server: one process for requests, its workers, and one lock on its folder."""

import secrets
import socket
from collections.abc import Callable
from contextlib import ExitStack

import uvicorn

from htdemucs.errors import ServerError
from htdemucs.fsutil import file_lock
from htdemucs.serve.app import create_app
from htdemucs.serve.app_state import Service
from htdemucs.serve.auth import Access
from htdemucs.serve.db import Database, Jobs
from htdemucs.serve.settings import Settings
from htdemucs.serve.supervisor import Supervisor

LOOPBACK = ("127.0.0.1", "::1", "localhost")
BACKLOG = 128


def kept_token(settings: Settings) -> str:
    """Return the token in the server's folder; the first time it is made."""
    path = settings.data / "token"
    settings.data.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="ascii") as file:
            path.chmod(0o600)
            file.write(secrets.token_urlsafe(24))
    except FileExistsError:
        pass
    return path.read_text(encoding="ascii").strip()


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens there; with port 0 the system chooses one.

    Raises:
        ServerError: somebody else listens there, or it is no address of this machine.
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


def serve(
    settings: Settings, access: Access, listener: socket.socket, ready: Callable[[], None]
) -> None:
    """Answer requests until a signal; `ready` is called when the first can come.

    Raises:
        ServerError: another server uses the folder, or the database cannot be opened.
    """
    settings.data.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(file_lock(settings.data / "lock"))
        database = Database(settings.database)
        stack.callback(database.close)
        supervisor = Supervisor(settings, Jobs(database))
        service = Service(settings, database, supervisor.wake)
        config = uvicorn.Config(
            create_app(service, access, supervisor),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=3,
        )
        server = _Server(config, service, ready)
        server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """Says when it is ready, and waits for no stream at its end."""

    def __init__(self, config: uvicorn.Config, service: Service, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._ready = service, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if not self.should_exit:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then everything else."""
        await self._service.changes.stop()
        await super().shutdown(sockets)
