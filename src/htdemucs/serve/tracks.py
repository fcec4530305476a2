"""The rows of tracks: reading, searching, adding and changing them, and their form in the API."""

import re
import secrets
import time
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    case,
    func,
    insert,
    select,
    update,
)

from htdemucs.audio.tags import read_fields, read_length
from htdemucs.errors import NotFoundError
from htdemucs.serve.db import DELETED, SERVER, TRACKS, Database, Row

T = TRACKS.c
MAX_PAGE_SIZE = 1000  # tracks in one response
MAX_TEXT = 500  # characters of a text from a file
EDITABLE = ("title", "artist", "album")
SEARCHED = ("name", *EDITABLE)
Document = dict[str, Any]  # a track as JSON


class Tracks:
    """The table of tracks. `Jobs` has the transitions of the queue."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def row(self, track: str) -> Row:
        """Return a track's row.

        Raises:
            NotFoundError: the track does not exist or was deleted.
        """
        with self.database.reading() as connection:
            query = select_rows(T.id == track, T.state != DELETED)
            row = connection.execute(query).mappings().first()
        if row is None:
            raise NotFoundError("there is no such track")
        return dict(row)

    def get(self, track: str) -> Document:
        """Return a track as JSON.

        Raises:
            NotFoundError: the track does not exist or was deleted.
        """
        return to_dict(self.row(track))

    def rows(self, *conditions: ColumnElement[bool]) -> list[Row]:
        """Return the rows for which the conditions hold, including those of deleted tracks."""
        with self.database.reading() as connection:
            return [dict(row) for row in connection.execute(select_rows(*conditions)).mappings()]

    def count(self, *states: str) -> int:
        """Return the number of tracks in these states."""
        query = select(func.count()).select_from(TRACKS).where(T.state.in_(states))
        with self.database.reading() as connection:
            return int(connection.scalar(query) or 0)

    def search(
        self,
        text: str = "",
        states: Sequence[str] = (),
        offset: int = 0,
        limit: int = MAX_PAGE_SIZE,
    ) -> tuple[int, list[Document]]:
        """Return the number of matching tracks, and one page of them: jobs first, then the newest.

        Args:
            text: words that must all be in a track's name or tags, in any order, compared after
                `fold_for_search`.
            states: of the tracks; empty: all.
            offset: number of tracks to leave out at the beginning.
            limit: maximum number of tracks.
        """
        conditions = [T.state != DELETED]
        if states:
            conditions.append(T.state.in_(states))
        words = fold_for_search(text).split()
        conditions += [T.search_text.contains(word, autoescape=True) for word in words]
        jobs_first = case((T.state == "separating", 0), (T.state == "queued", 1), else_=2)
        position = case((T.state == "queued", T.queue_position), else_=0)
        query = select_rows(*conditions).order_by(jobs_first, position, T.created.desc(), T.id)
        with self.database.reading() as connection:
            total = connection.scalar(select(func.count()).select_from(TRACKS).where(*conditions))
            rows = connection.execute(query.offset(offset).limit(limit)).mappings().all()
        return int(total or 0), [to_dict(row) for row in rows]

    def changes(self, since: int | None) -> tuple[int, list[Document], list[str]]:
        """Return the latest version, the tracks changed after `since`, and the ids of deleted ones.

        If `since` is None, all tracks count as changed. Changes that are committed during this call
        may be included before their version is.
        """
        version = self.database.version()
        condition = T.state != DELETED if since is None else T.version > since
        with self.database.reading() as connection:
            query = select_rows(condition).order_by(T.version)
            rows = connection.execute(query).mappings().all()
        changed = [to_dict(row) for row in rows if row["state"] != DELETED]
        deleted = [row["id"] for row in rows if row["state"] == DELETED]
        return version, changed, deleted

    def add(self, **values: Any) -> str:
        """Add a track and return its id."""
        track = values.setdefault("id", new_id())
        self.add_all([values])
        return str(track)

    def add_all(self, rows: Sequence[Row]) -> None:
        """Add many tracks in one change."""
        with self.database.writing() as (connection, version):
            common = {"version": version, "queue_position": version, "created": time.time()}
            values = [{"id": new_id()} | common | row | _search_text(row) for row in rows]
            for _, alike in groupby(values, dict.keys):  # one statement takes the same columns
                connection.execute(insert(TRACKS), list(alike))

    def update(self, track: str, *conditions: ColumnElement[bool], **values: Any) -> bool:
        """Change a track's row if the conditions hold; return whether they do."""
        with self.database.writing() as (connection, version):
            changed = connection.execute(
                update(TRACKS)
                .where(T.id == track, T.state != DELETED, *conditions)
                .values(version=version, **values)
            )
            if changed.rowcount and not values.keys().isdisjoint(SEARCHED):
                row = connection.execute(select_texts(T.id == track)).mappings().one()
                connection.execute(update(TRACKS).where(T.id == track).values(_search_text(row)))
            return changed.rowcount > 0

    def edit(self, track: str, texts: Mapping[str, str | None]) -> None:
        """Set how a track is shown and searched, whatever its file's tags are later.

        Args:
            track: its id.
            texts: new texts by name, one of `EDITABLE`; None restores the file's tag.

        Raises:
            NotFoundError: the track does not exist or was deleted.
        """
        with self.database.writing() as (connection, version):
            query = select_texts(T.id == track, T.state != DELETED)
            row = connection.execute(query).mappings().first()
            if row is None:
                raise NotFoundError("there is no such track")
            texts = {name: text and storable_text(text).strip() for name, text in texts.items()}
            edits = {n: text for n, text in (row["edits"] | texts).items() if text is not None}
            values = {"version": version, "edits": edits, **_search_text({**row, "edits": edits})}
            connection.execute(update(TRACKS).where(T.id == track).values(values))

    def mark_deleted(self, track: str, *conditions: ColumnElement[bool]) -> str:
        """Turn a track into a tombstone if the conditions hold.

        Returns who has to remove its files: the worker that holds the track, otherwise `SERVER`.

        Raises:
            NotFoundError: the track does not exist, or the conditions do not hold.
        """
        with self.database.writing() as (connection, version):
            owner = connection.scalar(
                update(TRACKS)
                .where(T.id == track, T.state != DELETED, *conditions)
                .values(
                    version=version,
                    state=DELETED,
                    ended=time.time(),
                    ranges=[],
                    worker=func.coalesce(T.worker, SERVER),
                )
                .returning(T.worker)
            )
            if owner is not None:
                touch_queued(connection, version)
        if owner is None:
            raise NotFoundError("there is no such track")
        return str(owner)

    def set_remover(self, track: str, owner: str | None) -> None:
        """Set who has to remove a deleted track's files; None: they are removed."""
        values: Row = {"worker": owner} if owner else {"worker": None, "files": {}}
        with self.database.writing() as (connection, _):
            deleted = (T.id == track, T.state == DELETED)
            connection.execute(update(TRACKS).where(*deleted).values(values))


def new_id() -> str:
    """Return an id that cannot be guessed."""
    return secrets.token_hex(8)


def select_rows(*conditions: ColumnElement[bool]) -> Select[Any]:
    """Return a query for rows, with the `position` (1, 2, ...) of queued tracks in the queue."""
    other = TRACKS.alias()
    position = (
        select(func.count())
        .select_from(other)
        .where(and_(other.c.state == "queued", other.c.queue_position <= T.queue_position))
        .scalar_subquery()
    )
    return select(
        TRACKS, case((T.state == "queued", position), else_=None).label("position")
    ).where(*conditions)


def select_texts(*conditions: ColumnElement[bool]) -> Select[Any]:
    """Return a query for the columns that `search_text` is made of."""
    return select(*[T[name] for name in SEARCHED], T.edits).where(*conditions)


def touch_queued(connection: Connection, version: int) -> None:
    """Give all queued tracks a new version, because their positions in the queue changed."""
    connection.execute(update(TRACKS).where(T.state == "queued").values(version=version))


# As JSON


def to_dict(row: RowMapping | Mapping[str, Any]) -> Document:
    """Return a track as JSON."""
    rate, frames, speed = row["sample_rate"], row["frames"], row["speed"]
    duration = frames / rate if rate and frames else row["length"]
    left = (duration - row["done"]) / speed if duration and speed else None
    same = ("id", "version", "name", "folder", "kind", "state", "position", "model", "stems")
    more = ("shifts", "sample_rate", "channels", "frames", "done", "ranges", "speed", "key")
    return {
        **{name: row[name] for name in same + more},
        **shown_texts(row),
        "duration": duration,
        "left": max(0.0, left) if left is not None and row["state"] == "separating" else None,
        "error": row["error"],
        "code": row["code"],
        "warnings": row["warnings"],
        "created": _iso(row["created"]),
        "ended": _iso(row["ended"]),
        "files": {
            stem: {
                "name": str(file["path"]).replace("\\", "/").rpartition("/")[2],
                "bytes": file["bytes"],
                "url": f"/api/tracks/{row['id']}/stems/{quote(stem, safe='')}",
            }
            for stem, file in row["files"].items()
        },
    }


def shown_texts(row: RowMapping | Mapping[str, Any]) -> dict[str, str | None]:
    """Return title, artist and album as clients see them: edited, else from the tags."""
    edits = row.get("edits") or {}
    return {name: edits.get(name, row.get(name)) or None for name in EDITABLE}


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


# Texts from files


def tag_columns(path: Path) -> Row:
    """Return title, artist and album of a file, as the database can store them, and its length."""
    fields = read_fields(path)
    texts = {name: fields.get(name) and storable_text(fields[name]) for name in EDITABLE}
    return {**texts, "length": read_length(path)}


def folder_in(library: Path, folder: Path) -> str | None:
    """Return a folder relative to the library, with slashes; None if it is outside."""
    if not folder.is_relative_to(library):
        return None
    relative = folder.relative_to(library).as_posix()
    return "" if relative == "." else storable_text(relative)


def storable_text(text: str) -> str:
    """Return a text as every database can store it: valid Unicode, short, without NUL."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")[:MAX_TEXT]


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


def fold_for_search(text: str) -> str:
    """Return a text in lower case without accents, full-width forms and typographic quotes."""
    text = MARKS.sub("", unicodedata.normalize("NFKD", text)).lower()
    return SPACES.sub(" ", text.translate(ALIKE))


def _search_text(row: RowMapping | Mapping[str, Any]) -> Row:
    texts = [row.get("name"), *shown_texts(row).values()]
    return {"search_text": fold_for_search(" ".join(filter(None, texts)))}
