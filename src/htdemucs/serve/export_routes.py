"""The route for downloads: stems, zip files, .stem.mp4 files and mixes of a finished track."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException

from htdemucs.audio import AudioEncoding, AudioFile
from htdemucs.batch import read_manifest
from htdemucs.errors import AudioError, ConflictError, InvalidValueError
from htdemucs.fast import use_this_thread_only
from htdemucs.formats import FORMATS, MP3_PRESETS
from htdemucs.serve.app_state import AppState, StateDep
from htdemucs.serve.audio_routes import TrackId
from htdemucs.serve.db import Row
from htdemucs.serve.export import FinishedTrack, Mix, export_mix, export_stems, zip_stream
from htdemucs.serve.export_jobs import ExportJob
from htdemucs.serve.track_routes import attachment
from htdemucs.stems import OutputOptions
from htdemucs.stems.output_options import Residual
from htdemucs.stems.paths import file_name

router = APIRouter(prefix="/api", tags=["downloads"])
POLL_INTERVAL = 0.5  # seconds between looks whether the client is still connected
_BIT_DEPTHS = "; ".join(
    f"{row.name}: {', '.join(map(str, row.bit_depths))}"
    for row in FORMATS.values()
    if row.is_lossless
)
StemValues = Annotated[str, Field(max_length=1000)]  # such as vocals:0.5,drums:0
Seconds = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class Choices(BaseModel, populate_by_name=True):
    """What to make of a track.

    `from`, `to` (seconds), `tempo` and `pitch` (semitones) apply to everything but the stem file,
    and exclude the residual.
    """

    kind: Literal["stem", "zip", "stem-file", "mix"] = "zip"
    stem: str | None = Field(None, max_length=200)
    format: str | None = Field(None, max_length=10, description="By default that of the stems.")
    bit_depth: int = Field(16, description=f"{_BIT_DEPTHS}.")
    bitrate: int | None = Field(None, ge=1, le=1000, description="kbit/s")
    mp3_preset: int = Field(
        2,
        ge=MP3_PRESETS[0],
        le=MP3_PRESETS[-1],
        description="2 is the best quality, 7 the fastest.",
    )
    gains: StemValues = Field("", description="For a mix, such as vocals:0.5,drums:0.")
    pans: StemValues = Field("", description="For a mix, from -1 (left) to 1 (right).")
    first: Seconds = Field(0.0, alias="from", description="Seconds.")
    last: Seconds | None = Field(None, alias="to", description="Seconds; by default the end.")
    tempo: float = Field(1.0, ge=0.5, le=2, description="Factor.")
    pitch: float = Field(0.0, ge=-12, le=12, description="Semitones.")
    residual: bool = Field(False, description="Add the residual to a zip.")

    @property
    def encoding(self) -> AudioEncoding:
        """The encoding of the files."""
        name = self.format or "flac"
        try:
            if name in FORMATS and FORMATS[name].is_lossless:
                return AudioEncoding(name, self.bit_depth)
            return AudioEncoding(name, bitrate=self.bitrate, mp3_preset=self.mp3_preset)
        except AudioError as error:
            raise InvalidValueError(str(error)) from None

    @property
    def mix(self) -> Mix:
        """The mixer's settings."""
        gains, balances = _stem_values(self.gains), _stem_values(self.pans)
        return Mix(gains, balances, self.first, self.last, self.tempo, self.pitch)

    @property
    def region(self) -> Mix:
        """The region, tempo and pitch, with every stem unchanged."""
        return replace(self.mix, gains={}, balances={})

    @property
    def is_region(self) -> bool:
        """Whether it is less than the whole track, or at another tempo or pitch."""
        return self.region != Mix()


def _stem_values(text: str) -> dict[str, float]:
    """Parse "vocals:0.5,drums:0"; a stem's name may contain a colon."""
    values = {}
    for item in filter(str.strip, text.split(",")):
        name, colon, number = item.rpartition(":")
        try:
            values[name.strip()] = float(number)
        except ValueError:
            colon = ""
        if not colon:
            raise InvalidValueError(f"{item!r} must be like vocals:0.5")
    return values


@router.get("/tracks/{track}/export", response_class=FileResponse)
async def export(
    state: StateDep, request: Request, track: TrackId, choices: Annotated[Choices, Query()]
) -> Response:
    """Return a finished track's stem, all stems as zip, a .stem.mp4 for DJ programs, or a mix.

    `from`, `to`, `tempo` and `pitch` do not apply to the .stem.mp4, and cannot be combined with
    `residual`. The response comes when the file is made; see `POST /api/tracks/{track}/exports`.
    """
    left = Event()
    finished, name = await to_thread.run_sync(_checked, state, track, choices, left.is_set)
    folder = Path(tempfile.mkdtemp(dir=state.settings.exports))
    try:
        work = _make_in_turn(state, finished, choices, name, folder)
        files = await _unless_disconnected(request, work, left)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return _response(files, choices, name, folder)


@router.post("/tracks/{track}/exports", status_code=201)
async def prepare_export(state: StateDep, track: TrackId, choices: Choices) -> dict[str, Any]:
    """Prepare what `GET /api/tracks/{track}/export` returns; the body has its parameters.

    The response is that of `GET /api/exports/{export}`. The same download is prepared once.
    """
    frames = 0

    def on_frames(count: int) -> None:
        nonlocal frames
        frames += count
        job.progress = min(0.99, frames / total)

    def is_cancelled() -> bool:
        return job.cancelled.is_set()

    finished, name = await to_thread.run_sync(_checked, state, track, choices, is_cancelled)
    finished = replace(finished, on_frames=on_frames)
    first = await to_thread.run_sync(finished.first)
    total = max(1.0, (first.duration or 0.0) * first.sample_rate) * _passes(finished, choices)
    key = f"{track} {choices.model_dump_json(by_alias=True)}"
    folder = Path(tempfile.mkdtemp(dir=state.settings.exports))
    job = ExportJob(key, choices, name, _filename(finished, choices, name), folder)
    make = partial(_make_files, finished, choices, name, folder)
    started = await to_thread.run_sync(state.export_jobs.start, job, make)
    return started.document(state.settings.without_folders)


@router.get("/exports/{export}")
async def export_state(state: StateDep, export: str) -> dict[str, Any]:
    """Return the `state` of a download (preparing, ready or failed) and its `progress` to 1."""
    return state.export_jobs.get(export).document(state.settings.without_folders)


@router.get("/exports/{export}/file", response_class=FileResponse)
async def export_file(state: StateDep, export: str) -> Response:
    """Return a download that is ready. It can be fetched for ten minutes."""
    job = state.export_jobs.get(export)
    if job.error is not None:
        raise job.error
    if job.files is None:
        raise ConflictError("this download is not ready yet")
    return _response(job.files, job.choices, job.name, None)


@router.delete("/exports/{export}", status_code=204)
async def delete_export(state: StateDep, export: str) -> Response:
    """Cancel a download that is being prepared, or delete its files."""
    state.export_jobs.remove(export)
    return Response(status_code=204)


def _checked(
    state: AppState, track: str, choices: Choices, is_cancelled: Callable[[], bool]
) -> tuple[FinishedTrack, str]:
    """Return the files of a track, and its name without the extension.

    Raises:
        ConflictError: the track is not finished.
        InvalidValueError: the choices do not fit it.
        NotFoundError: the track or one of its files does not exist.
    """
    row = state.tracks.row(track)
    finished = _finished_track(state, row, is_cancelled)
    if choices.residual and choices.is_region:
        raise InvalidValueError("the residual is available for whole tracks only")
    if choices.kind == "stem" and choices.stem not in finished.stems:
        raise InvalidValueError(f"this track has the stems {', '.join(finished.stems)}")
    _ = choices.encoding
    name = file_name(str(row["name"]).rpartition(".")[0] or str(row["name"]))
    return finished, name or "track"


async def _make_in_turn(
    state: AppState, track: FinishedTrack, choices: Choices, name: str, folder: Path
) -> dict[str, Path]:
    async with state.export_slots:  # waiting takes no thread
        return await to_thread.run_sync(_make_files, track, choices, name, folder)


def _passes(track: FinishedTrack, choices: Choices) -> int:
    """Return how often the track is read, at most."""
    return 2 * len(track.stems) if choices.is_region and choices.kind == "zip" else 2


def _filename(track: FinishedTrack, choices: Choices, name: str) -> str:
    """Return the name of a download."""
    extension = choices.encoding.extension
    if choices.kind == "stem":
        path = track.stems[choices.stem or ""]
        extension = path.suffix[1:] if choices.format is None else extension
        return f"{name} - {choices.stem}.{extension}"
    if choices.kind == "mix":
        return f"{name} (mix).{extension}"
    return f"{name}.zip" if choices.kind == "zip" else f"{name}.stem.mp4"


def _response(files: dict[str, Path], choices: Choices, name: str, folder: Path | None) -> Response:
    """Return the files, which are then deleted with their folder, if there is one."""

    def remove() -> None:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    if choices.kind != "zip":
        [(stem, path)] = files.items()
        filename = f"{name} - {stem}{path.suffix}" if choices.kind == "stem" else path.name
        headers = attachment(filename)
        return FileResponse(path, headers=headers, background=BackgroundTask(remove))

    def stream() -> Iterator[bytes]:
        try:
            yield from zip_stream({f"{name}/{stem}{p.suffix}": p for stem, p in files.items()})
        finally:
            remove()

    headers = attachment(f"{name}.zip")
    return StreamingResponse(stream(), media_type="application/zip", headers=headers)


async def _unless_disconnected(
    request: Request, work: Coroutine[None, None, dict[str, Path]], left: Event
) -> dict[str, Path]:
    """Return the result of `work`; cancel it, and set `left`, when the client disconnects."""
    task = asyncio.create_task(work)
    try:
        while not (await asyncio.wait({task}, timeout=POLL_INTERVAL))[0]:
            if await request.is_disconnected():
                raise HTTPException(499, "the client has left")
        return task.result()
    finally:
        left.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _finished_track(state: AppState, row: Row, is_cancelled: Callable[[], bool]) -> FinishedTrack:
    """Return the files of a track.

    Raises:
        ConflictError: the track is not finished.
        NotFoundError: a file is gone.
    """
    if row["state"] != "finished" or not row["stems"]:
        raise ConflictError("this track is not finished; wait for it, or separate it")
    manifest: Mapping[str, Any] = read_manifest(Path(row["manifest"] or "")) or {}
    original = Path(row["path"] or "")
    return FinishedTrack(
        {stem: state.readable_file(row["files"][stem]["path"]) for stem in row["stems"]},
        original if original.is_file() else None,
        manifest.get("gain") or 1.0,
        manifest.get("output", {}).get("align") or "start",
        is_cancelled,
    )


def _make_files(track: FinishedTrack, choices: Choices, name: str, folder: Path) -> dict[str, Path]:
    """Return the files to send: new ones in a folder, or the stems if they need no change."""
    use_this_thread_only()
    encoding = choices.encoding
    if choices.kind == "mix":
        path = folder / f"{name} (mix).{encoding.extension}"
        export_mix(track, choices.mix, encoding, path, "mix")
        return {"mix": path}
    if choices.kind == "stem-file":
        options = OutputOptions(AudioEncoding(bitrate=choices.bitrate), stem_file=True)
        return export_stems(track, options, options.output_paths(Path(name), folder))
    if choices.kind == "stem":
        stem = choices.stem or ""
        track = replace(track, stems={stem: track.stems[stem]})
    if choices.is_region:
        files = {stem: folder / f"{stem}.{encoding.extension}" for stem in track.stems}
        for stem, path in files.items():
            one = replace(track, stems={stem: track.stems[stem]})
            export_mix(one, choices.region, encoding, path, stem)
        return files
    if not choices.residual and all(_fits(path, choices) for path in track.stems.values()):
        return dict(track.stems)
    residual: Residual = "write" if choices.residual and choices.kind == "zip" else "none"
    options = OutputOptions(encoding, residual=residual)
    return export_stems(track, options, options.output_paths(Path("stems"), folder))


def _fits(path: Path, choices: Choices) -> bool:
    """Return whether a file already has the requested format and bit depth."""
    if choices.format is None:
        return True
    depth = choices.encoding.stored_bit_depth
    has_extension = path.suffix.lower() == f".{choices.encoding.extension}"
    return has_extension and depth is not None and AudioFile(path).bit_depth == depth
