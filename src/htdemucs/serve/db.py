"""The database: one row a track, and a counter that numbers all changes.

MERGED: Deleting tracks: what was uploaded goes, what is the user's own stays.
MERGED: The page's tracks: reading them, adding and changing them, and the form the API gives them.
MERGED: The queue: who takes a track, how far it is, and how it ends.
"""

import logging
import re
import secrets
import shutil
import threading
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    RowMapping,
    String,
    Table,
    Text,
    and_,
    case,
    create_engine,
    event,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from htdemucs.audio.tags import read_fields
from htdemucs.batch import read_manifest
from htdemucs.errors import ConflictError, HTDemucsError, NotFoundError, ServerError
from htdemucs.serve.error_codes import WORKER_DIED
from htdemucs.serve.settings import Settings
from htdemucs.stems.output_options import OutputOptions

BUSY = 30.0  # seconds that a writer waits for another one
LIVE = ("found", "queued", "separating", "finished", "failed", "cancelled")
DELETED = "deleted"  # a tombstone
SERVER = "server"  # as `worker` of a deleted track: the server has to remove its files
METADATA = MetaData()
COUNTER = Table("counter", METADATA, Column("value", BigInteger, nullable=False))
TRACKS = Table(
    "tracks",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("version", BigInteger, nullable=False, index=True),  # number of its last change
    Column("kind", String(8), nullable=False),  # upload or library
    Column("state", String(12), nullable=False),
    Column("turn", BigInteger, nullable=False, default=0),  # queued tracks: the smallest is next
    Column("worker", String(64)),  # separates it, or removes its files after deletion
    Column("deaths", Integer, nullable=False, default=0),  # of workers, with this track
    Column("seek", BigInteger),  # frame from which somebody wants to listen
    Column("path", Text),  # of the track's file
    Column("place", Text, index=True),  # path of its manifest
    Column("stamp", BigInteger),  # mtime_ns of the manifest, or of the file where there is none
    Column("copy", Integer),  # 2 for the second track of the same name
    Column("name", Text, nullable=False),
    Column("title", Text),
    Column("artist", Text),
    Column("album", Text),
    Column("searchable", Text, nullable=False, default=""),  # name and tags after `fold_for_search`
    Column("model", Text),
    Column("stems", JSON, nullable=False, default=list),
    Column("wanted", JSON),  # stems asked for; null: all of the model's
    Column("sample_rate", Integer),
    Column("channels", Integer, nullable=False, default=2),
    Column("frames", BigInteger),
    Column("ranges", JSON, nullable=False, default=list),  # of the preview
    Column("done", Float, nullable=False, default=0.0),  # seconds
    Column("speed", Float),
    Column("error", Text),
    Column("code", String(16)),  # of the error
    Column("warnings", JSON, nullable=False, default=list),
    Column("files", JSON, nullable=False, default=dict),  # {stem: {path, bytes}}
    Column("created", Float, nullable=False),  # seconds since 1970
    Column("ended", Float),
    Index("tracks_queue", "state", "turn"),
)
Values = dict[str, Any]


class Database:
    """Connections to the database. Every change gets the next number, in the order of commits.

    Raises:
        ServerError: the URL makes no sense, the database cannot be reached, or it is one of another
            version of this package.
    """

    def __init__(self, url: str) -> None:
        try:
            self.engine = _engine(url)
            METADATA.create_all(self.engine)
            with self.engine.begin() as connection:
                if connection.scalar(select(COUNTER.c.value)) is None:
                    connection.execute(insert(COUNTER).values(value=0))
        except (SQLAlchemyError, ImportError) as error:
            text = " ".join(str(getattr(error, "orig", None) or error).split())
            raise ServerError(
                f"the database cannot be opened ({text}); check the database's URL"
            ) from error
        try:
            with self.reading() as connection:
                connection.execute(select(TRACKS).limit(0))
        except SQLAlchemyError as error:
            raise ServerError(
                f"{self.engine.url} was made by another version of htdemucs; move it away, or name "
                "another database"
            ) from error

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection for single queries, which wait for nobody."""
        with self.engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def writing(self) -> Iterator[tuple[Connection, int]]:
        """Give a connection and the number of this change; others that write wait until its end."""
        with self.engine.begin() as connection:
            number = connection.scalar(
                update(COUNTER).values(value=COUNTER.c.value + 1).returning(COUNTER.c.value)
            )
            yield connection, int(number or 0)

    def version(self) -> int:
        """Return the number of the latest change."""
        with self.reading() as connection:
            return int(connection.scalar(select(COUNTER.c.value)) or 0)


def _engine(url: str) -> Engine:
    if url.startswith("postgresql://"):  # SQLAlchemy's default driver is the older psycopg2
        url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"), pool_size=20)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins nothing on its own
    for line in (f"busy_timeout={int(1000 * BUSY)}", "journal_mode=WAL", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {line}").close()


def _begin_sqlite(connection: Connection) -> None:
    # Otherwise two that read and then write would stop each other.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def now() -> float:
    """Return the seconds since 1970."""
    return time.time()


LOG = logging.getLogger(__name__)
T = TRACKS.c


class Deletion:
    """Deletes tracks and their files.

    One transaction writes the tombstone and decides who removes the files: the worker that holds
    the track, otherwise the server. Until then no other track can be given the same place.

    Args:
        settings: where the files are.
        tracks: the list.
        holder: name of the worker in whose process this is, or `SERVER`.
    """

    def __init__(self, settings: Settings, tracks: "Tracks", holder: str = SERVER) -> None:
        self._settings, self._tracks, self._holder = settings, tracks, holder
        self._lock = threading.Lock()

    def delete(self, track: str, *conditions: ColumnElement[bool]) -> None:
        """Delete a track if the conditions hold. A worker that holds it removes its files later.

        Raises:
            NotFoundError: there is no such track, or the conditions do not hold.
        """
        if self._tracks.delete(track, *conditions) == self._holder:
            self.remove_files(track)

    def sweep(self) -> None:
        """Remove files that dead workers left, and those that could not be removed earlier."""
        for row in self._tracks.all(T.state == DELETED, T.worker == self._holder):
            self.remove_files(row["id"])

    def remove_files(self, track: str) -> None:
        """Remove the files of a deleted track if this holder has to."""
        mine = (T.id == track, T.state == DELETED, T.worker == self._holder)
        with self._lock:  # after the first removal another track may be given the place
            for row in self._tracks.all(*mine):
                try:
                    self._remove(row)
                except OSError as error:
                    LOG.warning("%s: its files cannot be removed yet (%s)", row["name"], error)
                    self._tracks.hand_over(track, SERVER)
                else:
                    self._tracks.hand_over(track, None)

    def _remove(self, row: Values) -> None:
        is_upload, place = row["kind"] == "upload", row["place"]
        _remove_folder(self._settings.previews / row["id"])
        if is_upload:
            _remove_folder(self._settings.uploads / row["id"])
        if place is None or (row["files"] and not is_upload):
            return  # the files of a finished library track are the user's
        if self._tracks.all(T.place == place, T.state != DELETED):
            return
        folder, library = Path(place).parent, self._settings.library
        unfinished = folder.glob(".htdemucs-*")
        for path in (*unfinished, *(self._stems(row, folder) if is_upload else ())):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # something else is in a folder
            for empty in (folder, *folder.parents):
                if empty == library or not empty.is_relative_to(library):
                    return
                empty.rmdir()

    def _stems(self, row: Values, folder: Path) -> Iterator[Path]:
        """Yield the manifest and the stems of an upload, unless `htdemucs separate` made them."""
        manifest = Path(row["place"])
        if document := read_manifest(manifest):
            source = Path(str(document["source"].get("path")))
            if source.is_relative_to(self._settings.uploads):
                yield manifest
                yield from (folder / str(file.get("path")) for file in document["files"].values())
        elif row["files"]:
            yield from (Path(file["path"]) for file in row["files"].values())
        else:  # a worker may have died after writing stems and before writing the manifest
            extension = OutputOptions().encoding.extension
            for path in (folder / f"{stem}.{extension}" for stem in row["stems"]):
                if path.is_file() and path.stat().st_mtime >= row["created"]:
                    yield path


def _remove_folder(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        raise OSError(f"{folder} is in use")


LONGEST_LIST = 1000  # tracks in one answer
LONGEST_TEXT = 500  # characters
SEARCHED = ("name", "title", "artist", "album")
Document = dict[str, Any]  # a track as the API shows it

# page/tracks.js has the same tables.
MARKS = re.compile(
    "[\u0300-\u036f\u0483-\u0487\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"  # accents
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670"  # points
    "\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]"  # invisible characters
)
SPACES = re.compile("[\u0000-\u0020\u007f-\u00a0\u1680\u2028\u2029]+")
ALIKE = str.maketrans({
    "ß": "ss", "æ": "ae", "œ": "oe", "þ": "th", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h",
    "ŧ": "t", "ı": "i", "ς": "σ",
    **dict.fromkeys("‘’‛ʼʻ′", "'"), **dict.fromkeys("“”„‟", '"'), **dict.fromkeys("‐‒–—―−", "-"),
})  # fmt: skip


class Tracks:
    """Reads and writes the rows of tracks; the work on them is that of `Jobs`."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, **values: Any) -> str:
        """Add a track and return its id."""
        track = values.pop("id", None) or new_id()
        with self.database.writing() as (connection, version):
            row = {"id": track, "version": version, "turn": version, "created": now()} | values
            connection.execute(insert(TRACKS).values(row | _searchable(row)))
        return str(track)

    def add_all(self, rows: Sequence[Values]) -> None:
        """Add many tracks in one change."""
        with self.database.writing() as (connection, version):
            same = {"version": version, "turn": version, "created": now()}
            for row in rows:  # one by one: they have different columns
                connection.execute(
                    insert(TRACKS).values({"id": new_id()} | same | row | _searchable(row))
                )

    def row(self, track: str) -> Values:
        """Return a track's row.

        Raises:
            NotFoundError: there is none, or it was deleted.
        """
        with self.database.reading() as connection:
            row = connection.execute(_select(T.id == track, T.state != DELETED)).mappings().first()
        if row is None:
            raise NotFoundError("there is no such track")
        return dict(row)

    def document(self, track: str) -> Document:
        """Return a track as the API shows it.

        Raises:
            NotFoundError: there is none.
        """
        return shown(self.row(track))

    def page(
        self,
        search: str = "",
        states: Sequence[str] = (),
        offset: int = 0,
        limit: int = LONGEST_LIST,
    ) -> tuple[int, list[Document]]:
        """Return how many tracks there are, and some of them: jobs first, then the newest.

        Args:
            search: words that must all be in a track's name or tags, in any order, compared after
                `fold_for_search`.
            states: of the tracks; by default all.
            offset: how many to leave out at the beginning.
            limit: how many to return at most.
        """
        conditions = [T.state != DELETED]
        if states:
            conditions.append(T.state.in_(states))
        words = fold_for_search(search).split()
        conditions += [T.searchable.contains(word, autoescape=True) for word in words]
        jobs = case((T.state == "separating", 0), (T.state == "queued", 1), else_=2)
        turn = case((T.state == "queued", T.turn), else_=0)
        query = _select(*conditions).order_by(jobs, turn, T.created.desc(), T.id)
        with self.database.reading() as connection:
            total = connection.scalar(select(func.count()).select_from(TRACKS).where(*conditions))
            rows = connection.execute(query.offset(offset).limit(limit)).mappings().all()
        return int(total or 0), [shown(row) for row in rows]

    def changes(self, since: int | None) -> tuple[int, list[Document], list[str]]:
        """Return the latest version, the tracks changed after `since`, and those deleted.

        Without `since` all tracks are changed. What changes meanwhile may be in it too.
        """
        version = self.database.version()
        conditions = [T.version > since] if since is not None else [T.state != DELETED]
        with self.database.reading() as connection:
            query = _select(*conditions).order_by(T.version)
            rows = connection.execute(query).mappings().all()
        changed = [shown(row) for row in rows if row["state"] != DELETED]
        removed = [row["id"] for row in rows if row["state"] == DELETED]
        return version, changed, removed

    def change(self, track: str, *conditions: ColumnElement[bool], **values: Any) -> bool:
        """Change a track's row if the conditions hold; return whether they do."""
        with self.database.writing() as (connection, version):
            done = connection.execute(
                update(TRACKS)
                .where(T.id == track, T.state != DELETED, *conditions)
                .values(version=version, **values)
            )
            if done.rowcount and not values.keys().isdisjoint(SEARCHED):
                columns = [T[name] for name in SEARCHED]
                row = connection.execute(select(*columns).where(T.id == track)).mappings().one()
                searchable = update(TRACKS).where(T.id == track).values(_searchable(row))
                connection.execute(searchable)
            return done.rowcount > 0

    def delete(self, track: str, *conditions: ColumnElement[bool]) -> str:
        """Turn a track into a tombstone if the conditions hold.

        Returns who has to remove its files: the worker that holds the track, otherwise `SERVER`.

        Raises:
            NotFoundError: there is no such track, or the conditions do not hold.
        """
        with self.database.writing() as (connection, version):
            holder = connection.scalar(
                update(TRACKS)
                .where(T.id == track, T.state != DELETED, *conditions)
                .values(
                    version=version, state=DELETED, ended=now(), ranges=[],
                    worker=func.coalesce(T.worker, SERVER),
                )
                .returning(T.worker)
            )  # fmt: skip
            if holder is not None:
                positions_changed(connection, version)
        if holder is None:
            raise NotFoundError("there is no such track")
        return str(holder)

    def hand_over(self, track: str, holder: str | None) -> None:
        """Set who has to remove a deleted track's files; None: they are removed."""
        values: Values = {"worker": holder} if holder else {"worker": None, "files": {}}
        with self.database.writing() as (connection, _):
            deleted = (T.id == track, T.state == DELETED)
            connection.execute(update(TRACKS).where(*deleted).values(values))

    def all(self, *conditions: ColumnElement[bool]) -> list[Values]:
        """Return the rows for which the conditions hold; tombstones too."""
        with self.database.reading() as connection:
            return [dict(row) for row in connection.execute(_select(*conditions)).mappings()]

    def count(self, *states: str) -> int:
        """Return how many tracks are in these states."""
        query = select(func.count()).select_from(TRACKS).where(T.state.in_(states))
        with self.database.reading() as connection:
            return int(connection.scalar(query) or 0)


def positions_changed(connection: Connection, version: int) -> None:
    """Give all queued tracks a new version, because their positions in the queue changed."""
    connection.execute(update(TRACKS).where(T.state == "queued").values(version=version))


def new_id() -> str:
    """Return an id that nobody guesses."""
    return secrets.token_hex(8)


def _select(*conditions: ColumnElement[bool]) -> Any:
    """Return the query for rows, with their positions in the queue."""
    before = TRACKS.alias()
    position = (
        select(func.count())
        .select_from(before)
        .where(and_(before.c.state == "queued", before.c.turn <= T.turn))
        .scalar_subquery()
    )
    return select(
        TRACKS, case((T.state == "queued", position), else_=None).label("position")
    ).where(*conditions)


def fold_for_search(text: str) -> str:
    """Return a text in lower case without accents, full-width forms and typographic quotes."""
    text = MARKS.sub("", unicodedata.normalize("NFKD", text)).lower()
    return SPACES.sub(" ", text.translate(ALIKE))


def _searchable(row: RowMapping | Mapping[str, Any]) -> Values:
    return {"searchable": fold_for_search(" ".join(filter(None, map(row.get, SEARCHED))))}


def tags(path: Path) -> dict[str, str | None]:
    """Return what a file's tags say, as text that every program can read."""
    found = read_fields(path)
    return {name: found.get(name) and clean(found[name]) for name in ("title", "artist", "album")}


def clean(text: str) -> str:
    """Return a text from a file as every database takes it: Unicode, not too long, no NUL."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")[:LONGEST_TEXT]


def shown(row: RowMapping | Mapping[str, Any]) -> Document:
    """Return a track as the API shows it."""
    rate, frames, speed = row["sample_rate"], row["frames"], row["speed"]
    duration = frames / rate if rate and frames else None
    left = (duration - row["done"]) / speed if duration and speed else None
    same = ("id", "version", "name", "title", "artist", "album", "kind", "state", "position")
    more = ("model", "stems", "sample_rate", "channels", "frames", "done", "ranges", "speed")
    return {
        **{name: row[name] for name in same + more},
        "duration": duration,
        "left": max(0.0, left) if left is not None and row["state"] == "separating" else None,
        "error": row["error"],
        "code": row["code"],
        "warnings": row["warnings"],
        "created": _iso(row["created"]),
        "ended": _iso(row["ended"]),
        "files": {stem: _file(row["id"], stem, file) for stem, file in row["files"].items()},
    }


def _file(track: str, stem: str, file: Mapping[str, Any]) -> Document:
    name = str(file["path"]).replace("\\", "/").rpartition("/")[2]
    url = f"/api/tracks/{track}/stems/{quote(stem, safe='')}"
    return {"name": name, "bytes": file["bytes"], "url": url}


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


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
