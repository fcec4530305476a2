"""The queue: who takes a track, how far it is, and how it ends."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, case, func, or_, select, update

from htdemucs.errors import ConflictError, HTDemucsError
from htdemucs.serve.problems import WORKER_DIED
from htdemucs.serve.tables import DELETED, SERVER, TRACKS, Database, Values, now
from htdemucs.serve.tracks import Tracks, positions_changed

T = TRACKS.c
MOST_DEATHS = 3  # of workers; then the track is to blame
FRESH: Values = {
    "done": 0.0, "speed": None, "error": None, "code": None, "warnings": [], "ended": None,
    "ranges": [],
}  # fmt: skip


class WithdrawnError(HTDemucsError):
    """The job is no longer this worker's: it was cancelled, deleted or given to another."""


class Jobs:
    """What workers and requests do with the queue. Each call is one change of the database."""

    def __init__(self, database: Database) -> None:
        self.database, self._tracks = database, Tracks(database)

    # What workers do

    def claim(self, worker: str) -> Values | None:
        """Give the next track to a worker; None if none waits."""
        free = (T.state == "queued", T.worker.is_(None))
        following = select(T.id).where(*free).order_by(T.turn).limit(1)
        with self.database.reading() as connection:
            if connection.scalar(following) is None:
                return None
        with self.database.writing() as (connection, version):
            track = connection.scalar(following)
            if track is None:
                return None
            positions_changed(connection, version)
            connection.execute(
                update(TRACKS)
                .where(T.id == track)
                .values(FRESH | {"state": "separating", "worker": worker})
            )
        return self._tracks.row(track)

    def look(self, track: str, worker: str) -> int | None:
        """Return the frame from which somebody wants to listen.

        Raises:
            WithdrawnError: the job is not this worker's any more.
        """
        query = select(T.seek).where(T.id == track, *_held_by(worker))
        with self.database.reading() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise WithdrawnError(f"{track} was withdrawn")
        return None if row[0] is None else int(row[0])

    def report(self, track: str, holder: str, /, **values: Any) -> None:
        """Write how far a job is.

        Raises:
            WithdrawnError: the job is not this worker's any more.
        """
        if not self._tracks.change(track, *_held_by(holder), **values):
            raise WithdrawnError(f"{track} was withdrawn")

    def reached(self, track: str, worker: str, frame: int) -> None:
        """Take back the wish for a frame, unless another one has come."""
        self._tracks.change(track, *_held_by(worker), T.seek == frame, seek=None)

    def place(self, row: Values, worker: str, place: str, copy: int) -> bool:
        """Reserve a place for a track's files; False if it is another track's.

        Tracks of the same contents, model and stems share a place once it is finished. A deleted
        track keeps its place until its files are removed.

        Raises:
            WithdrawnError: the job is not this worker's any more.
        """
        with self.database.writing() as (connection, version):
            others = connection.execute(
                select(T.state, T.model, T.wanted).where(
                    T.place == place,
                    T.id != row["id"],
                    or_(T.state != DELETED, T.worker.is_not(None)),
                )
            ).all()
            same = ("finished", row["model"], row["wanted"])
            if any((state, model, wanted) != same for state, model, wanted in others):
                return False
            reserved = connection.execute(
                update(TRACKS)
                .where(T.id == row["id"], *_held_by(worker))
                .values(version=version, place=place, copy=copy)
            )
        if not reserved.rowcount:
            raise WithdrawnError(f"{row['id']} was withdrawn")
        return True

    def finish(self, track: str, worker: str, files: Mapping[str, Values], **values: Any) -> None:
        """End a job well.

        Raises:
            WithdrawnError: the job is not this worker's any more.
        """
        self._end(track, worker, state="finished", files=dict(files), seek=None, **values)

    def fail(self, track: str, worker: str, reason: str, code: str | None = None) -> None:
        """End a job with a reason for people, and its code.

        Raises:
            WithdrawnError: the job is not this worker's any more.
        """
        self._end(track, worker, state="failed", error=reason, code=code)

    def _end(self, track: str, holder: str, **values: Any) -> None:
        self.report(track, holder, **values | {"ended": now(), "worker": None})

    def let_go(self, track: str, worker: str) -> bool:
        """Give up a withdrawn job whose preview is removed, so that other workers can claim it.

        Returns False if the track was deleted: this worker then has to remove its files.
        """
        with self.database.writing() as (connection, version):
            given_up = connection.execute(
                update(TRACKS)
                .where(T.id == track, T.worker == worker, T.state != DELETED)
                .values(version=version, worker=None, ranges=[])
            )
        return given_up.rowcount > 0

    # What the supervisor does

    def withdrawn(self) -> set[str]:
        """Return the workers whose jobs were withdrawn, and who have not let go yet."""
        query = select(T.worker).where(T.state != "separating", T.worker != SERVER)
        with self.database.reading() as connection:
            return {str(worker) for worker in connection.scalars(query)}

    def release(self, worker: str | None) -> None:
        """Put the job of a dead worker back to the queue's head; without a name, those of all.

        A track with which several workers died has failed. The server removes the files of deleted
        tracks that the worker held.
        """
        with self.database.writing() as (connection, version):
            its = [] if worker is None else [T.worker == worker]
            held, died = [T.state == "separating", *its], 0 if worker is None else 1
            connection.execute(
                update(TRACKS)
                .where(*held, T.deaths + died >= MOST_DEATHS)
                .values(
                    version=version, state="failed", worker=None, ended=now(), deaths=T.deaths + 1,
                    code=WORKER_DIED,
                    error="the process that separated this track ended several times; the file "
                    "may need more memory than there is",
                )
            )  # fmt: skip
            connection.execute(
                update(TRACKS)
                .where(*held)
                .values(version=version, state="queued", worker=None, deaths=T.deaths + died)
            )
            positions_changed(connection, version)
            holder = case((T.state == DELETED, SERVER), else_=None)
            connection.execute(
                update(TRACKS).where(T.worker.is_not(None), *its).values(worker=holder)
            )

    # What requests do

    def cancel(self, track: str) -> None:
        """Take a job from the queue, or from its worker.

        Raises:
            NotFoundError: there is no such track.
            ConflictError: it is no job.
        """
        jobs = T.state.in_(("queued", "separating"))
        values = {"state": "cancelled", "ended": now(), "seek": None}
        self._change(track, jobs, "is neither queued nor being separated", values)

    def queue(self, track: str, **values: Any) -> None:
        """Queue a track that is no job: again, or for the first time.

        Raises:
            NotFoundError: there is no such track.
            ConflictError: it is a job, or finished.
        """
        ready = T.state.in_(("found", "failed", "cancelled"))
        turn = select(func.max(COPY.c.turn) + 1).scalar_subquery()
        values = FRESH | {"state": "queued", "deaths": 0, "turn": turn} | values
        self._change(track, ready, "is queued, being separated or finished", values)

    def first(self, track: str) -> None:
        """Bring a queued track to the head of the queue.

        Raises:
            NotFoundError: there is no such track.
            ConflictError: it is not queued.
        """
        turn = select(func.min(COPY.c.turn) - 1).scalar_subquery()
        self._change(track, T.state == "queued", "is not queued", {"turn": turn})

    def seek(self, track: str, frame: int) -> None:
        """Wish to listen from a frame on.

        Raises:
            NotFoundError: there is no such track.
            ConflictError: it is no job.
        """
        jobs = T.state.in_(("queued", "separating"))
        self._change(track, jobs, "is neither queued nor being separated", {"seek": frame})

    def _change(
        self, track: str, condition: ColumnElement[bool], problem: str, values: Values
    ) -> None:
        with self.database.writing() as (connection, version):
            done = connection.execute(
                update(TRACKS).where(T.id == track, condition).values(version=version, **values)
            )
            positions_changed(connection, version)
        if not done.rowcount:
            name = self._tracks.row(track)["name"]
            raise ConflictError(f"{name} {problem}")


COPY = TRACKS.alias()


def _held_by(worker: str) -> tuple[ColumnElement[bool], ...]:
    return T.worker == worker, T.state == "separating"
