"""The client of a real server, and the script that uses it."""

import io
import json
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
import uvicorn

from htdemucs.audio import AudioFile
from htdemucs.client import Client
from htdemucs.errors import ServerError
from htdemucs.serve.app import create_app
from htdemucs.serve.auth import Access
from htdemucs.serve.settings import Limits

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def address(state, worker):
    """A server in a thread, and a worker in another."""
    woken, ending = threading.Event(), threading.Event()
    state.wake = woken.set

    def work():
        while not ending.is_set():
            woken.wait()
            woken.clear()
            while worker.work():
                pass

    app = create_app(state, Access.to("long secret"))
    config = uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1)
    server, listening = uvicorn.Server(config), threading.Event()
    startup = server.startup

    async def started(sockets=None):
        await startup(sockets)
        listening.set()

    server.startup = started
    threads = [threading.Thread(target=server.run), threading.Thread(target=work)]
    for thread in threads:
        thread.start()
    listening.wait()
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    ending.set()
    woken.set()
    for thread in threads:
        thread.join()


def read(path):
    return torch.cat(list(AudioFile(path)), dim=1)


def test_the_client_separates_a_song(address, write_song, tmp_path):
    client, seen = Client(address, "long secret", interval=0.01), []
    files = client.separate(write_song(tmp_path / "song.flac"), tmp_path / "out", seen.append)
    assert list(files) == ["drums", "bass", "other", "vocals"]
    assert all(path.parent == tmp_path / "out" for path in files.values())
    assert seen[-1]["state"] == "finished"
    [track] = client.tracks("song")
    mix = client.download(track["id"], tmp_path / "mix.wav", kind="mix", format="wav", bit_depth=32)
    torch.testing.assert_close(read(mix), sum(read(path) for path in files.values()))
    client.delete(track["id"])
    assert client.tracks() == []
    assert not list(tmp_path.glob("**/*.partial"))


def test_an_upload_is_repeated_with_its_key(address, write_song, tmp_path):
    client, song = Client(address, "long secret"), write_song(tmp_path / "song.flac")
    first, again = (client.add(song, "a key", stems="bass") for _ in range(2))
    assert first["id"] == again["id"]
    assert len(client.tracks()) == 1


def test_an_interrupted_download_keeps_the_old_file(tmp_path, monkeypatch):
    class Broken(io.BytesIO):
        def read(self, *_):
            raise ConnectionResetError("reset")

    client = Client()
    monkeypatch.setattr(client, "_open", lambda *_, **__: Broken())
    (tmp_path / "mix.wav").write_text("before")
    (tmp_path / "mix.wav.partial").write_text("of another process")
    with pytest.raises(ConnectionResetError):
        client.download("1", tmp_path / "mix.wav", kind="mix")
    contents = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert contents == {"mix.wav": "before", "mix.wav.partial": "of another process"}


def test_the_client_raises_the_server_s_message(address, write_song, tmp_path):
    client = Client(address, "long secret", interval=0.01)
    with pytest.raises(ServerError, match="token"):
        Client(address).tracks()
    with pytest.raises(ServerError, match="no model of that name"):
        client.add(write_song(tmp_path / "song.flac"), model="kazoo")
    broken = tmp_path / "broken.mp3"
    broken.write_bytes(b"nothing")
    with pytest.raises(ServerError, match=r"broken\.mp3"):
        client.separate(broken, tmp_path / "out")
    for unreachable in ("http://127.0.0.1:9", "nonsense"):
        with pytest.raises(ServerError, match="cannot be reached"):
            Client(unreachable).tracks()


@pytest.fixture
def limits():
    return Limits(free_bytes=0, upload_bytes=1 << 20)


def test_the_response_is_read_if_the_server_stops_reading(address, tmp_path):
    """The server closes the connection; what it said would be lost."""
    large = tmp_path / "large.wav"
    with large.open("wb") as file:
        file.truncate(64 << 20)
    with pytest.raises(ServerError, match="larger than the 1 MB"):
        Client(address, "long secret").add(large)
    with pytest.raises(ServerError, match="token"):
        Client(address, "wrong").add(large)


@pytest.mark.parametrize("size", [1_000_000, 30_000_000])
def test_programs_that_send_all_before_they_read_get_the_refusal(address, size):
    """Closing the connection while data arrives would reset it."""
    for _ in range(3):
        body, headers = io.BytesIO(bytes(size)), {"Content-Length": str(size)}
        request = urllib.request.Request(f"{address}/api/tracks", body, headers)  # without token
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request)
        assert caught.value.code == 401
        assert "a token is required" in json.load(caught.value)["error"]


def test_the_client_stops_sending_when_it_is_refused(address, tmp_path, monkeypatch):
    monkeypatch.setattr("htdemucs.serve.request_body.MAX_DRAINED", 0)
    path = tmp_path / "long.wav"
    with path.open("wb") as file:
        file.truncate(10 << 30)
    with pytest.raises(ServerError, match="a token is required"):
        Client(address).add(path)


def test_a_closed_connection_is_an_error(in_background):
    listener = socket.create_server(("127.0.0.1", 0))

    def hang_up():
        connection, _ = listener.accept()
        connection.close()

    in_background(hang_up)
    with pytest.raises(ServerError, match="cannot be reached"):
        Client(f"http://127.0.0.1:{listener.getsockname()[1]}").tracks()
    listener.close()


def test_the_example_makes_karaoke_versions(state, address, write_song, tmp_path, monkeypatch):
    song = write_song(tmp_path / "song.flac")
    monkeypatch.setenv("HTDEMUCS_TOKEN", "long secret")
    command = [sys.executable, EXAMPLES / "remote.py", address, song, tmp_path / "missing.mp3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "song.flac: finished, 4 s done" in done.stdout
    assert "missing.mp3" in done.stderr
    assert read(tmp_path / "song (karaoke).flac").shape == (2, 32_000)
