"""The database: one row a track, and a counter that numbers all changes."""

import time
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
from sqlalchemy.exc import SQLAlchemyError

from htdemucs.errors import ServerError

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
                f"the database cannot be opened ({text}); check `database`"
            ) from error
        try:
            with self.reading() as connection:
                connection.execute(select(TRACKS).limit(0))
        except SQLAlchemyError as error:
            raise ServerError(
                f"{self.engine.url} was made by another version of htdemucs; move it away, or name "
                "another one in `database`"
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
