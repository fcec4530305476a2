"""One look at the database for all streams of events."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from anyio import to_thread

from htdemucs.serve.db import Tracks

LOG = logging.getLogger(__name__)
EVERY = 0.2  # seconds
MOST_WAITING = 100  # messages for a slow client; then it has to come again
PING = 15.0  # seconds; proxies end silent connections


class Changes:
    """Tells every stream what has changed, in order, nothing twice and nothing torn."""

    def __init__(self, tracks: Tracks) -> None:
        self._tracks = tracks
        self._version = 0
        self._streams: set[asyncio.Queue[tuple[int, str] | None]] = set()
        self._task: asyncio.Task[None] | None = None

    @property
    def streams(self) -> int:
        """Number of open streams."""
        return len(self._streams)

    async def start(self) -> None:
        """Begin to look."""
        self._version = await to_thread.run_sync(self._tracks.database.version)
        self._task = asyncio.create_task(self._look())

    async def stop(self) -> None:
        """End all streams."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        for queue in self._streams:
            self._end(queue)

    async def follow(self, since: int | None) -> AsyncIterator[str]:
        """Yield events as text: first what changed after `since` (None: everything), then news."""
        queue: asyncio.Queue[tuple[int, str] | None] = asyncio.Queue(MOST_WAITING)
        self._streams.add(queue)
        try:
            known, text = await to_thread.run_sync(self._snapshot, since)
            yield text
            while True:
                try:
                    item = await asyncio.wait_for(queue.get(), PING)
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                if item is None:
                    return
                version, text = item
                if version > known:
                    yield text
        finally:
            self._streams.discard(queue)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            try:
                news = await to_thread.run_sync(self._news)
            except Exception:  # the database may be away for a while
                LOG.exception("the database does not answer")
                continue
            for queue in list(self._streams) if news else ():
                try:
                    queue.put_nowait(news)
                except asyncio.QueueFull:
                    self._end(queue)

    def _end(self, queue: "asyncio.Queue[tuple[int, str] | None]") -> None:
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(None)

    def _news(self) -> tuple[int, str] | None:
        """Return the event of what has changed since the last look; None if nothing has."""
        if self._tracks.database.version() == self._version:
            return None
        version, changed, removed = self._tracks.changes(self._version)
        self._version = version
        return version, _event(version, changed, removed)

    def _snapshot(self, since: int | None) -> tuple[int, str]:
        version, changed, removed = self._tracks.changes(since)
        if since is not None and since > version:  # of another database
            since = None
            version, changed, removed = self._tracks.changes(None)
        return version, _event(version, changed, removed, whole=since is None)


def _event(
    version: int, changed: list[dict[str, Any]], removed: list[str], whole: bool = False
) -> str:
    data = {"version": version, "tracks": changed, "removed": removed, "whole": whole}
    return f"event: tracks\nid: {version}\ndata: {json.dumps(data)}\n\n"
