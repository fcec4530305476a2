"""Worker processes: starting, waking and restarting them, and requeueing the jobs of dead ones."""

import json
import os
import secrets
import subprocess
import sys
from contextlib import suppress

from htdemucs.serve.db import UNAVAILABLE
from htdemucs.serve.jobs import Jobs
from htdemucs.serve.periodic import PeriodicThread
from htdemucs.serve.settings import Settings

CHECK_INTERVAL = 0.2  # seconds between checks of the workers
RELEASE_TIMEOUT = 60.0  # seconds in which a worker must release a cancelled job
MAX_RESTART_DELAY = 30.0  # seconds before a worker that keeps dying is started again
STOP_TIMEOUT = 5.0  # seconds between the end of a worker's standard input and its SIGKILL


class Supervisor:
    """Starts workers, wakes them, and restarts them when they die."""

    def __init__(self, settings: Settings, jobs: Jobs) -> None:
        self._jobs = jobs
        self._workers = [_WorkerProcess(settings) for _ in range(settings.workers)]
        self._thread = PeriodicThread("supervisor", CHECK_INTERVAL, self.check)

    def start(self) -> None:
        """Queue the jobs that an earlier server left, and start the workers."""
        self._jobs.requeue()
        for worker in self._workers:
            worker.start()
        self._thread.start()

    def wake(self) -> None:
        """Let idle workers look at the queue."""
        for worker in self._workers:
            worker.wake()

    def stop(self) -> None:
        """Stop the workers; their jobs are resumed at the next start."""
        self._thread.stop()
        for worker in self._workers:
            worker.stop()
        with suppress(*UNAVAILABLE):  # the next start does it, too
            self._jobs.requeue()

    def check(self) -> None:
        """Restart dead workers, and kill those that do not release a cancelled job in time."""
        overdue = self._jobs.workers_to_release()
        for worker in self._workers:
            if worker.is_dead():
                if not worker.is_requeued:
                    self._jobs.requeue(worker.name, crashed=True)
                    worker.is_requeued = True
                worker.restart_after_delay()
            elif worker.name in overdue:
                worker.count_down_to_kill()
            else:
                worker.reduce_restart_delay()


class _WorkerProcess:
    """A worker's process; when it has died, its successor."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._restart_delay, self._waited = 0.0, 0.0  # seconds
        self._time_to_release = RELEASE_TIMEOUT

    def start(self) -> None:
        self._time_to_release = RELEASE_TIMEOUT
        self.is_requeued = False  # whether the job of the dead process is in the queue again
        self.name = secrets.token_hex(8)
        # With several workers, OpenMP threads that spin while they wait would slow others down.
        wait = {"OMP_WAIT_POLICY": "PASSIVE"} if self._settings.workers > 1 else {}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "htdemucs.serve.worker"],
            stdin=subprocess.PIPE,
            text=True,
            env=wait | os.environ,
        )
        self._send(json.dumps({"name": self.name, "settings": self._settings.as_json()}))

    def is_dead(self) -> bool:
        return self.process.poll() is not None

    def restart_after_delay(self) -> None:
        """Start a successor: the first one immediately, later ones after a growing delay."""
        if self._waited < self._restart_delay:
            self._waited += CHECK_INTERVAL
            return
        self._restart_delay = min(2 * self._restart_delay + CHECK_INTERVAL, MAX_RESTART_DELAY)
        self._waited = 0.0
        self.start()

    def reduce_restart_delay(self) -> None:
        """Shorten the delay before the next restart, because the process is running."""
        self._time_to_release = RELEASE_TIMEOUT
        self._restart_delay = max(0.0, self._restart_delay - CHECK_INTERVAL)

    def count_down_to_kill(self) -> None:
        """Kill the process when its time is over; the decoder may hang in a damaged file."""
        self._time_to_release -= CHECK_INTERVAL
        if self._time_to_release <= 0:
            self.process.kill()

    def wake(self) -> None:
        self._send("")

    def stop(self) -> None:
        with suppress(OSError):
            if self.process.stdin:
                self.process.stdin.close()
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _send(self, line: str) -> None:
        with suppress(OSError, ValueError):  # the process died
            if self.process.stdin:
                self.process.stdin.write(f"{line}\n")
                self.process.stdin.flush()
