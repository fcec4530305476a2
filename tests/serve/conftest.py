import asyncio
import threading
from pathlib import Path

import httpx
import pytest
import torch

from helpers import TINY, awake
from htdemucs import AudioEncoding, HTDemucs, HTDemucsConfig
from htdemucs.audio import AudioWriter
from htdemucs.serve.app import create_app
from htdemucs.serve.app_state import AppState
from htdemucs.serve.auth import Access
from htdemucs.serve.settings import Limits, Settings
from htdemucs.serve.worker import Worker
from htdemucs.weights import save_model
from serve import postgresql as postgres


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The folder of a tiny model with segments of a second at 8 kHz."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_model(awake(HTDemucs(HTDemucsConfig(**TINY))).eval(), folder)
    return str(folder)


@pytest.fixture
def write_song():
    """Return a function that writes a song of noise; every seed gives another song."""

    def write(path, seed=0, seconds=4.0, rate=8000):
        path.parent.mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(seed)
        samples = 0.1 * torch.randn(2, int(seconds * rate), generator=generator)
        with AudioWriter(path, rate, 2, AudioEncoding(path.suffix[1:])) as writer:
            writer.write(samples)
        return path

    return write


@pytest.fixture
def limits():
    return Limits(free_bytes=0)


@pytest.fixture(scope="session")
def postgresql():
    """The URL of a real PostgreSQL."""
    with postgres.running() as url:
        yield url


@pytest.fixture
def database_url():
    """None: SQLite, in the server's folder."""


@pytest.fixture
def settings(tmp_path, model, limits, database_url):
    return Settings.in_folder(tmp_path / "data", database=database_url, model=model, limits=limits)


@pytest.fixture
def state(settings):
    state = AppState(settings)
    yield state
    state.preview_builder.stop()
    state.database.close()


@pytest.fixture
def worker(state):
    """A worker in this process."""
    return Worker(state.settings, "worker", state.database)


class Client:
    """Sends requests to the application without a network."""

    def __init__(self, app):
        self.app = app

    def session(self):
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://localhost:8000")

    def request(self, method, path, **options):
        async def ask():
            async with self.session() as session:
                return await session.request(method, path, **options)

        return asyncio.run(ask())

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def post(self, path, **options):
        return self.request("POST", path, **options)

    def delete(self, path):
        return self.request("DELETE", path)

    def upload(self, path, **parameters):
        response = self.post(
            "/api/tracks", params={"name": Path(path).name} | parameters,
            content=Path(path).read_bytes(),
        )  # fmt: skip
        assert response.status_code == 201, response.text
        return response.json()

    def track(self, track):
        return self.get(f"/api/tracks/{track}").json()


@pytest.fixture(scope="session")
def apps():
    """The application without a token and with one. Each test puts its own state into them."""
    return create_app(None), create_app(None, Access.to("secret", ["music.example"]))


@pytest.fixture
def client(apps, state):
    app, _ = apps
    app.state.htdemucs = state
    return Client(app)


@pytest.fixture
def guarded(apps, state):
    """A client that needs the token."""
    _, app = apps
    app.state.htdemucs = state
    return Client(app)


@pytest.fixture
def in_background():
    """Return a function that starts a call in a thread, which the test's end waits for."""
    threads = []

    def start(call):
        threads.append(threading.Thread(target=call))
        threads[-1].start()
        return threads[-1]

    yield start
    for thread in threads:
        thread.join()
