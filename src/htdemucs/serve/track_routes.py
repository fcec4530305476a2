"""New jobs from what the server knows already.

MERGED: The API of tracks: what there is, what happens, and what shall be done.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse

from htdemucs.errors import BadRequestError, NotFoundError, TooManyError, UnsupportedError
from htdemucs.serve.app_state import Here, Service
from htdemucs.serve.db import DELETED, LIVE, LONGEST_LIST, TRACKS, Document, new_id, tags
from htdemucs.serve.uploads import (
    INCOMPLETE,
    MOST_FORM,
    USAGE,
    Form,
    check_size,
    read_all,
    read_body,
    receive,
    removed_on_error,
    safe_name,
)
from htdemucs.weights.registry import named_models

T = TRACKS.c


def checked_model(here: Service, name: Any) -> dict[str, Any]:
    """Return what is known of a model; without a name, of the server's own.

    Raises:
        BadRequestError: the server offers no such model. Paths are none, except the server's own.
    """
    if not isinstance(name, str | None):
        raise BadRequestError("model must be a name")
    name = name or here.settings.model
    models = {row["name"]: row for row in named_models()}
    if name in models:
        return models[name]
    if name == here.settings.model:
        return {"name": name, "sources": []}
    raise BadRequestError(f"there is no model of that name; choose from {', '.join(models)}")


def checked_stems(names: Any, model: dict[str, Any]) -> list[str] | None:
    """Return the stems that shall be made; None: all of the model's.

    Raises:
        BadRequestError: the model has no such stem.
    """
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadRequestError("stems must be a list of names")
    wanted = [name.strip() for name in names if name.strip()]
    known = model["sources"]
    if known and (unknown := [name for name in wanted if name not in known]):
        raise BadRequestError(
            f"{model['name']} has no stem {unknown[0]}; it has {', '.join(known)}"
        )
    if len(set(wanted)) != len(wanted):
        raise BadRequestError("stems must name each stem once")
    return wanted or None


def another_separation(here: Service, track: str, model: str, wanted: list[str] | None) -> str:
    """Queue a track that was only found, or a copy of another one; return its id.

    Raises:
        NotFoundError: there is no such track, or its file is gone.
    """
    row = here.tracks.row(track)
    if row["state"] == "found":
        here.jobs.queue(track, model=model, wanted=wanted)
        return track
    source = here.file(row["path"] or "")
    about = {name: row[name] for name in ("kind", "name", "title", "artist", "album")}
    copy = new_id()
    if row["kind"] == "upload":
        row["path"] = str(here.settings.uploads / copy / source.name)
    with removed_on_error(here.settings.uploads / copy):
        if row["kind"] == "upload":
            _copy(source, Path(row["path"]))
        return here.tracks.add(
            id=copy, state="queued", path=row["path"], model=model, wanted=wanted, **about
        )


def _copy(source: Path, path: Path) -> None:
    path.parent.mkdir(parents=True)
    try:
        os.link(source, path)
    except FileNotFoundError:  # deleted meanwhile
        raise NotFoundError("this file is not there any more") from None
    except OSError:  # a file system without links
        shutil.copyfile(source, path)


def from_library(here: Service, path: str, model: str, wanted: list[str] | None) -> str:
    """Queue a file below the library folder; return the track's id.

    Raises:
        NotFoundError: there is no such file there.
    """
    library = here.settings.library
    try:
        file = library / path
        real = Path(os.path.realpath(file))
        inside = real.is_relative_to(os.path.realpath(library)) and real.is_file()
    except ValueError:  # a NUL
        inside = False
    if not inside:
        raise NotFoundError("the library has no such file")
    file = Path(os.path.normpath(file))
    for row in here.tracks.all(T.path == str(file), T.state != DELETED):
        return another_separation(here, row["id"], model, wanted)
    return here.tracks.add(
        kind="library", state="queued", path=str(file), name=file.name, model=model,
        wanted=wanted, **tags(file),
    )  # fmt: skip


router = APIRouter(prefix="/api", tags=["tracks"])
States = Annotated[str, Query(max_length=100, description="States, separated by commas.")]
Name = Annotated[str | None, Query(max_length=1000, description="The file's name.")]
Model = Annotated[str | None, Query(max_length=200, description="By default the server's.")]
Stems = Annotated[
    str | None, Query(max_length=200, description="Stems, separated by commas; by default all.")
]
Offset = Annotated[int, Query(ge=0, le=1 << 31)]
Limit = Annotated[int, Query(ge=1, le=LONGEST_LIST)]
MOST_PARTS = 10  # of a file in one request
MOST_JSON = 1 << 16  # bytes
MOST_FIELD = 1000  # characters of a form's field
Options = dict[str, str | None]  # of a separation: name, model, stems
ModelRow = dict[str, Any]  # of `named_models`
FORM = "multipart/form-data"
FILE = {"type": "string", "format": "binary"}
TEXT = {"type": "string", "maxLength": MOST_FIELD}
BODY = {
    "required": True,
    "content": {
        "application/octet-stream": {"schema": FILE},
        FORM: {
            "schema": {
                "type": "object",
                "properties": {"file": FILE, "name": TEXT, "model": TEXT, "stems": TEXT},
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
                },
            }
        },
    },
}


@router.get("/tracks")
def tracks(
    here: Here,
    search: Annotated[str, Query(max_length=200)] = "",
    state: States = "",
    offset: Offset = 0,
    limit: Limit = LONGEST_LIST,
) -> Document:
    """List tracks: jobs first, then the newest."""
    states = [name.strip() for name in state.split(",") if name.strip()]
    if not set(states) <= set(LIVE):
        raise BadRequestError(f"there is no such state; choose from {', '.join(LIVE)}")
    version = here.database.version()
    total, found = here.tracks.page(search, states, offset, limit)
    return {"version": version, "total": total, "tracks": found}


@router.get("/tracks/{track}")
def one_track(here: Here, track: str) -> Document:
    """Return a track."""
    return here.tracks.document(track)


@router.get("/events", response_class=StreamingResponse)
async def events(
    here: Here,
    since: Annotated[int | None, Query(ge=0, le=1 << 62)] = None,
    last_event_id: Annotated[str | None, Header(max_length=30)] = None,
) -> StreamingResponse:
    """Stream the changes of all tracks as server-sent events."""
    if here.changes.streams >= here.settings.limits.streams:
        raise TooManyError("too many pages are open; close some")
    if last_event_id is not None and last_event_id.isdecimal():
        since = int(last_event_id)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(
        here.changes.follow(since), media_type="text/event-stream", headers=headers
    )


@router.post("/tracks", status_code=201, openapi_extra={"requestBody": BODY})
async def add_track(
    here: Here, request: Request, name: Name = None, model: Model = None, stems: Stems = None
) -> Document:
    """Add a track.

    The body is its file, or a form with the file, whose other fields replace the parameters, or
    JSON that names a track or a file of the library.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        wish = await _json(request)
        return await to_thread.run_sync(_add_known, here, wish)
    store = _receive_form if kind == FORM else _receive_file
    if kind.startswith(("multipart/", "application/x-www-form-urlencoded")) and kind != FORM:
        raise UnsupportedError(f"{kind} is not supported; {USAGE}")
    await to_thread.run_sync(here.check_room)
    options: Options = {"name": name, "model": model, "stems": stems}
    track = new_id()
    folder = here.settings.uploads / track
    here.uploading += 1
    try:
        with removed_on_error(folder):
            folder.mkdir(parents=True)
            path, chosen, wanted = await store(here, request, folder, options)
        await to_thread.run_sync(_add_upload, here, track, path, chosen, wanted)
    finally:
        here.uploading -= 1
    here.wake()
    return await to_thread.run_sync(here.tracks.document, track)


async def _receive_file(
    here: Service, request: Request, folder: Path, options: Options
) -> tuple[Path, ModelRow, list[str] | None]:
    """Write the body to a file; return its path, the model and the requested stems."""
    model, wanted = await to_thread.run_sync(_checked_options, here, options)
    size, limits = _announced(request), here.settings.limits
    check_size(size or 0, folder, limits)
    path = folder / safe_name(options["name"] or "track")
    if await receive(read_body(request), path, limits) != size and size is not None:
        raise BadRequestError(INCOMPLETE)
    return path, model, wanted


async def _receive_form(
    here: Service, request: Request, folder: Path, options: Options
) -> tuple[Path, ModelRow, list[str] | None]:
    """Write the file in a form to disk; return its path, the model and the requested stems."""
    size, limits = _announced(request), here.settings.limits
    check_size(max(0, (size or 0) - MOST_FORM), folder, limits)
    path, filename = folder / "file", None
    fields: dict[str, str] = {}
    async for part in Form(request.headers["content-type"], read_body(request)).parts():
        if part.filename is not None or part.field == "file":
            if filename is not None:
                raise BadRequestError("the form has two files; send each in a request of its own")
            known = {**options, **fields}  # those that precede the file
            await to_thread.run_sync(_checked_options, here, known)
            filename = part.filename or "track"
            await receive(part.contents, path, limits)
        elif part.field in options:
            too_long = f"`{part.field}` is too long"
            data = await read_all(part.contents, 4 * MOST_FIELD, too_long)
            values = [fields[part.field]] if part.field in fields else []  # several checkboxes
            fields[part.field] = ",".join([*values, data.decode("utf-8", "replace")])
            if len(fields[part.field]) > MOST_FIELD:
                raise BadRequestError(too_long)
        else:
            raise BadRequestError("a form may have the fields file, name, model and stems")
    if filename is None:
        raise BadRequestError("the form has no file")
    options = {**options, **fields}
    model, wanted = await to_thread.run_sync(_checked_options, here, options)
    return path.rename(folder / safe_name(options["name"] or filename)), model, wanted


def _announced(request: Request) -> int | None:
    """Return the bytes that the client says it sends."""
    size = request.headers.get("content-length", "")
    return int(size) if size.isdecimal() else None


def _checked_options(here: Service, options: Options) -> tuple[ModelRow, list[str] | None]:
    """Return the model and the requested stems (None: all).

    Raises:
        BadRequestError: there is no such model, or it has no such stem.
    """
    model = checked_model(here, options["model"])
    return model, checked_stems(options["stems"].split(",") if options["stems"] else None, model)


def _add_upload(
    here: Service, track: str, path: Path, model: ModelRow, wanted: list[str] | None
) -> None:
    with removed_on_error(path.parent):
        stems = wanted or list(model["sources"])  # so that the page has its lanes at once
        about = {"path": str(path), "name": path.name, "model": model["name"], "wanted": wanted}
        here.tracks.add(id=track, kind="upload", state="queued", stems=stems, **about)


def _add_known(here: Here, wish: dict[str, Any]) -> Document:
    """Queue a file of the library, or another separation of a known track."""
    here.check_room()
    model = checked_model(here, wish.get("model"))
    stems = wish.get("stems")
    names = stems.split(",") if isinstance(stems, str) else stems
    wanted = checked_stems(names, model)
    if isinstance(wish.get("track"), str):
        track = another_separation(here, wish["track"], model["name"], wanted)
    elif isinstance(wish.get("path"), str):
        track = from_library(here, wish["path"], model["name"], wanted)
    else:
        raise BadRequestError("the JSON must have a track or a path")
    here.wake()
    return here.tracks.document(track)


async def _json(request: Request) -> dict[str, Any]:
    data = await read_all(read_body(request), MOST_JSON, "the JSON is too long")
    try:
        wish = json.loads(data)
        json.dumps(wish, ensure_ascii=False).encode()  # raises for half a surrogate pair
    except (ValueError, RecursionError):
        wish = None
    if not isinstance(wish, dict):
        raise BadRequestError("the body must be a JSON object")
    return wish


@router.post("/tracks/{track}/cancel")
def cancel(here: Here, track: str) -> Document:
    """Stop a job. What is finished is kept, so that a retry resumes."""
    here.jobs.cancel(track)
    return here.tracks.document(track)


@router.post("/tracks/{track}/retry")
def retry(here: Here, track: str) -> Document:
    """Queue a track that failed, was cancelled, or has no stems yet."""
    here.check_room()
    row = here.tracks.row(track)
    here.jobs.queue(track, model=row["model"] or here.settings.model)
    here.wake()
    return here.tracks.document(track)


@router.post("/tracks/{track}/first")
def first(here: Here, track: str) -> Document:
    """Move a queued track to the head of the queue."""
    here.jobs.first(track)
    return here.tracks.document(track)


@router.post("/tracks/{track}/seek")
async def seek(here: Here, request: Request, track: str) -> Document:
    """Separate the part after a frame next. The body is `{"frame": 123}`."""
    frame = (await _json(request)).get("frame")
    if not isinstance(frame, int) or isinstance(frame, bool) or not 0 <= frame < 1 << 40:
        raise BadRequestError("frame must be a whole number from 0 on")
    await to_thread.run_sync(here.jobs.seek, track, frame)
    return await to_thread.run_sync(here.tracks.document, track)


@router.delete("/tracks/{track}", status_code=204)
def delete(here: Here, track: str) -> Response:
    """Delete a track, and its files if it was uploaded. Files of the library are kept."""
    here.deletion.delete(track)
    return Response(status_code=204)


@router.head("/tracks/{track}/stems/{stem}", include_in_schema=False)
@router.get("/tracks/{track}/stems/{stem}", response_class=FileResponse)
def stem_file(here: Here, request: Request, track: str, stem: str) -> Response:
    """Return the file of a stem. Ranges and ETags work."""
    files = here.tracks.row(track)["files"]
    if stem not in files:
        raise NotFoundError(f"this track has the files {', '.join(files) or '(none yet)'}")
    return _file(here, request, files[stem]["path"])


@router.head("/tracks/{track}/source", include_in_schema=False)
@router.get("/tracks/{track}/source", response_class=FileResponse)
def source_file(here: Here, request: Request, track: str) -> Response:
    """Return the track's own file. Ranges and ETags work."""
    return _file(here, request, here.tracks.row(track)["path"] or "")


def _file(here: Here, request: Request, path: str) -> Response:
    if request.headers.get("range", "").count(",") >= MOST_PARTS:
        raise BadRequestError("that are too many ranges at once")
    file = here.file(path)
    response = FileResponse(
        file, filename=file.name, stat_result=file.stat(), headers={"cache-control": "no-cache"}
    )
    known = request.headers.get("if-none-match", "")
    if response.headers["etag"] in [tag.strip() for tag in known.split(",")]:
        return Response(status_code=304, headers={"etag": response.headers["etag"]})
    return response
