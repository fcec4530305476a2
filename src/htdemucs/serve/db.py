"""The database: a table of tracks, which is also the queue, and a counter that numbers all changes.

SQLite and PostgreSQL are supported. `tracks.py` reads and writes tracks, `jobs.py` is the queue,
`storage.py` uses the table of settings.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    insert,
    select,
    update,
)
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from htdemucs.errors import ServerError, reason

STATES = ("unseparated", "queued", "separating", "finished", "failed", "cancelled")
DELETED = "deleted"  # state of a tombstone: clients must learn that the track was deleted
SERVER = "server"  # as `worker` of a deleted track: the server has to remove its files
BUSY_TIMEOUT = 30.0  # seconds that a writer waits for another one

# The database does not answer, or its disk is full: it may work again after a while.
UNAVAILABLE = (OperationalError, InterfaceError, PoolTimeoutError)

METADATA = MetaData()
COUNTER = Table("counter", METADATA, Column("value", BigInteger, nullable=False))
TRACKS = Table(
    "tracks",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("version", BigInteger, nullable=False, index=True),  # number of the latest change
    Column("kind", String(8), nullable=False),  # "upload" or "library"
    Column("state", String(12), nullable=False),  # one of STATES, or DELETED
    Column("queue_position", BigInteger, nullable=False, default=0),  # the smallest is next
    Column("worker", String(64)),  # separates the track or, after its deletion, removes its files
    Column("crash_count", Integer, nullable=False, default=0),  # workers that died with the track
    Column("seek_frame", BigInteger),  # from which a client wants to listen
    Column("path", Text),  # of the track's file
    Column("manifest", Text, index=True),  # path; reserved before the manifest is written
    Column("manifest_mtime_ns", BigInteger),  # of an unseparated track: mtime_ns of its file
    Column("duplicate_index", Integer),  # 2 for the second track of the same name
    Column("name", Text, nullable=False),
    Column("title", Text),
    Column("artist", Text),
    Column("album", Text),
    Column("edits", JSON, nullable=False, default=dict),  # {"title": ...}: set by clients
    Column("search_text", Text, nullable=False, default=""),  # name, tags and edits, folded
    Column("folder", Text),  # of a library track, relative to the library
    Column("model", Text),
    Column("stems", JSON, nullable=False, default=list),
    Column("requested_stems", JSON),  # null: all of the model's
    Column("shifts", Integer, nullable=False, default=1),  # runs to average
    Column("sample_rate", Integer),
    Column("channels", Integer, nullable=False, default=2),
    Column("frames", BigInteger),  # samples per channel
    Column("length", Float),  # seconds, as the header of the track's file states it
    Column("ranges", JSON, nullable=False, default=list),  # frames that the preview has
    Column("done", Float, nullable=False, default=0.0),  # seconds
    Column("speed", Float),  # times real time
    Column("key", String(4)),  # musical, as "F#" or "Am"; null: uncertain
    Column("error", Text),
    Column("code", String(16)),  # of the error
    Column("warnings", JSON, nullable=False, default=list),
    Column("files", JSON, nullable=False, default=dict),  # {stem: {"path", "bytes"}}
    Column("idempotency_key", String(255), index=True),  # of the request that uploaded it
    Column("created", Float, nullable=False),  # Unix time
    Column("ended", Float),
    Index("tracks_queue", "state", "queue_position"),
)
SETTINGS = Table(  # which clients can change
    "settings",
    METADATA,
    Column("name", String(32), primary_key=True),
    Column("value", JSON, nullable=False),
)
Row = dict[str, Any]  # of TRACKS, or some of its columns


class Database:
    """A pool of connections. Every change gets the next number, in the order of commits.

    Raises:
        ServerError: the URL is invalid, the database cannot be opened, or its tables are those of
            another version of this package.
    """

    def __init__(self, url: str) -> None:
        try:
            self.engine = _create_engine(url)
            METADATA.create_all(self.engine)
            with self.engine.begin() as connection:
                if connection.scalar(select(COUNTER.c.value)) is None:
                    connection.execute(insert(COUNTER).values(value=0))
        except (SQLAlchemyError, ImportError) as error:
            raise ServerError(
                f"the database cannot be opened ({reason(error)}); check its file or URL"
            ) from error
        try:
            with self.reading() as connection:
                _check_sqlite(connection)
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
        """Yield a connection for single queries, which wait for no writer."""
        with self.engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def writing(self) -> Iterator[tuple[Connection, int]]:
        """Yield a connection in a transaction, and the number of this change.

        Updating the counter first makes other writers wait until the transaction ends. A client
        that has seen a number has therefore seen all changes with smaller numbers.
        """
        with self.engine.begin() as connection:
            number = connection.scalar(
                update(COUNTER).values(value=COUNTER.c.value + 1).returning(COUNTER.c.value)
            )
            yield connection, int(number or 0)

    def version(self) -> int:
        """Return the number of the latest change."""
        with self.reading() as connection:
            return int(connection.scalar(select(COUNTER.c.value)) or 0)


def _check_sqlite(connection: Connection) -> None:
    """Raise ServerError if the file of a database is damaged."""
    if connection.dialect.name == "sqlite":
        result = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if result != "ok":
            raise ServerError(
                f"{connection.engine.url.database} is damaged; restore a copy of it, or move it "
                "away: the library is then read anew"
            )


def _create_engine(url: str) -> Engine:
    if url.startswith("postgresql://"):  # SQLAlchemy's default driver is the older psycopg2
        url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"), pool_size=20)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_immediate)
    return engine


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin in `_begin_immediate` only
    timeout = f"busy_timeout={int(1000 * BUSY_TIMEOUT)}"
    for pragma in (timeout, "journal_mode=WAL", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_immediate(connection: Connection) -> None:
    # Two deferred transactions that read and then write would block each other.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
