"""The routes for downloads: stems, zip files, .stem.mp4 files and mixes of finished tracks."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Container, Coroutine, Iterator, Mapping
from dataclasses import replace
from itertools import chain, count
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
from htdemucs.errors import AudioError, ConflictError, HTDemucsError, InvalidValueError
from htdemucs.fast import use_this_thread_only
from htdemucs.formats import FORMATS, MP3_PRESETS
from htdemucs.serve.app_state import AppState, StateDep
from htdemucs.serve.audio_routes import TrackId
from htdemucs.serve.db import Row
from htdemucs.serve.export import (
    FinishedTrack,
    Mix,
    copy_stems,
    export_mix,
    export_stems,
    zip_stream,
)
from htdemucs.serve.export_jobs import ExportJob
from htdemucs.serve.jobs import JobCancelledError
from htdemucs.serve.request_body import check_size
from htdemucs.serve.track_routes import TrackIds, attachment
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


class StemChoices(BaseModel):
    """The format of stems."""

    format: str | None = Field(None, max_length=10, description="By default that of the stems.")
    bit_depth: int = Field(16, description=f"{_BIT_DEPTHS}.")
    bitrate: int | None = Field(None, ge=1, le=1000, description="kbit/s")
    mp3_preset: int = Field(
        2,
        ge=MP3_PRESETS[0],
        le=MP3_PRESETS[-1],
        description="2 is the best quality, 7 the fastest.",
    )
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


class Choices(StemChoices, populate_by_name=True):
    """What to make of a track.

    `from`, `to` (seconds), `tempo` and `pitch` (semitones) apply to everything but the stem file,
    and exclude the residual.
    """

    kind: Literal["stem", "zip", "stem-file", "mix"] = "zip"
    stem: str | None = Field(None, max_length=200)
    gains: StemValues = Field("", description="For a mix, such as vocals:0.5,drums:0.")
    pans: StemValues = Field("", description="For a mix, from -1 (left) to 1 (right).")
    first: Seconds = Field(0.0, alias="from", description="Seconds.")
    last: Seconds | None = Field(None, alias="to", description="Seconds; by default the end.")
    tempo: float = Field(1.0, ge=0.5, le=2, description="Factor.")
    pitch: float = Field(0.0, ge=-12, le=12, description="Semitones.")

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


class SelectionChoices(StemChoices):
    """The tracks whose stems to put into a zip file, and their format."""

    tracks: TrackIds = Field(min_length=1)

    @property
    def of_one(self) -> Choices:
        """The same for one of the tracks."""
        return Choices(**self.model_dump(exclude={"tracks"}))


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
    row = await to_thread.run_sync(state.tracks.row, track)
    finished, name = await to_thread.run_sync(_checked, state, row, choices, left.is_set)
    folder = Path(tempfile.mkdtemp(dir=state.settings.exports))
    try:
        work = _make_in_turn(state, finished, choices, name, folder)
        files = await _unless_disconnected(request, work, left)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return _response(files, _filename(finished, choices, name), choices.kind == "zip", folder)


@router.post("/tracks/{track}/exports", status_code=201)
async def prepare_export(state: StateDep, track: TrackId, choices: Choices) -> dict[str, Any]:
    """Prepare what `GET /api/tracks/{track}/export` returns; the body has its parameters.

    The response is that of `GET /api/exports/{export}`. The same download is prepared once.
    """
    return await to_thread.run_sync(_prepare, state, [track], choices, choices)


@router.post("/exports", status_code=201)
async def prepare_exports(state: StateDep, choices: SelectionChoices) -> dict[str, Any]:
    """Prepare a zip file with a folder of stems for each of several finished tracks.

    The body is `{"tracks": [ID, ...]}` and optionally has `format`, `bit_depth`, `bitrate`,
    `mp3_preset` and `residual`. The response is that of `GET /api/exports/{export}`. Stems that
    have the requested format need no space on the server's disk.
    """
    return await to_thread.run_sync(_prepare, state, choices.tracks, choices.of_one, choices)


def _prepare(
    state: AppState, ids: list[str], choices: Choices, request: StemChoices
) -> dict[str, Any]:
    """Start to make a download of one track, or a zip file of several; return its job as JSON."""
    position = 0  # frames that were read, of `total`

    def on_frames(count: int) -> None:
        nonlocal position
        position += count
        job.progress = min(0.99, position / total)

    def is_cancelled() -> bool:
        return job.cancelled.is_set()

    tracks: dict[str, FinishedTrack] = {}  # by the name of their folder
    frames: dict[str, int] = {}  # to read, at most
    for track in dict.fromkeys(ids):
        row = state.tracks.row(track)
        try:
            finished, name = _checked(state, row, choices, is_cancelled)
        except HTDemucsError as error:
            raise type(error)(f"{row['name']}: {error}") if len(ids) > 1 else error from None
        name = _unlike(name, tracks)
        tracks[name] = replace(finished, on_frames=on_frames)
        frames[name] = (row["frames"] or 0) * _passes(finished, choices)
    total = max(1, sum(frames.values()))

    def make() -> dict[str, Path]:
        files: dict[str, Path] = {}
        done = 0
        for number, (name, finished) in enumerate(tracks.items()):
            if is_cancelled():
                raise JobCancelledError("the client has left")
            if len(tracks) > 1 and not _needs_no_change(finished, choices):
                check_size(0, folder, state.settings.limits)
            part = folder / str(number)
            part.mkdir()
            files |= _make_files(finished, choices, name, part)
            done += frames[name]
            on_frames(done - position)
        return files

    folder = Path(tempfile.mkdtemp(dir=state.settings.exports))
    filename = f"{len(tracks)} tracks.zip"
    if len(tracks) == 1:
        [(name, finished)] = tracks.items()
        filename = _filename(finished, choices, name)
    edits = [finished.edits for finished in tracks.values()]
    key = f"{ids} {edits} {request.model_dump_json(by_alias=True)}"
    job = ExportJob(key, choices.kind == "zip", filename, folder)
    return state.export_jobs.start(job, make).document(state.settings.without_folders)


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
    return _response(job.files, job.filename, job.is_zip, None)


@router.delete("/exports/{export}", status_code=204)
async def delete_export(state: StateDep, export: str) -> Response:
    """Cancel a download that is being prepared, or delete its files."""
    state.export_jobs.remove(export)
    return Response(status_code=204)


def _checked(
    state: AppState, row: Row, choices: Choices, is_cancelled: Callable[[], bool]
) -> tuple[FinishedTrack, str]:
    """Return the files of a track, and its name without the extension.

    Raises:
        ConflictError: the track is not finished.
        InvalidValueError: the choices do not fit it.
        NotFoundError: one of its files does not exist.
    """
    finished = _finished_track(state, row, is_cancelled)
    if choices.residual and choices.is_region:
        raise InvalidValueError("the residual is available for whole tracks only")
    if choices.kind == "stem" and choices.stem not in finished.stems:
        raise InvalidValueError(f"this track has the stems {', '.join(finished.stems)}")
    _ = choices.encoding
    title = row["edits"].get("title") or str(row["name"]).rpartition(".")[0]
    name = file_name(title or str(row["name"]))
    return finished, name or "track"


async def _make_in_turn(
    state: AppState, track: FinishedTrack, choices: Choices, name: str, folder: Path
) -> dict[str, Path]:
    async with state.export_slots:  # waiting takes no thread
        return await to_thread.run_sync(_make_files, track, choices, name, folder)


def _unlike(name: str, names: Container[str]) -> str:
    """Return a name, with a number if it is one of `names`."""
    numbered = (f"{name} ({number})" for number in count(2))
    return next(each for each in chain([name], numbered) if each not in names)


def _passes(track: FinishedTrack, choices: Choices) -> int:
    """Return how often the track is read, at most."""
    return 2 * len(track.stems) if choices.is_region and choices.kind == "zip" else 2


def _filename(track: FinishedTrack, choices: Choices, name: str) -> str:
    """Return the name of a download."""
    extension = choices.encoding.extension
    if choices.kind == "stem":
        path = track.stems[choices.stem or ""]
        if choices.format is None and not (choices.is_region or choices.residual):
            extension = path.suffix[1:]
        return f"{name} - {choices.stem}.{extension}"
    if choices.kind == "mix":
        return f"{name} (mix).{extension}"
    return f"{name}.zip" if choices.kind == "zip" else f"{name}.stem.mp4"


def _response(files: dict[str, Path], filename: str, is_zip: bool, folder: Path | None) -> Response:
    """Return the file, or a zip of them; then delete the folder, if there is one."""

    def remove() -> None:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    headers = attachment(filename)
    if not is_zip:
        [path] = files.values()
        return FileResponse(path, headers=headers, background=BackgroundTask(remove))

    def stream() -> Iterator[bytes]:
        try:
            yield from zip_stream(files)
        finally:
            remove()

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
        row["edits"],
        is_cancelled,
    )


def _make_files(track: FinishedTrack, choices: Choices, name: str, folder: Path) -> dict[str, Path]:
    """Return the files to send, by their names in a zip file."""
    use_this_thread_only()
    files = _written_files(track, choices, name, folder)
    return {f"{name}/{stem}{path.suffix}": path for stem, path in files.items()}


def _written_files(
    track: FinishedTrack, choices: Choices, name: str, folder: Path
) -> dict[str, Path]:
    """Return new files in a folder, or the stems if they need no change."""
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
    if _needs_no_change(track, choices):
        return copy_stems(track, folder) if track.edits else dict(track.stems)
    residual: Residual = "write" if choices.residual and choices.kind == "zip" else "none"
    options = OutputOptions(encoding, residual=residual)
    return export_stems(track, options, options.output_paths(Path("stems"), folder))


def _needs_no_change(track: FinishedTrack, choices: Choices) -> bool:
    """Return whether the stems already are what is requested, but for their tags."""
    fits = all(_fits(path, choices) for path in track.stems.values())
    return fits and not choices.residual and not choices.is_region


def _fits(path: Path, choices: Choices) -> bool:
    """Return whether a file already has the requested format and bit depth."""
    if choices.format is None:
        return True
    depth = choices.encoding.stored_bit_depth
    has_extension = path.suffix.lower() == f".{choices.encoding.extension}"
    return has_extension and depth is not None and AudioFile(path).bit_depth == depth
