"""Many clients at once upload, listen, cancel and delete, while server and workers are killed.

    python -m benchmarks.crowd [--clients 50] [--kills 3] [--songs 2]

Prints what became of every track, the times of requests, and the server's memory.
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
PATIENCE = 60.0  # seconds that a server may take to start
SECONDS = 4  # of a song


class Server:
    """`htdemucs serve` in a process, started again where it was killed."""

    def __init__(self, folder: Path, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        words = f"serve -n mini --data {folder} --port {port} --workers 2 --max-jobs 1000"
        self._command = [sys.executable, "-m", "htdemucs", *words.split()]
        self.most_memory = 0.0  # MiB
        self.start()

    def start(self) -> None:
        """Start, and wait for its first answer."""
        self.process = subprocess.Popen(self._command)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                urlopen(f"{self.address}/health").close()
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise ServerError(f"{self.address} does not answer")

    def workers(self) -> list[int]:
        """Return the process ids of the workers."""
        found = subprocess.run(
            ["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return [int(word) for word in found.stdout.split()]

    def look(self) -> None:
        """Remember how much memory it has."""
        status = Path(f"/proc/{self.process.pid}/status")
        if status.exists():
            lines = dict(
                line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines()
            )
            used = int(lines.get("VmRSS", "0 kB").split()[0]) / 1024
            self.most_memory = max(self.most_memory, used)


class Visitor(threading.Thread):
    """Uploads songs one after another and does with them what people do."""

    def __init__(self, address: str, song: Path, number: int, songs: int) -> None:
        super().__init__()
        self._client, self._song, self._songs = Client(address), song, songs
        self._chance = random.Random(number)
        self.fates: dict[str, str] = {}  # what was done with each track
        self.times: list[float] = []  # of requests, in seconds
        self.lost = 0  # requests while no server was there

    def run(self) -> None:
        """Visit."""
        for _ in range(self._songs):
            track = self._ask(partial(self._client.add, self._song))["id"]
            fate = self._chance.choice(["wait", "wait", "wait", "cancel", "delete"])
            self.fates[track] = fate
            for _ in range(self._chance.randrange(10)):
                self._ask(partial(self._client.track, track))
                self._listen(track)
                time.sleep(self._chance.random())
            if fate == "cancel":
                self._refused(partial(self._client.act, track, "cancel"))
            elif fate == "delete":
                self._refused(partial(self._client.delete, track))

    def _listen(self, track: str) -> None:
        def read() -> None:
            with urlopen(f"{self._client.address}/api/tracks/{track}/pcm?frames=44100") as answer:
                answer.read()

        self._ask(read)

    def _refused(self, call: Callable[[], Any]) -> None:
        """Ask what may be too late."""
        with suppress(ServerError):
            self._ask(call)

    def _ask(self, call: Callable[[], T]) -> T:
        """Return the answer; ask again while the server is dead."""
        while True:
            started = time.monotonic()
            try:
                answer = call()
            except ServerError as error:
                if "cannot be reached" not in str(error):
                    raise
            except (OSError, HTTPException):
                pass
            else:
                self.times.append(time.monotonic() - started)
                return answer
            self.lost += 1
            time.sleep(0.3)


def verdict(client: Client, fates: dict[str, str]) -> Counter[tuple[str, str]]:
    """Wait for all tracks; return how many of each fate ended how."""
    ended: Counter[tuple[str, str]] = Counter()
    for track, fate in fates.items():
        try:
            state = client.wait(track)["state"]
        except ServerError:
            state = "gone"
        ended[fate, state] += 1
    return ended


def visit(server: Server, song: Path, clients: int, songs: int, kills: int) -> list[Visitor]:
    """Let visitors come, and kill meanwhile; return them when they have gone."""
    visitors = [Visitor(server.address, song, number, songs) for number in range(clients)]
    for visitor in visitors:
        visitor.start()
    for _ in range(kills):
        time.sleep(4)
        server.look()
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
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        song = Path(name) / "song.flac"
        with AudioWriter(song, 44_100, 2, AudioEncoding("flac")) as writer:
            writer.write(0.1 * torch.randn(2, SECONDS * 44_100))
        server = Server(Path(name) / "data", chosen.port)
        visitors = visit(server, song, chosen.clients, chosen.songs, chosen.kills)
        fates = {track: fate for visitor in visitors for track, fate in visitor.fates.items()}
        ended = verdict(Client(server.address), fates)
        server.look()
        known = {track["id"] for track in Client(server.address).tracks()}
        server.process.send_signal(signal.SIGINT)
        server.process.wait()
    for (fate, state), count in sorted(ended.items()):
        print(f"{count} tracks to {fate}: {state}")
    print(f"tracks that no client knows of: {len(known - fates.keys())}")
    times = sorted(seconds for visitor in visitors for seconds in visitor.times)
    middle, late = (1000 * times[int(share * len(times))] for share in (0.5, 0.99))
    print(f"{len(times)} requests: median {middle:.0f} ms, 99 % within {late:.0f} ms")
    print(f"requests while no server was there: {sum(visitor.lost for visitor in visitors)}")
    print(f"memory of the server: at most {server.most_memory:.0f} MiB")


if __name__ == "__main__":
    main()
