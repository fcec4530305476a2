"""Server-sent events: every open stream gets the changes of all tracks.

One thread polls the database for all streams. Events are complete, ordered and never repeated.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from anyio import to_thread

from htdemucs.serve.periodic import PeriodicThread
from htdemucs.serve.tracks import Tracks

POLL_INTERVAL = 0.2  # seconds between polls
MAX_BACKLOG = 100  # events waiting for a slow client; then its stream ends and it must reconnect
PING_INTERVAL = 15.0  # seconds; proxies close silent connections
Event = tuple[int, str]  # version and text
Subscriber = asyncio.Queue[Event | None]  # None ends the stream


class Changes:
    """Sends every change of the database to all subscribers."""

    def __init__(self, tracks: Tracks) -> None:
        self._tracks = tracks
        self._version = 0  # of the latest event
        self._subscribers: set[Subscriber] = set()
        self._thread: PeriodicThread | None = None

    @property
    def streams(self) -> int:
        """Number of open streams."""
        return len(self._subscribers)

    async def start(self) -> None:
        """Start to poll the database."""
        self._loop = asyncio.get_running_loop()
        self._version = await to_thread.run_sync(self._tracks.database.version)
        self._thread = PeriodicThread("events", POLL_INTERVAL, self.poll)
        self._thread.start()

    async def stop(self) -> None:
        """Stop polling and end all streams."""
        if self._thread:
            await to_thread.run_sync(self._thread.stop)
        for subscriber in self._subscribers:
            _end(subscriber)

    async def subscribe(self, since: int | None) -> AsyncIterator[str]:
        """Yield events as text: first what changed after `since` (None: all tracks), then news."""
        subscriber: Subscriber = asyncio.Queue(MAX_BACKLOG)
        self._subscribers.add(subscriber)
        try:
            known, text = await to_thread.run_sync(self._snapshot, since)
            yield text
            while True:
                try:
                    event = await asyncio.wait_for(subscriber.get(), PING_INTERVAL)
                except TimeoutError:
                    yield ": ping\n\n"
                    continue
                if event is None:
                    return
                version, text = event
                if version > known:  # the snapshot may contain the first events
                    yield text
        finally:
            self._subscribers.discard(subscriber)

    def poll(self) -> None:
        """Send what has changed since the last poll, if anything has."""
        if event := self.delta():
            self._loop.call_soon_threadsafe(self._broadcast, event)

    def delta(self) -> Event | None:
        """Return an event with the changes since the last call; None if there are none."""
        if self._tracks.database.version() == self._version:
            return None
        version, changed, removed = self._tracks.changes(self._version)
        self._version = version
        return version, _format(version, changed, removed)

    def _broadcast(self, event: Event) -> None:
        for subscriber in self._subscribers:
            try:
                subscriber.put_nowait(event)
            except asyncio.QueueFull:
                _end(subscriber)

    def _snapshot(self, since: int | None) -> Event:
        version, changed, removed = self._tracks.changes(since)
        if since is not None and since > version:  # a version of another database
            since = None
            version, changed, removed = self._tracks.changes(None)
        return version, _format(version, changed, removed, whole=since is None)


def _end(subscriber: Subscriber) -> None:
    while not subscriber.empty():
        subscriber.get_nowait()
    subscriber.put_nowait(None)


def _format(
    version: int, changed: list[dict[str, Any]], removed: list[str], whole: bool = False
) -> str:
    data = {"version": version, "tracks": changed, "removed": removed, "whole": whole}
    return f"event: tracks\nid: {version}\ndata: {json.dumps(data)}\n\n"
