"""The server and its workers as processes: kills, restarts, and errors at the start."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from sqlalchemy import text

from htdemucs import Library, Separator, Track
from htdemucs.cli.main import cli
from htdemucs.errors import ServerError
from htdemucs.fsutil import file_lock
from htdemucs.serve import supervisor as supervisor_module
from htdemucs.serve.db import Database
from htdemucs.serve.jobs import Jobs
from htdemucs.serve.settings import Settings
from htdemucs.serve.supervisor import Supervisor

PATIENCE = 120  # seconds before a test gives up; none depends on it


def until(happened, what):
    """Wait until something is true, and return it."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if result := happened():
            return result
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen")


class Server:
    """`htdemucs serve` as a process."""

    def __init__(self, popen, data, model, *options):
        self._popen, self.data = popen, data
        self._line = [
            sys.executable, "-m", "htdemucs", "serve", "--port", "0", "--data", str(data),
            "-n", model, "--keep-free", "0", *options,
        ]  # fmt: skip
        self.process = None

    def start(self):
        self.process = self._popen(self._line, stderr=subprocess.PIPE, text=True)
        line = self.process.stderr.readline()
        assert line.startswith("http://127.0.0.1:"), line + self.process.stderr.read()
        self.client = httpx.Client(base_url=line.split()[0], timeout=60, trust_env=False)
        return self

    def kill(self, number=signal.SIGKILL):
        self.client.close()
        self.process.send_signal(number)
        self.process.wait(PATIENCE)
        self.process.stderr.close()

    def upload(self, song):
        response = self.client.post(f"/api/tracks?name={song.name}", content=song.read_bytes())
        return response.json()["id"]

    def track(self, track):
        return self.client.get(f"/api/tracks/{track}").json()

    def state(self, track):
        return self.track(track)["state"]

    def workers(self):
        """The numbers of its workers' processes."""
        shown = subprocess.run(
            ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(self.process.pid)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        lines = [line.split(None, 1) for line in shown.stdout.splitlines()]
        return [int(pid) for pid, words in lines if "htdemucs.serve.worker" in words]


@pytest.fixture(scope="module")
def server(tmp_path_factory, model, forks):
    """A server that a test kills and starts again, and another one ends."""
    server = Server(forks, tmp_path_factory.mktemp("server") / "data", model).start()
    yield server
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(PATIENCE)
    server.client.close()
    server.process.stderr.close()


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc and ps")
def test_killed_workers_and_servers_lose_nothing(server, model, write_song, tmp_path):
    """A worker and then the server are killed in the midst of a track; its files are the same."""
    song = write_song(tmp_path / "song.flac", seconds=90)
    other = write_song(tmp_path / "other.flac", seed=1)
    track, second = server.upload(song), server.upload(other)
    until(lambda: server.track(track)["done"] > 2, "the first seconds")
    [worker] = server.workers()
    os.kill(worker, signal.SIGKILL)
    until(lambda: server.workers() not in ([], [worker]), "another worker")
    until(lambda: server.track(track)["done"] > 6, "more of the track")
    [worker] = server.workers()
    server.kill()
    until(lambda: not is_alive(worker), "the worker's end")
    server.start()
    assert server.state(track) in ("queued", "separating")
    until(lambda: server.state(second) == "finished", "the end of both")
    shown = server.track(track)
    assert shown["state"] == "finished"
    assert shown["ranges"] == [[0, 90 * 8000]]
    manifest = json.loads(
        (server.data / "separated" / "tiny" / "song" / "htdemucs.json").read_text()
    )
    assert manifest["resumed"] > 2
    library = Library(tmp_path / "alone")
    alone = library.separate(library.assign_output(Track(str(song))), Separator(model, shifts=1))
    for stem, path in alone.files.items():
        response = server.client.get(f"/api/tracks/{track}/stems/{stem}")
        assert response.content == Path(path).read_bytes()


def test_sigterm_ends_the_server_and_its_workers(server):
    workers = server.workers()
    with server.client.stream("GET", "/api/events") as stream:
        assert next(stream.iter_lines()) == "event: tracks"
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(PATIENCE)
    assert not any(is_alive(pid) for pid in workers)


def serve(*arguments):
    """Run the command in this process, where it must fail."""
    result = CliRunner().invoke(cli, ["serve", *map(str, arguments)])
    assert result.exit_code == 1
    return result.stderr


def test_two_servers_cannot_use_the_same_folder(tmp_path):
    with file_lock(tmp_path / "lock"):
        message = serve("--port", 0, "--data", tmp_path)
    assert "another server uses" in message
    assert "choose another data folder" in message


def test_a_port_that_is_in_use_is_refused(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        message = serve("--port", listener.getsockname()[1], "--data", tmp_path)
    assert "choose another port" in message


def test_a_proxy_that_is_not_an_address_is_refused(tmp_path):
    result = CliRunner().invoke(cli, ["serve", "--data", str(tmp_path), "--allow-proxy", "caddy"])
    assert result.exit_code == 2
    assert "write 10.0.0.5 or 10.0.0.0/24" in result.stderr


class Process:
    """A worker's process that does nothing until it is killed."""

    def __init__(self):
        self.code, self.killed, self.stdin, self.pid = None, 0, None, 1

    def poll(self):
        return self.code

    def kill(self):
        self.killed += 1


@pytest.fixture
def supervisor(state, monkeypatch):
    """A supervisor with fake processes, and the list of these. It checks them less often."""
    monkeypatch.setattr(supervisor_module, "CHECK_INTERVAL", 2.0)
    started = []

    def start(*_, **__):
        started.append(Process())
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    supervisor = Supervisor(state.settings, state.jobs)
    for worker in supervisor._workers:
        worker.start()
    return supervisor, started


def test_a_worker_that_does_not_release_its_job_is_killed(
    supervisor, state, client, write_song, tmp_path
):
    supervising, started = supervisor
    track = client.upload(write_song(tmp_path / "song.flac"))["id"]
    name = supervising._workers[0].name
    state.jobs.claim(name)
    for _ in range(40):
        supervising.check()
    assert not started[0].killed  # as long as the job is not cancelled
    state.jobs.cancel(track)
    while not started[0].killed:
        supervising.check()
    started[0].code = -9
    supervising.check()
    assert len(started) == 2
    state.jobs.enqueue(track)
    assert state.jobs.claim("next")["id"] == track


def test_workers_that_keep_dying_are_restarted_after_growing_delays(supervisor):
    supervising, started = supervisor
    for _ in range(50):
        started[-1].code = 1
        supervising.check()
    assert 3 < len(started) < 15
    for _ in range(50):  # a while without deaths
        supervising.check()
    count = len(started)
    started[-1].code = 1
    supervising.check()
    assert len(started) == count + 1


def test_nothing_is_queued_again_while_a_restart_waits(supervisor, state):
    supervising, started = supervisor
    for _ in range(10):  # until a restart has to wait
        started[-1].code = 1
        supervising.check()
    count, version = len(started), state.database.version()
    supervising.check()
    assert (len(started), state.database.version()) == (count, version)


def test_settings_reach_the_worker_whole(tmp_path, settings):
    assert Settings.from_json(json.loads(json.dumps(settings.as_json()))) == settings


def test_a_database_that_cannot_be_opened_is_refused(tmp_path):
    for url in ("nonsense", f"sqlite:///{tmp_path}/no/folder.db", "mysql://x/y", "oops://"):
        with pytest.raises(ServerError, match="the database cannot be opened"):
            Jobs(Database(url))


def test_a_database_of_another_version_is_refused_in_one_line(tmp_path):
    url = f"sqlite:///{tmp_path}/htdemucs.db"
    database = Database(url)
    with database.writing() as (connection, _):
        connection.execute(text("ALTER TABLE tracks DROP COLUMN code"))
    database.close()
    with pytest.raises(ServerError, match=r"htdemucs.db was made by another version .*move it"):
        Database(url)


@pytest.mark.parametrize("option", ["--data", "--library"])
@pytest.mark.parametrize("place", ["file", "file/folder", "/proc/nowhere"])
def test_a_folder_that_cannot_be_used_is_refused_in_one_line(tmp_path, option, place):
    (tmp_path / "file").write_text("not a folder")
    words = [
        "serve",
        "--port",
        "0",
        "--data",
        str(tmp_path / "data"),
        option,
        str(tmp_path / place),
    ]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 1
    [line] = result.stderr.splitlines()
    assert "cannot be used" in line
    assert str(tmp_path / place) in line
