"""Keeps the workers alive, and the queue free of the dead."""

import json
import logging
import os
import secrets
import subprocess
import sys
import threading
from contextlib import suppress

from htdemucs.serve.db import Jobs
from htdemucs.serve.settings import Settings

LOG = logging.getLogger(__name__)
EVERY = 0.2  # seconds between looks at the workers
PATIENCE = 60.0  # seconds that a worker may take to let go of a withdrawn job
LONGEST_REST = 30.0  # seconds before a worker that keeps dying is started again


class Supervisor:
    """Starts workers, wakes them, and starts them again when they die."""

    def __init__(self, settings: Settings, jobs: Jobs) -> None:
        self._settings, self._jobs = settings, jobs
        self._workers = [_Process(settings) for _ in range(settings.workers)]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def start(self) -> None:
        """Take up what an earlier server left, and begin."""
        self._jobs.release(None)
        for worker in self._workers:
            worker.start()
        self._thread.start()

    def wake(self) -> None:
        """Let idle workers look at the queue."""
        for worker in self._workers:
            worker.wake()

    def stop(self) -> None:
        """End the workers; their jobs are resumed at the next start."""
        self._stopping.set()
        self._thread.join()
        for worker in self._workers:
            worker.stop()
        self._jobs.release(None)

    @property
    def processes(self) -> list[int]:
        """Numbers of the workers' processes."""
        return [worker.process.pid for worker in self._workers]

    def _watch(self) -> None:
        while not self._stopping.wait(EVERY):
            try:
                self.look()
            except Exception:  # the database may be away for a while
                LOG.exception("workers cannot be watched")

    def look(self) -> None:
        """Replace dead workers, and end those that do not let go of what was withdrawn."""
        withdrawn = self._jobs.withdrawn()
        for worker in self._workers:
            if worker.is_dead():
                self._jobs.release(worker.name)
                worker.start_later()
            elif worker.name in withdrawn:
                worker.lose_patience()
            else:
                worker.is_well()


class _Process:
    """One worker's process, and its successors."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rest, self._resting = 0.0, 0.0  # seconds
        self.patience = PATIENCE

    def start(self) -> None:
        self.patience = PATIENCE
        self.name = secrets.token_hex(8)
        line = [sys.executable, "-m", "htdemucs.serve.worker"]
        # Several that watch for their threads awake would take the cores from each other.
        wait = {"OMP_WAIT_POLICY": "PASSIVE"} if self._settings.workers > 1 else {}
        self.process = subprocess.Popen(
            line, stdin=subprocess.PIPE, text=True, env=wait | os.environ
        )
        self._say(json.dumps({"name": self.name, "settings": self._settings.as_json()}))

    def is_dead(self) -> bool:
        return self.process.poll() is not None

    def start_later(self) -> None:
        """Start the successor of a dead process: the first one at once, others after a rest."""
        if self._resting < self._rest:
            self._resting += EVERY
            return
        self._rest, self._resting = min(2 * self._rest + EVERY, LONGEST_REST), 0.0
        self.start()

    def is_well(self) -> None:
        """Forget a little of what went wrong."""
        self.patience = PATIENCE
        self._rest = max(0.0, self._rest - EVERY)

    def lose_patience(self) -> None:
        """End the process when it has taken too long; it may be caught in a strange file."""
        self.patience -= EVERY
        if self.patience <= 0:
            self.process.kill()

    def wake(self) -> None:
        self._say("")

    def stop(self) -> None:
        with suppress(OSError):
            if self.process.stdin:
                self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _say(self, line: str) -> None:
        with suppress(OSError, ValueError):  # it died
            if self.process.stdin:
                self.process.stdin.write(f"{line}\n")
                self.process.stdin.flush()
