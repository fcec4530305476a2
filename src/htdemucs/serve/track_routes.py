"""Routes for tracks: listing, events, queue actions, deletion, and the files as they are."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, Field
from starlette.staticfiles import NotModifiedResponse, StaticFiles

from htdemucs.errors import BadRequestError, InvalidValueError, NotFoundError, TooManyError
from htdemucs.serve.app_state import AppState, StateDep
from htdemucs.serve.db import DELETED, STATES, TRACKS
from htdemucs.serve.request_body import read_json, safe_name
from htdemucs.serve.tracks import MAX_PAGE_SIZE, MAX_TEXT, Document, shown_texts
from htdemucs.stems.paths import file_name

router = APIRouter(prefix="/api", tags=["tracks"])
MAX_RANGES = 10  # of a file in one request
States = Annotated[
    str, Query(alias="state", max_length=100, description="States, separated by commas.")
]
Offset = Annotated[int, Query(ge=0, le=1 << 31)]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE)]
Text = Annotated[str | None, Field(max_length=MAX_TEXT)]
TrackIds = Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=10_000)]


class Texts(BaseModel, extra="forbid"):
    """Texts of a track; null restores the text of the file's tag."""

    title: Text = None
    artist: Text = None
    album: Text = None


class Selection(BaseModel):
    """Several tracks."""

    tracks: TrackIds


@router.get("/tracks")
def tracks(
    state: StateDep,
    search: Annotated[str, Query(max_length=200)] = "",
    states: States = "",
    offset: Offset = 0,
    limit: Limit = MAX_PAGE_SIZE,
) -> Document:
    """List tracks: those being separated or queued first, then the newest."""
    names = [name.strip() for name in states.split(",") if name.strip()]
    if not set(names) <= set(STATES):
        raise InvalidValueError(f"there is no such state; choose from {', '.join(STATES)}")
    version = state.database.version()
    total, found = state.tracks.search(search, names, offset, limit)
    return {"version": version, "total": total, "tracks": found}


@router.get("/tracks/{track}")
def one_track(state: StateDep, track: str) -> Document:
    """Return a track."""
    return state.tracks.get(track)


@router.patch("/tracks/{track}")
def edit(state: StateDep, track: str, texts: Texts) -> Document:
    """Set a track's `title`, `artist` or `album`, as it is shown, searched and downloaded.

    Null restores the text of the file's tag. The track's own file is not changed.
    """
    state.tracks.edit(track, texts.model_dump(exclude_unset=True))
    return state.tracks.get(track)


@router.get("/events", response_class=StreamingResponse)
async def events(
    state: StateDep,
    since: Annotated[int | None, Query(ge=0, le=1 << 62)] = None,
    last_event_id: Annotated[str | None, Header(max_length=30)] = None,
) -> StreamingResponse:
    """Stream the changes of all tracks as server-sent events."""
    if state.changes.streams >= state.settings.limits.streams:
        raise TooManyError("too many pages are open; close some")
    if last_event_id is not None and last_event_id.isdecimal():
        since = int(last_event_id)
    await to_thread.run_sync(state.database.version)  # raises before the stream begins
    return StreamingResponse(
        state.changes.subscribe(since),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


@router.post("/tracks/{track}/cancel")
def cancel(state: StateDep, track: str) -> Document:
    """Cancel a track's separation. The finished part is kept, so that a retry resumes."""
    state.jobs.cancel(track)
    return state.tracks.get(track)


@router.post("/tracks/{track}/retry")
def retry(state: StateDep, track: str) -> Document:
    """Queue a track that failed, was cancelled, or has no stems yet."""
    state.check_job_limit()
    row = state.tracks.row(track)
    state.jobs.enqueue(track, model=row["model"] or state.settings.model)
    state.wake()
    return state.tracks.get(track)


@router.post("/tracks/{track}/first")
def first(state: StateDep, track: str) -> Document:
    """Move a queued track to the head of the queue."""
    state.jobs.prioritize(track)
    return state.tracks.get(track)


@router.post("/tracks/{track}/seek")
async def seek(state: StateDep, request: Request, track: str) -> Document:
    """Next, separate the part that begins at a frame. The body is `{"frame": 123}`."""
    frame = (await read_json(request)).get("frame")
    if not isinstance(frame, int) or isinstance(frame, bool) or not 0 <= frame < 1 << 40:
        raise InvalidValueError("frame must be an integer from 0 on")
    await to_thread.run_sync(state.jobs.request_seek, track, frame)
    return await to_thread.run_sync(state.tracks.get, track)


@router.delete("/tracks/{track}", status_code=204)
def delete(state: StateDep, track: str) -> Response:
    """Delete a track, and its files if it was uploaded. Files of the library are kept."""
    state.deletion.delete(track)
    return Response(status_code=204)


@router.post("/tracks/delete", status_code=204)
def delete_all(state: StateDep, selection: Selection) -> Response:
    """Delete several tracks, as `DELETE /api/tracks/{track}` does; unknown ones are skipped.

    The body is `{"tracks": [ID, ...]}`.
    """
    known = state.tracks.rows(TRACKS.c.id.in_(selection.tracks), TRACKS.c.state != DELETED)
    for row in known:
        with suppress(NotFoundError):  # deleted in the meantime
            state.deletion.delete(row["id"])
    return Response(status_code=204)


@router.head("/tracks/{track}/stems/{stem}", include_in_schema=False)
@router.get("/tracks/{track}/stems/{stem}", response_class=FileResponse)
def stem_file(state: StateDep, request: Request, track: str, stem: str) -> Response:
    """Return the file of a stem. Ranges and ETags work."""
    row = state.tracks.row(track)
    files = row["files"]
    if stem not in files:
        raise NotFoundError(f"this track has the files {', '.join(files) or '(none yet)'}")
    title = shown_texts(row)["title"] or Path(row["name"]).stem
    return _file_response(state, request, files[stem]["path"], f"{file_name(title)} - ")


@router.head("/tracks/{track}/source", include_in_schema=False)
@router.get("/tracks/{track}/source", response_class=FileResponse)
def source_file(state: StateDep, request: Request, track: str) -> Response:
    """Return the track's own file. Ranges and ETags work."""
    return _file_response(state, request, state.tracks.row(track)["path"] or "")


def attachment(filename: str) -> dict[str, str]:
    """Return the header that names a download: curl reads `filename`, browsers `filename*`."""
    encoded = quote(filename, "")
    if encoded == filename:
        return {"content-disposition": f'attachment; filename="{filename}"'}
    plain = "".join(c if " " <= c <= "~" and c not in '"\\%' else "_" for c in filename)
    both = f"attachment; filename=\"{plain}\"; filename*=utf-8''{encoded}"
    return {"content-disposition": both}


def _file_response(state: AppState, request: Request, path: str, prefix: str = "") -> Response:
    if request.headers.get("range", "").count(",") >= MAX_RANGES:
        raise BadRequestError("too many ranges; request fewer at once")
    file = state.readable_file(path)
    headers = {"cache-control": "no-cache", **attachment(safe_name(prefix + file.name))}
    response = FileResponse(file, stat_result=file.stat(), headers=headers)
    if StaticFiles().is_not_modified(response.headers, request.headers):
        return NotModifiedResponse(response.headers)
    return response
