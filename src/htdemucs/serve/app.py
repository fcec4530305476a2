"""What went wrong, as a code beside the sentence: pages say it in their own language.

MERGED: Numbers for Prometheus, in its text format.
MERGED: The web application: routes, errors, the page.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.exc import DataError
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from htdemucs.errors import (
    BadRequestError,
    ConflictError,
    HTDemucsError,
    NotFoundError,
    TooLargeError,
    TooManyError,
    UnsupportedError,
)
from htdemucs.formats import FORMATS
from htdemucs.serve import audio_routes, export_routes, track_routes
from htdemucs.serve.app_state import Here, Service
from htdemucs.serve.auth import Access, AuthMiddleware
from htdemucs.serve.db import LIVE, TRACKS
from htdemucs.serve.error_codes import code_of
from htdemucs.serve.maintenance import Maintenance
from htdemucs.serve.supervisor import Supervisor
from htdemucs.version import __version__
from htdemucs.weights.registry import named_models

T = TRACKS.c


router = APIRouter(tags=["server"])


@router.get("/metrics", response_class=Response)
def metrics(here: Here) -> Response:
    """Return the numbers of tracks by state, uploads and streams, for Prometheus."""
    counts = dict.fromkeys(LIVE, 0)
    with here.database.reading() as connection:
        for state, count in connection.execute(select(T.state, func.count()).group_by(T.state)):
            if state in counts:
                counts[state] = count
        done = connection.scalar(select(func.sum(T.done)).where(T.state == "finished"))
    states = [(f'{{state="{state}"}}', count) for state, count in counts.items()]
    families = [
        ("info", "The version.", [(f'{{version="{__version__}"}}', 1)]),
        ("tracks", "Tracks by state.", states),
        ("finished_audio_seconds", "Audio of the finished tracks.", [("", done or 0)]),
        ("uploads", "Files that are arriving.", [("", here.uploading)]),
        ("event_streams", "Open streams of events.", [("", here.changes.streams)]),
    ]
    lines = []
    for name, about, samples in families:
        lines += [f"# HELP htdemucs_{name} {about}", f"# TYPE htdemucs_{name} gauge"]
        lines += [f"htdemucs_{name}{labels} {value:g}" for labels, value in samples]
    return Response("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


PAGE = Path(__file__).parent / "page"
STATUS: dict[type[HTDemucsError], int] = {
    NotFoundError: 404,
    ConflictError: 409,
    TooLargeError: 413,
    TooManyError: 429,
    UnsupportedError: 415,
    BadRequestError: 400,
}


class Problem(BaseModel):
    """What every refusal says: an English sentence, and a code if it is a common one."""

    error: str
    code: str | None = None


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": HTTPStatus(status).phrase}
    for status in (400, 401, 403, 404, 405, 409, 413, 415, 416, 422, 429)
}


def create_app(
    service: Service, access: Access | None = None, supervisor: Supervisor | None = None
) -> FastAPI:
    """Return the application.

    Args:
        service: its parts.
        access: who is let in.
        supervisor: of the workers; started and stopped with the application.
    """

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        housekeeping = Maintenance(service)
        await to_thread.run_sync(housekeeping.start)
        if supervisor:
            await to_thread.run_sync(supervisor.start)
        await service.changes.start()
        await to_thread.run_sync(named_models)  # the first time it takes a second
        yield
        await service.changes.stop()
        await to_thread.run_sync(service.filler.stop)
        await to_thread.run_sync(housekeeping.stop)
        if supervisor:
            await to_thread.run_sync(supervisor.stop)

    app = FastAPI(
        title="htdemucs", version=__version__, lifespan=life, openapi_url="/api/openapi.json",
        docs_url=None, redoc_url=None, responses=PROBLEMS,
    )  # fmt: skip
    app.state.service = service
    app.add_middleware(AuthMiddleware, access=access or Access())
    app.include_router(track_routes.router)
    app.include_router(audio_routes.router)
    app.include_router(export_routes.router)
    app.include_router(router)
    app.add_api_route("/api/info", _info, tags=["server"])
    app.add_api_route("/health", _health, tags=["server"])
    app.add_api_route("/health", _health, methods=["HEAD"], include_in_schema=False)
    app.add_api_route("/", _page, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/page", StaticFiles(directory=PAGE))
    app.add_exception_handler(HTDemucsError, _expected)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(DataError, _unstorable)
    return app


def _page() -> FileResponse:
    """Return the page."""
    return FileResponse(PAGE / "index.html", headers={"cache-control": "no-cache"})


def _health(here: Here) -> dict[str, Any]:
    """Return `{"status": "ok"}` if the server and its database work."""
    return {"status": "ok", "version": here.database.version()}


def _info(here: Here) -> dict[str, Any]:
    """Return the version, the models, the formats and the limits."""
    limits = here.settings.limits
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
    if here.settings.model not in [model["name"] for model in models]:
        own = {"name": here.settings.model, "stems": [], "ready": True, "bytes": 0}
        models.insert(0, own | {"about": "", "licence": None})
    return {
        "version": __version__,
        "models": models,
        "default_model": here.settings.model,
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
        "limits": {
            "bytes": limits.upload_bytes, "seconds": limits.seconds, "jobs": limits.jobs,
        },
        "stretch": find_spec("python_stretch") is not None,
    }  # fmt: skip


async def _expected(_request: Request, error: Exception) -> JSONResponse:
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 400)
    return JSONResponse({"error": str(error), "code": code_of(error)}, status)


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    words = [f"{problem['loc'][-1]}: {problem['msg']}" for problem in problems[:3]]
    return JSONResponse({"error": "; ".join(words) or "the request makes no sense"}, 400)


async def _unstorable(_request: Request, _error: Exception) -> JSONResponse:
    """Refuse what the database cannot store, such as a NUL character in PostgreSQL."""
    return JSONResponse({"error": "the database cannot store a value of this request"}, 400)


async def _refused(_request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = error.detail if isinstance(error, HTTPException) else ""
    headers = error.headers if isinstance(error, HTTPException) else None
    return JSONResponse({"error": str(detail)}, status, headers)
