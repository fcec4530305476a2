"""Calling a function again and again in a thread."""

import logging
import threading
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from htdemucs.errors import reason

LOG = logging.getLogger(__name__)
MAX_INTERVAL = 5.0  # seconds between attempts while a call fails


class PeriodicThread:
    """Calls a function every `interval` seconds, for the first time immediately.

    If it raises an exception, it is called again after a growing delay: the disk or the database
    may be unavailable for a while. Only the first failure is logged, and the recovery.
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
        delay, failed = self._interval, False
        while not self._stopping.is_set():
            try:
                self._call()
            except Exception as error:
                if not failed:
                    expected = isinstance(error, SQLAlchemyError | OSError)
                    text = reason(error) if expected else "unexpected error"
                    LOG.warning("%s: %s; trying again", self._name, text, exc_info=not expected)
                failed, delay = True, max(self._interval, min(2 * delay, MAX_INTERVAL))
            else:
                if failed:
                    LOG.warning("%s: works again", self._name)
                failed, delay = False, self._interval
            self._stopping.wait(delay)
