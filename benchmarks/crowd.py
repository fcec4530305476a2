"""Many clients upload, listen, cancel and delete, while the server and its workers are killed.

    python -m benchmarks.crowd [--clients 50] [--kills 3] [--songs 2]

Prints the outcome of every track, the times of requests, and the server's memory.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar
from urllib.request import urlopen

import torch

from htdemucs.audio import AudioEncoding, AudioWriter
from htdemucs.client import Client
from htdemucs.errors import ServerError

T = TypeVar("T")
TIMEOUT = 60.0  # seconds that a server may take to start
SECONDS = 4  # of a song


class Server:
    """`htdemucs serve` in a process that can be restarted."""

    def __init__(self, folder: Path, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        words = f"serve -n mini --data {folder} --port {port} --workers 2 --max-jobs 1000"
        self._command = [sys.executable, "-m", "htdemucs", *words.split()]
        self.peak_memory = 0.0  # MiB
        self.start()

    def start(self) -> None:
        """Start the process and wait until it responds."""
        self.process = subprocess.Popen(self._command)
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            try:
                urlopen(f"{self.address}/health").close()
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise ServerError(f"{self.address} does not respond")

    def workers(self) -> list[int]:
        """Return the process ids of the workers."""
        found = subprocess.run(
            ["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return [int(word) for word in found.stdout.split()]

    def record_memory(self) -> None:
        """Update the peak of the server's memory."""
        status = Path(f"/proc/{self.process.pid}/status")
        if status.exists():
            lines = dict(
                line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines()
            )
            used = int(lines.get("VmRSS", "0 kB").split()[0]) / 1024
            self.peak_memory = max(self.peak_memory, used)


class Visitor(threading.Thread):
    """A client that uploads songs, listens to them, and cancels or deletes some."""

    def __init__(self, address: str, song: Path, number: int, songs: int) -> None:
        super().__init__()
        self._client, self._song, self._songs = Client(address), song, songs
        self._chance = random.Random(number)
        self.fates: dict[str, str] = {}  # the last request for each track
        self.times: list[float] = []  # of requests, in seconds
        self.lost = 0  # requests while the server was down

    def run(self) -> None:
        """Upload songs and listen to them."""
        for _ in range(self._songs):
            track = self._request(partial(self._client.add, self._song))["id"]
            fate = self._chance.choice(["wait", "wait", "wait", "cancel", "delete"])
            self.fates[track] = fate
            for _ in range(self._chance.randrange(10)):
                self._request(partial(self._client.track, track))
                self._listen(track)
                time.sleep(self._chance.random())
            if fate == "cancel":
                self._try(partial(self._client.act, track, "cancel"))
            elif fate == "delete":
                self._try(partial(self._client.delete, track))

    def _listen(self, track: str) -> None:
        def read() -> None:
            with urlopen(f"{self._client.address}/api/tracks/{track}/pcm?frames=44100") as response:
                response.read()

        self._request(read)

    def _try(self, call: Callable[[], Any]) -> None:
        """Make a request that may fail, because the track is finished."""
        with suppress(ServerError):
            self._request(call)

    def _request(self, call: Callable[[], T]) -> T:
        """Return the response; retry while the server is down."""
        while True:
            started = time.monotonic()
            try:
                response = call()
            except ServerError as error:
                if "cannot be reached" not in str(error):
                    raise
            except (OSError, HTTPException):
                pass
            else:
                self.times.append(time.monotonic() - started)
                return response
            self.lost += 1
            time.sleep(0.3)


def outcomes(client: Client, fates: dict[str, str]) -> Counter[tuple[str, str]]:
    """Wait for all tracks; count them by the last request and the final state."""
    ended: Counter[tuple[str, str]] = Counter()
    for track, fate in fates.items():
        try:
            state = client.wait(track)["state"]
        except ServerError:
            state = "gone"
        ended[fate, state] += 1
    return ended


def run_clients(server: Server, song: Path, clients: int, songs: int, kills: int) -> list[Visitor]:
    """Run all clients, kill workers and the server meanwhile, and return the finished clients."""
    visitors = [Visitor(server.address, song, number, songs) for number in range(clients)]
    for visitor in visitors:
        visitor.start()
    for _ in range(kills):
        time.sleep(4)
        server.record_memory()
        for worker in server.workers()[:1]:
            os.kill(worker, signal.SIGKILL)
        time.sleep(4)
        server.process.kill()
        server.process.wait()
        server.start()
    for visitor in visitors:
        visitor.join()
    return visitors


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--songs", type=int, default=2, help="of each client")
    parser.add_argument("--kills", type=int, default=3, help="of the server, and of a worker")
    parser.add_argument("--port", type=int, default=8017)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        song = Path(name) / "song.flac"
        with AudioWriter(song, 44_100, 2, AudioEncoding("flac")) as writer:
            writer.write(0.1 * torch.randn(2, SECONDS * 44_100))
        server = Server(Path(name) / "data", args.port)
        visitors = run_clients(server, song, args.clients, args.songs, args.kills)
        fates = {track: fate for visitor in visitors for track, fate in visitor.fates.items()}
        ended = outcomes(Client(server.address), fates)
        server.record_memory()
        known = {track["id"] for track in Client(server.address).tracks()}
        server.process.send_signal(signal.SIGINT)
        server.process.wait()
    for (fate, state), count in sorted(ended.items()):
        print(f"{count} tracks to {fate}: {state}")
    print(f"tracks that no client uploaded: {len(known - fates.keys())}")
    times = sorted(seconds for visitor in visitors for seconds in visitor.times)
    middle, late = (1000 * times[int(share * len(times))] for share in (0.5, 0.99))
    print(f"{len(times)} requests: median {middle:.0f} ms, 99 % within {late:.0f} ms")
    print(f"requests while the server was down: {sum(visitor.lost for visitor in visitors)}")
    print(f"memory of the server: at most {server.peak_memory:.0f} MiB")


if __name__ == "__main__":
    main()
