"""The page's tracks: reading them, adding and changing them, and the form the API gives them."""

import re
import secrets
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    and_,
    case,
    func,
    insert,
    select,
    update,
)

from htdemucs.audio.tags import read_fields
from htdemucs.errors import NotFoundError
from htdemucs.serve.tables import DELETED, SERVER, TRACKS, Database, Values, now

T = TRACKS.c
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
