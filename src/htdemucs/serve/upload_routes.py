"""The route that adds a track: an upload, a file of the library, or another separation."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import Field

from htdemucs.errors import (
    BadRequestError,
    InvalidValueError,
    NotFoundError,
    UnknownModelError,
    UnsupportedError,
)
from htdemucs.serve.app_state import AppState, StateDep
from htdemucs.serve.db import DELETED, TRACKS, Row
from htdemucs.serve.request_body import (
    FORM_OVERHEAD,
    INCOMPLETE,
    USAGE,
    Form,
    check_size,
    read_all,
    read_body,
    read_json,
    receive,
    removed_on_error,
    safe_name,
    shown_name,
)
from htdemucs.serve.track_routes import Selection
from htdemucs.serve.tracks import EDITABLE, Document, folder_in, new_id, tag_columns, to_dict
from htdemucs.weights.registry import named_models

T = TRACKS.c
MAX_FIELD = 1000  # characters of a form's field
FORM = "multipart/form-data"
MAX_SHIFTS = 20
Options = dict[str, str | None]  # of an upload: name, model, stems, shifts
ModelRow = dict[str, Any]  # of `named_models`

router = APIRouter(prefix="/api", tags=["tracks"])
Name = Annotated[str | None, Query(max_length=1000, description="The file's name.")]
Model = Annotated[str | None, Query(max_length=200, description="By default the server's.")]
Stems = Annotated[
    str | None, Query(max_length=200, description="Stems, separated by commas; by default all.")
]
Shifts = Annotated[
    int,
    Query(ge=1, le=MAX_SHIFTS, description="Runs to average: a little better, N times as slow."),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="A random text; a repeated upload with it adds no second track.",
    ),
]
FILE = {"type": "string", "format": "binary"}
TEXT = {"type": "string", "maxLength": MAX_FIELD}
BODY = {
    "required": True,
    "content": {
        "application/octet-stream": {"schema": FILE},
        FORM: {
            "schema": {
                "type": "object",
                "properties": {
                    "file": FILE,
                    "name": TEXT,
                    "model": TEXT,
                    "stems": TEXT,
                    "shifts": TEXT,
                },
                "required": ["file"],
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "path": {"type": "string", "description": "Below the library."},
                    "track": {"type": "string", "description": "The id of a known track."},
                    "model": {"type": "string"},
                    "stems": {"type": "array", "items": {"type": "string"}},
                    "shifts": {"type": "integer", "minimum": 1, "maximum": MAX_SHIFTS},
                },
            }
        },
    },
}


@dataclass(frozen=True)
class Separation:
    """How a track is separated: a model, its stems (None: all), and the number of runs."""

    model: ModelRow
    stems: list[str] | None
    shifts: int

    @property
    def columns(self) -> Row:
        """Columns of the track's row."""
        names = {"model": self.model["name"], "requested_stems": self.stems}
        return {**names, "shifts": self.shifts}


class SeparateSelection(Selection):
    """Several tracks, and how to separate them."""

    model: str | None = Field(None, max_length=200, description="By default the server's.")
    stems: list[str] | None = Field(None, max_length=100, description="By default all.")
    shifts: int = Field(1, ge=1, le=MAX_SHIFTS, description="Runs to average.")


@router.post(
    "/tracks",
    status_code=201,
    responses={200: {"description": "The track of an earlier upload with this idempotency key."}},
    openapi_extra={"requestBody": BODY},
)
async def add_track(
    state: StateDep,
    request: Request,
    response: Response,
    name: Name = None,
    model: Model = None,
    stems: Stems = None,
    shifts: Shifts = 1,
    idempotency_key: IdempotencyKey = None,
) -> Document:
    """Add a track.

    The body is the track's file; or a form with the file, whose other fields replace the
    parameters; or JSON that names a known track or a file of the library. The status is 201, or
    200 for a repeated upload whose track exists.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        body = await read_json(request)
        return await to_thread.run_sync(_add_known, state, body)
    if kind.startswith(("multipart/", "application/x-www-form-urlencoded")) and kind != FORM:
        raise UnsupportedError(f"{kind} is not supported; {USAGE}")
    options: Options = {"name": name, "model": model, "stems": stems, "shifts": str(shifts)}
    if idempotency_key is None:
        return await _upload(state, request, kind, options, None)
    async with state.upload_lock(idempotency_key):  # a repeat waits until the first one has ended
        known = (T.idempotency_key == idempotency_key, T.state != DELETED)
        for row in await to_thread.run_sync(state.tracks.rows, *known):
            await _discard_body(request, state.settings.limits.upload_bytes)
            response.status_code = 200
            return to_dict(row)
        return await _upload(state, request, kind, options, idempotency_key)


async def _discard_body(request: Request, limit: int) -> None:
    """Read a body of at most `limit` bytes: browsers may lose a response that comes earlier."""
    async for chunk in read_body(request):
        limit -= len(chunk)
        if limit < 0:
            return


async def _upload(
    state: AppState, request: Request, kind: str, options: Options, idempotency_key: str | None
) -> Document:
    """Write the file to disk and queue its track."""
    await to_thread.run_sync(state.check_job_limit)
    track = new_id()
    folder = state.settings.uploads / track
    state.uploading += 1
    try:
        with removed_on_error(folder):
            folder.mkdir(parents=True)
            store = _receive_form if kind == FORM else _receive_file
            upload = await store(state, request, folder, options)
        await to_thread.run_sync(_add_upload, state, track, *upload, idempotency_key)
    finally:
        state.uploading -= 1
    state.wake()
    return await to_thread.run_sync(state.tracks.get, track)


@router.post("/tracks/separate")
def separate_all(state: StateDep, selection: SeparateSelection) -> Document:
    """Queue several tracks that have no stems, in this order; others are skipped.

    The body is `{"tracks": [ID, ...]}` and optionally has `model`, `stems` and `shifts`. In the
    response, `queued` has the ids of the tracks that are queued now, `refused` those of the tracks
    for which the queue has no room.
    """
    separation = _check_separation(state, selection.model, selection.stems, selection.shifts)
    values = {**separation.columns, "stems": separation.stems or []}
    queued, refused = state.jobs.enqueue_all(selection.tracks, state.job_room, **values)
    state.wake()
    return {"queued": queued, "refused": refused}


Upload = tuple[Path, str, Separation]  # file, its name as sent, how it is separated


def _add_upload(
    state: AppState,
    track: str,
    path: Path,
    name: str,
    separation: Separation,
    idempotency_key: str | None,
) -> None:
    with removed_on_error(path.parent):
        state.tracks.add(
            id=track,
            kind="upload",
            state="queued",
            path=str(path),
            name=name,
            stems=separation.stems or list(separation.model["sources"]),  # until a worker starts
            idempotency_key=idempotency_key,
            **separation.columns,
        )


async def _receive_file(
    state: AppState, request: Request, folder: Path, options: Options
) -> Upload:
    """Write the body to a file."""
    separation = await to_thread.run_sync(_check_options, state, options)
    size, limits = _content_length(request), state.settings.limits
    check_size(size or 0, folder, limits)
    name = options["name"] or "track"
    path = folder / safe_name(name)
    if await receive(read_body(request), path, limits) != size and size is not None:
        raise BadRequestError(INCOMPLETE)
    return path, shown_name(name), separation


async def _receive_form(
    state: AppState, request: Request, folder: Path, options: Options
) -> Upload:
    """Write the file in a form to disk."""
    size, limits = _content_length(request), state.settings.limits
    check_size(max(0, (size or 0) - FORM_OVERHEAD), folder, limits)
    path, filename = folder / "file", None
    fields: dict[str, str] = {}
    async for part in Form(request.headers["content-type"], read_body(request)).parts():
        if part.filename is not None or part.field == "file":
            if filename is not None:
                raise BadRequestError("the form has two files; send each in its own request")
            known = {**options, **fields}  # later fields are checked after the file
            await to_thread.run_sync(_check_options, state, known)
            filename = part.filename or "track"
            await receive(part.contents, path, limits)
        elif part.field in options:
            too_long = f"`{part.field}` is too long"
            data = await read_all(part.contents, 4 * MAX_FIELD, too_long)
            values = [fields[part.field]] if part.field in fields else []  # several checkboxes
            fields[part.field] = ",".join([*values, data.decode("utf-8", "replace")])
            if len(fields[part.field]) > MAX_FIELD:
                raise BadRequestError(too_long)
        else:
            raise BadRequestError("a form may have the fields file, name, model, stems and shifts")
    if filename is None:
        raise BadRequestError("the form has no file")
    options = {**options, **fields}
    separation = await to_thread.run_sync(_check_options, state, options)
    name = options["name"] or filename
    return path.rename(folder / safe_name(name)), shown_name(name), separation


def _content_length(request: Request) -> int | None:
    size = request.headers.get("content-length", "")
    return int(size) if size.isdecimal() else None


def _add_known(state: AppState, body: dict[str, Any]) -> Document:
    """Queue a file of the library, or another separation of a known track."""
    state.check_job_limit()
    separation = _check_separation(
        state, body.get("model"), body.get("stems"), body.get("shifts", 1)
    )
    if isinstance(body.get("track"), str):
        track = _separate_again(state, body["track"], separation)
    elif isinstance(body.get("path"), str):
        track = _add_from_library(state, body["path"], separation)
    else:
        raise InvalidValueError("the JSON must have a track or a path")
    state.wake()
    return state.tracks.get(track)


def _separate_again(state: AppState, track: str, separation: Separation) -> str:
    """Queue a track that has no stems, or a copy of another one; return its id.

    Raises:
        NotFoundError: the track does not exist, or its file is gone.
    """
    row = state.tracks.row(track)
    if row["state"] in ("unseparated", "failed", "cancelled"):
        state.jobs.enqueue(track, **separation.columns, stems=separation.stems or [])
        return track
    source, copy = state.readable_file(row["path"] or ""), new_id()
    same = ("kind", "path", "name", "folder", "length", "edits", *EDITABLE)
    values = {name: row[name] for name in same} | separation.columns
    folder = state.settings.uploads / copy
    with removed_on_error(folder):
        if row["kind"] == "upload":  # each upload has its own file, which its deletion removes
            values["path"] = str(folder / source.name)
            _link(source, folder / source.name)
        return state.tracks.add(id=copy, state="queued", **values)


def _link(source: Path, path: Path) -> None:
    path.parent.mkdir(parents=True)
    try:
        os.link(source, path)
    except FileNotFoundError:  # deleted in the meantime
        raise NotFoundError("this file does not exist any more") from None
    except OSError:  # a file system without links
        shutil.copyfile(source, path)


def _add_from_library(state: AppState, path: str, separation: Separation) -> str:
    """Queue a file of the library folder; return the track's id.

    Raises:
        NotFoundError: the library has no such file.
    """
    library = state.settings.library
    try:
        file = library / path
        real = Path(os.path.realpath(file))
        is_inside = real.is_relative_to(os.path.realpath(library)) and real.is_file()
    except (OSError, ValueError):  # too long, or with a NUL
        is_inside = False
    if not is_inside:
        raise NotFoundError("the library has no such file")
    file = Path(os.path.normpath(file))
    for row in state.tracks.rows(T.path == str(file), T.state != DELETED):
        return _separate_again(state, row["id"], separation)
    return state.tracks.add(
        kind="library",
        state="queued",
        path=str(file),
        name=file.name,
        folder=folder_in(library, file.parent),
        **separation.columns,
        **tag_columns(file),
    )


# Checking the options


def _check_options(state: AppState, options: Options) -> Separation:
    """Return how an upload is separated; raises the errors of `_check_separation`."""
    shifts = options["shifts"] or "1"
    whole = int(shifts) if shifts.isdecimal() else shifts
    return _check_separation(state, options["model"], options["stems"], whole)


def _check_separation(state: AppState, model: Any, stems: Any, shifts: Any) -> Separation:
    """Return how a track is separated. `stems` is a list, or names separated by commas.

    Raises:
        UnknownModelError: the server has no such model.
        InvalidValueError: the model has no such stem, or shifts is not a number from 1 on.
    """
    row = _check_model(state, model)
    if not isinstance(shifts, int) or isinstance(shifts, bool) or not 1 <= shifts <= MAX_SHIFTS:
        raise InvalidValueError(f"shifts must be a whole number from 1 to {MAX_SHIFTS}")
    names = (stems.split(",") if stems else None) if isinstance(stems, str) else stems
    return Separation(row, _check_stems(names, row), shifts)


def _check_model(state: AppState, name: Any) -> ModelRow:
    """Return the row of a model; without a name, of the server's default model.

    Raises:
        UnknownModelError: the server has no such model. Paths are refused, except the server's own.
    """
    if not isinstance(name, str | None):
        raise InvalidValueError("model must be a name")
    name = name or state.settings.model
    models = {row["name"]: row for row in named_models()}
    if name in models:
        return models[name]
    if name == state.settings.model:
        return {"name": name, "sources": []}
    raise UnknownModelError(f"there is no model of that name; choose from {', '.join(models)}")


def _check_stems(names: Any, model: ModelRow) -> list[str] | None:
    """Return the requested stems; None: all of the model's.

    Raises:
        InvalidValueError: the model has no such stem.
    """
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidValueError("stems must be a list of names")
    requested = [name.strip() for name in names if name.strip()]
    known = model["sources"]
    if known and (unknown := [name for name in requested if name not in known]):
        raise InvalidValueError(
            f"{model['name']} has no stem {unknown[0]}; it has {', '.join(known)}"
        )
    if len(set(requested)) != len(requested):
        raise InvalidValueError("stems must name each stem once")
    return requested or None
