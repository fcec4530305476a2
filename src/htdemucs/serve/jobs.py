"""The queue of tracks: claiming, reporting progress, finishing, cancelling and requeueing.

The state of a track goes from "queued" to "separating" when a worker claims it, and then to
"finished", "failed" or "cancelled". A worker writes its name into the row. After a cancellation or
deletion the name stays until the worker has noticed. Two workers never write the same files.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, case, func, or_, select, update

from htdemucs.errors import BUSY, ConflictError, HTDemucsError
from htdemucs.serve.db import DELETED, SERVER, TRACKS, Database, Row
from htdemucs.serve.tracks import Tracks, select_rows, touch_queued

T = TRACKS.c
OTHER = TRACKS.alias().c
MAX_CRASHES = 3  # a track fails when so many workers have died while they separated it
WORKER_DIED = "worker-died"  # error code of such a track
WITHOUT_STEMS = ("unseparated", "failed", "cancelled")  # states from which a track is queued
INITIAL: Row = {
    "done": 0.0, "speed": None, "error": None, "code": None, "warnings": [], "ended": None,
    "ranges": [], "key": None,
}  # fmt: skip


class JobCancelledError(HTDemucsError):
    """The job is no longer this worker's: it was cancelled, deleted or given to another worker."""


class Jobs:
    """The transitions of the queue. Each call is one change of the database."""

    def __init__(self, database: Database) -> None:
        self.database, self._tracks = database, Tracks(database)

    # Called by requests

    def enqueue(self, track: str, **values: Any) -> None:
        """Append a track to the queue, for the first time or again.

        Raises:
            NotFoundError: the track does not exist.
            ConflictError: the track is queued, being separated or finished.
        """
        condition = T.state.in_(WITHOUT_STEMS)
        last = select(func.max(OTHER.queue_position) + 1).scalar_subquery()
        values = INITIAL | {"state": "queued", "crash_count": 0, "queue_position": last} | values
        self._transition(track, condition, "is queued, being separated or finished", values)

    def enqueue_all(
        self, tracks: Sequence[str], room: int, **values: Any
    ) -> tuple[list[str], list[str]]:
        """Append tracks to the queue in this order, but those that are queued or have stems.

        Returns the ids of the first `room` of them, which are queued now, and of the others.
        """
        with self.database.writing() as (connection, version):
            without_stems = set(connection.scalars(select(T.id).where(T.state.in_(WITHOUT_STEMS))))
            chosen = [track for track in dict.fromkeys(tracks) if track in without_stems]
            last = connection.scalar(select(func.max(T.queue_position))) or 0
            for position, track in enumerate(chosen[:room], last + 1):
                queued: Row = {"state": "queued", "crash_count": 0, "queue_position": position}
                connection.execute(
                    update(TRACKS).where(T.id == track).values(INITIAL | queued | values)
                )
            touch_queued(connection, version)
        return chosen[:room], chosen[room:]

    def prioritize(self, track: str) -> None:
        """Move a queued track to the head of the queue.

        Raises:
            NotFoundError: the track does not exist.
            ConflictError: the track is not queued.
        """
        first = select(func.min(OTHER.queue_position) - 1).scalar_subquery()
        self._transition(track, T.state == "queued", "is not queued", {"queue_position": first})

    def cancel(self, track: str) -> None:
        """Cancel a job; its worker notices before the next segment.

        Raises:
            NotFoundError: the track does not exist.
            ConflictError: the track is neither queued nor being separated.
        """
        values = {"state": "cancelled", "ended": time.time(), "seek_frame": None}
        self._transition_job(track, values)

    def request_seek(self, track: str, frame: int) -> None:
        """Ask the worker to separate the part that starts at a frame next.

        Raises:
            NotFoundError: the track does not exist.
            ConflictError: the track is neither queued nor being separated.
        """
        self._transition_job(track, {"seek_frame": frame})

    def _transition_job(self, track: str, values: Row) -> None:
        is_job = T.state.in_(("queued", "separating"))
        self._transition(track, is_job, "is neither queued nor being separated", values)

    def _transition(
        self, track: str, condition: ColumnElement[bool], problem: str, values: Row
    ) -> None:
        with self.database.writing() as (connection, version):
            changed = connection.execute(
                update(TRACKS).where(T.id == track, condition).values(version=version, **values)
            )
            touch_queued(connection, version)
        if not changed.rowcount:
            name = self._tracks.row(track)["name"]
            raise ConflictError(f"{name} {problem}")

    # Called by workers

    def claim(self, worker: str) -> Row | None:
        """Give the next track to a worker and return its row; None if the queue is empty."""
        condition = (T.state == "queued", T.worker.is_(None))
        next_track = select(T.id).where(*condition).order_by(T.queue_position).limit(1)
        with self.database.reading() as connection:  # usually empty: then there is no change
            if connection.scalar(next_track) is None:
                return None
        with self.database.writing() as (connection, version):
            track = connection.scalar(next_track)
            if track is None:
                return None
            touch_queued(connection, version)
            connection.execute(
                update(TRACKS)
                .where(T.id == track)
                .values(INITIAL | {"state": "separating", "worker": worker})
            )
            # Read here: after this transaction the track may be deleted at any time.
            return dict(connection.execute(select_rows(T.id == track)).mappings().one())

    def check(self, track: str, worker: str) -> int | None:
        """Return the frame of the pending seek request, or None.

        Raises:
            JobCancelledError: the job is not this worker's any more.
        """
        query = select(T.seek_frame).where(T.id == track, *_held_by(worker))
        with self.database.reading() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise JobCancelledError(f"{track} was cancelled")
        return None if row[0] is None else int(row[0])

    def clear_seek(self, track: str, worker: str, frame: int) -> None:
        """Clear the seek request for a frame, unless a newer one has replaced it."""
        self._tracks.update(track, *_held_by(worker), T.seek_frame == frame, seek_frame=None)

    def reserve_output(self, row: Row, worker: str, manifest: str, duplicate_index: int) -> bool:
        """Reserve the path of a manifest for a track; return False if another track has it.

        Tracks with the same contents, model and stems share a finished separation. A deleted track
        keeps its path until its files are removed.

        Raises:
            JobCancelledError: the job is not this worker's any more.
        """
        with self.database.writing() as (connection, version):
            others = connection.execute(
                select(T.state, T.model, T.requested_stems, T.shifts).where(
                    T.manifest == manifest,
                    T.id != row["id"],
                    or_(T.state != DELETED, T.worker.is_not(None)),
                )
            ).all()
            same = ("finished", row["model"], row["requested_stems"], row["shifts"])
            if any(tuple(other) != same for other in others):
                return False
            reserved = connection.execute(
                update(TRACKS)
                .where(T.id == row["id"], *_held_by(worker))
                .values(version=version, manifest=manifest, duplicate_index=duplicate_index)
            )
        if not reserved.rowcount:
            raise JobCancelledError(f"{row['id']} was cancelled")
        return True

    def update(self, track: str, worker: str, /, **values: Any) -> None:
        """Write the progress of a job.

        Raises:
            JobCancelledError: the job is not this worker's any more.
        """
        if not self._tracks.update(track, *_held_by(worker), **values):
            raise JobCancelledError(f"{track} was cancelled")

    def finish(self, track: str, worker: str, files: Mapping[str, Row], **values: Any) -> None:
        """End a job successfully.

        Raises:
            JobCancelledError: the job is not this worker's any more.
        """
        ended: Row = {"state": "finished", "worker": None, "ended": time.time()}
        self.update(track, worker, **values | ended, files=dict(files), seek_frame=None)

    def fail(self, track: str, worker: str, error: str, code: str | None = None) -> None:
        """End a job with an error message and its code.

        Raises:
            JobCancelledError: the job is not this worker's any more.
        """
        ended: Row = {"state": "failed", "worker": None, "ended": time.time()}
        self.update(track, worker, **ended, error=error, code=code, seek_frame=None)

    def put_back(self, track: str, worker: str, error: str, code: str | None) -> None:
        """Queue a job again, and say why it has to wait: behind all others if only it is busy.

        Raises:
            JobCancelledError: the job is not this worker's any more.
        """
        last = select(func.max(OTHER.queue_position) + 1).scalar_subquery()
        place: Row = {"queue_position": last} if code == BUSY else {}
        self.update(track, worker, state="queued", worker=None, error=error, code=code, **place)

    def release_cancelled(self, track: str, worker: str) -> bool:
        """Give up a cancelled job whose preview is removed, so that other workers can claim it.

        Returns False if the track was deleted: this worker then has to remove its files.
        """
        with self.database.writing() as (connection, version):
            released = connection.execute(
                update(TRACKS)
                .where(T.id == track, T.worker == worker, T.state != DELETED)
                .values(version=version, worker=None, ranges=[])
            )
        return released.rowcount > 0

    # Called by the supervisor

    def workers_to_release(self) -> set[str]:
        """Return the workers that have not released their cancelled or deleted track yet."""
        query = select(T.worker).where(T.state != "separating", T.worker != SERVER)
        with self.database.reading() as connection:
            return {str(worker) for worker in connection.scalars(query)}

    def requeue(self, worker: str | None = None, *, crashed: bool = False) -> None:
        """Queue the job of a worker again, at its old position.

        If the worker's track was deleted, the server has to remove its files now.

        Args:
            worker: the worker; None: all workers, because an earlier server ended.
            crashed: the worker's process died. A track with which several processes died fails.
        """
        with self.database.writing() as (connection, version):
            held_by = [] if worker is None else [T.worker == worker]
            jobs = [T.state == "separating", *held_by]
            count = T.crash_count + int(crashed)
            values: Row = {"version": version, "worker": None, "crash_count": count}
            if crashed:
                failure: Row = {
                    "state": "failed",
                    "ended": time.time(),
                    "seek_frame": None,
                    "code": WORKER_DIED,
                    "error": "the process that separated this track ended several times; the file "
                    "may need more memory than there is",
                }
                connection.execute(
                    update(TRACKS).where(*jobs, count >= MAX_CRASHES).values(values | failure)
                )
            connection.execute(update(TRACKS).where(*jobs).values(values | {"state": "queued"}))
            touch_queued(connection, version)
            remover = case((T.state == DELETED, SERVER), else_=None)
            connection.execute(
                update(TRACKS).where(T.worker.is_not(None), *held_by).values(worker=remover)
            )


def _held_by(worker: str) -> tuple[ColumnElement[bool], ...]:
    return T.worker == worker, T.state == "separating"
