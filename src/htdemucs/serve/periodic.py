"""Calling a function again and again in a thread."""

import logging
import threading
from collections.abc import Callable

LOG = logging.getLogger(__name__)


class PeriodicThread:
    """Calls a function every `interval` seconds, for the first time immediately.

    An exception is logged, and the function is called again: the disk or the database may be
    unavailable for a while.
    """

    def __init__(self, name: str, interval: float, call: Callable[[], object]) -> None:
        self._name, self._interval, self._call = name, interval, call
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float | None = None) -> None:
        """Stop after the current call; wait for it, at most `timeout` seconds."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._call()
            except Exception:
                LOG.exception("%s failed; it is tried again in %g s", self._name, self._interval)
            self._stopping.wait(self._interval)
