"""The server process: uvicorn, the workers, and the lock on the data folder."""

import secrets
import socket
import tempfile
from collections.abc import Callable
from contextlib import ExitStack

import uvicorn

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


def stored_token(settings: Settings) -> str:
    """Return the token in the data folder, which the first call writes."""
    make_folders(settings)
    path = settings.data / "token"
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


def serve(
    settings: Settings, access: Access, listener: socket.socket, on_ready: Callable[[], None]
) -> None:
    """Serve on `listener` until a signal, then close it.

    `on_ready` is called when requests are accepted.

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
        config = uvicorn.Config(
            create_app(state, access, supervisor),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=3,
        )
        _Server(config, state, on_ready).run(sockets=[listener])


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
