"""The web application: its routes, middleware, error responses and lifespan."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from anyio import to_thread
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.exc import DataError
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from htdemucs.errors import HTDemucsError
from htdemucs.formats import FORMATS
from htdemucs.serve import (
    audio_routes,
    export_routes,
    storage_routes,
    track_routes,
    upload_routes,
)
from htdemucs.serve.app_state import AppState, StateDep
from htdemucs.serve.auth import (
    SECURITY_HEADERS,
    Access,
    AuthMiddleware,
    SecurityHeadersMiddleware,
    error_response,
)
from htdemucs.serve.db import STATES, TRACKS, UNAVAILABLE
from htdemucs.serve.maintenance import Maintenance
from htdemucs.serve.request_body import DrainMiddleware, JSONLimitMiddleware
from htdemucs.serve.supervisor import Supervisor
from htdemucs.version import __version__
from htdemucs.weights.registry import named_models

LOG = logging.getLogger(__name__)
PAGE = Path(__file__).parent / "page"


class Problem(BaseModel):
    """The body of every error response: an English sentence, and a code if it is a common error."""

    error: str
    code: str | None = None


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": HTTPStatus(status).phrase}
    for status in (400, 401, 403, 404, 405, 409, 413, 415, 416, 422, 429, 503)
}


def create_app(
    state: AppState, access: Access | None = None, supervisor: Supervisor | None = None
) -> FastAPI:
    """Return the application.

    Args:
        state: the database and everything else that requests share.
        access: who may use the server.
        supervisor: of the workers; started and stopped with the application.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        maintenance = Maintenance(state)
        await to_thread.run_sync(maintenance.start)
        if supervisor:
            await to_thread.run_sync(supervisor.start)
        await state.changes.start()
        await to_thread.run_sync(named_models)  # the first call takes a second
        yield
        await state.changes.stop()
        await to_thread.run_sync(state.preview_builder.stop)
        await to_thread.run_sync(state.export_jobs.stop)
        await to_thread.run_sync(maintenance.stop)
        if supervisor:
            await to_thread.run_sync(supervisor.stop)

    app = FastAPI(
        title="htdemucs",
        version=__version__,
        lifespan=lifespan,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        responses=PROBLEMS,
    )
    app.state.htdemucs = state
    app.add_middleware(JSONLimitMiddleware)
    app.add_middleware(AuthMiddleware, access=access or Access())
    app.add_middleware(SecurityHeadersMiddleware)  # outside: errors get the headers too
    app.add_middleware(DrainMiddleware)
    for routes in (track_routes, upload_routes, audio_routes, export_routes, storage_routes):
        app.include_router(routes.router)
    app.include_router(router)
    app.mount("/page", StaticFiles(directory=PAGE))
    app.add_exception_handler(HTDemucsError, _on_expected_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(DataError, _on_unstorable_value)
    for unavailable in UNAVAILABLE:
        app.add_exception_handler(unavailable, _on_unavailable_database)
    app.add_exception_handler(Exception, _on_unexpected_error)
    return app


# Routes of the server itself

router = APIRouter(tags=["server"])


@router.get("/metrics", response_class=Response)
def metrics(state: StateDep) -> Response:
    """Return the numbers of tracks by state, uploads and streams, for Prometheus."""
    counts = dict.fromkeys(STATES, 0)
    columns = TRACKS.c
    with state.database.reading() as connection:
        by_state = select(columns.state, func.count()).group_by(columns.state)
        for name, count in connection.execute(by_state):
            if name in counts:
                counts[name] = count
        done = connection.scalar(select(func.sum(columns.done)).where(columns.state == "finished"))
    states = [(f'{{state="{name}"}}', count) for name, count in counts.items()]
    families = [
        ("info", "The version.", [(f'{{version="{__version__}"}}', 1)]),
        ("tracks", "Tracks by state.", states),
        ("finished_audio_seconds", "Audio of the finished tracks.", [("", done or 0)]),
        ("uploads", "Files that are arriving.", [("", state.uploading)]),
        ("event_streams", "Open streams of events.", [("", state.changes.streams)]),
    ]
    lines = []
    for name, about, samples in families:
        lines += [f"# HELP htdemucs_{name} {about}", f"# TYPE htdemucs_{name} gauge"]
        lines += [f"htdemucs_{name}{labels} {value:g}" for labels, value in samples]
    return Response("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


@router.get("/api/info")
def info(state: StateDep) -> dict[str, Any]:
    """Return the version, the models, the formats and the limits."""
    settings, limits = state.settings, state.settings.limits
    models = [
        {
            "name": model["name"],
            "stems": model["sources"],
            "ready": model["cached"],
            "bytes": model["bytes"],
            "about": model["about"],
            "licence": model["license"],
        }
        for model in named_models()
    ]
    if settings.model not in [model["name"] for model in models]:
        own = {"name": settings.model, "stems": [], "ready": True, "bytes": 0}
        models.insert(0, own | {"about": "", "licence": None})
    return {
        "version": __version__,
        "models": models,
        "default_model": settings.model,
        "formats": {
            name: {
                "label": row.label,
                "mime_type": row.mime_type,
                "bit_depths": row.bit_depths,
                "bitrates": row.usual_bitrates,
                "default_bitrate": row.default_bitrate,
            }
            for name, row in FORMATS.items()
        },
        "limits": {"bytes": limits.upload_bytes, "seconds": limits.seconds, "jobs": limits.jobs},
        "stretch": find_spec("python_stretch") is not None,
    }


@router.head("/health", include_in_schema=False)
@router.get("/health")
def health(state: StateDep) -> dict[str, Any]:
    """Return `{"status": "ok"}` if the server and its database work."""
    return {"status": "ok", "version": state.database.version()}


@router.head("/", include_in_schema=False)
@router.get("/", include_in_schema=False)
def page() -> FileResponse:
    """Return the page."""
    return FileResponse(PAGE / "index.html", headers={"cache-control": "no-cache"})


@router.get("/service-worker.js", include_in_schema=False)
def service_worker() -> FileResponse:
    """Return the service worker, from here because its scope is the folder of its address."""
    return FileResponse(PAGE / "service-worker.js", headers={"cache-control": "no-cache"})


@router.get("/manifest.webmanifest", include_in_schema=False)
def manifest() -> FileResponse:
    """Return the manifest, with which browsers install the page."""
    return FileResponse(PAGE / "manifest.webmanifest", media_type="application/manifest+json")


# Error responses


async def _on_expected_error(request: Request, error: Exception) -> JSONResponse:
    known = cast(HTDemucsError, error)
    text = request.app.state.htdemucs.settings.without_folders(str(known))
    return error_response(known.status, text, code=known.code)


async def _on_invalid_request(_request: Request, error: Exception) -> JSONResponse:
    problems = cast(RequestValidationError, error).errors()[:3]
    text = "; ".join(f"{problem['loc'][-1]}: {problem['msg']}" for problem in problems)
    return error_response(422, text or "the request is invalid")


async def _on_http_exception(_request: Request, error: Exception) -> JSONResponse:
    known = cast(HTTPException, error)
    return error_response(known.status_code, str(known.detail), known.headers)


async def _on_unstorable_value(_request: Request, _error: Exception) -> JSONResponse:
    """Refuse what the database cannot store, such as a NUL character in PostgreSQL."""
    return error_response(400, "the database cannot store a value of this request")


async def _on_unavailable_database(_request: Request, _error: Exception) -> JSONResponse:
    text = "the database does not answer; try again in a moment"
    return error_response(503, text, {"retry-after": "5"}, "database")


async def _on_unexpected_error(request: Request, _error: Exception) -> JSONResponse:
    """Hide the error from clients. Starlette raises it again afterwards, and uvicorn logs it."""
    LOG.error("%s %s failed", request.method, request.url.path)
    text = "something went wrong in the server; see its log"
    return error_response(500, text, SECURITY_HEADERS)
