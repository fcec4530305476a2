"""The API of downloads: files that the server makes of a finished track."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from threading import BoundedSemaphore
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask

from htdemucs.audio import AudioEncoding, AudioFile
from htdemucs.batch import read_manifest
from htdemucs.errors import BadRequestError, ConflictError
from htdemucs.fast import use_this_thread_only
from htdemucs.formats import FORMATS
from htdemucs.serve.app_state import Here, Service
from htdemucs.serve.audio_routes import Id
from htdemucs.serve.db import Values
from htdemucs.serve.export import Mix, Song, export_mix, export_stems, zipped
from htdemucs.stems import OutputOptions
from htdemucs.stems.output_options import Residual

router = APIRouter(prefix="/api/tracks/{track}", tags=["downloads"])
_AT_ONCE = BoundedSemaphore(2)  # exports; others wait
Each = Annotated[str, Field(max_length=1000)]  # such as vocals:0.5,drums:0
Seconds = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class Choices(BaseModel):
    """What to make of a track.

    `from`, `to` (seconds), `tempo` and `pitch` (semitones) apply to everything but the stem file,
    and are not to be had together with the residual.
    """

    kind: Literal["stem", "zip", "stem-file", "mix"] = "zip"
    stem: str | None = Field(None, max_length=200)
    format: str | None = Field(None, max_length=10, description="By default that of the stems.")
    bit_depth: Literal["16", "24", "32"] = "16"
    bitrate: int | None = Field(None, ge=1, le=1000, description="kbit/s")
    mp3_preset: int = Field(2, ge=2, le=7, description="2 is the best quality, 7 the fastest.")
    gains: Each = Field("", description="For a mix, such as vocals:0.5,drums:0.")
    pans: Each = Field("", description="For a mix, from -1 (left) to 1 (right).")
    first: Seconds = Field(0.0, alias="from", description="Seconds.")
    last: Seconds | None = Field(None, alias="to", description="Seconds; by default the end.")
    tempo: float = Field(1.0, ge=0.5, le=2, description="Factor.")
    pitch: float = Field(0.0, ge=-12, le=12, description="Semitones.")
    residual: bool = Field(False, description="Add the residual to a zip.")

    @property
    def encoding(self) -> AudioEncoding:
        """The files' encoding."""
        name = self.format or "flac"
        if name in FORMATS and FORMATS[name].is_lossless:
            return AudioEncoding(name, int(self.bit_depth))
        return AudioEncoding(name, bitrate=self.bitrate, mp3_preset=self.mp3_preset)

    @property
    def mix(self) -> Mix:
        """The mixer's settings."""
        gains, balances = _numbers(self.gains), _numbers(self.pans)
        return Mix(gains, balances, self.first, self.last, self.tempo, self.pitch)

    @property
    def part(self) -> Mix:
        """The part of the track, its tempo and pitch, of a mixer that changes nothing."""
        return replace(self.mix, gains={}, balances={})

    @property
    def is_part(self) -> bool:
        """Whether it is less than the whole track, or at another tempo or pitch."""
        return self.part != Mix()


@router.get("/export", response_class=FileResponse)
def export(here: Here, track: Id, choices: Annotated[Choices, Query()]) -> Response:
    """Return a finished track's stem, all stems as zip, a .stem.mp4 for DJ programs, or a mix.

    `from`, `to`, `tempo` and `pitch` do not apply to the .stem.mp4, and exclude `residual`.
    """
    row = here.tracks.row(track)
    song, name = _song(here, row), _track_name(row)
    if choices.residual and choices.is_part:
        raise BadRequestError("the residual can be had of whole tracks only")
    if choices.kind == "stem" and choices.stem not in song.stems:
        raise BadRequestError(f"this track has the stems {', '.join(song.stems)}")
    folder = Path(tempfile.mkdtemp(dir=here.exports))
    try:
        with _AT_ONCE:
            use_this_thread_only()
            files = _made(song, choices, name, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if choices.kind != "zip":
        [(stem, path)] = files.items()
        task = BackgroundTask(shutil.rmtree, folder, ignore_errors=True)
        shown = f"{name} - {stem}{path.suffix}" if choices.kind == "stem" else path.name
        return FileResponse(path, filename=shown, background=task)
    entries = {f"{name}/{stem}{path.suffix}": path for stem, path in files.items()}
    headers = {"content-disposition": f"attachment; filename*=utf-8''{quote(name, '')}.zip"}
    stream = _then_removed(zipped(entries), folder)
    return StreamingResponse(stream, media_type="application/zip", headers=headers)


def _made(song: Song, choices: Choices, name: str, folder: Path) -> dict[str, Path]:
    """Return the files that are wanted, made in a folder where they are not there already."""
    encoding = choices.encoding
    if choices.kind == "mix":
        path = folder / f"{name} (mix).{encoding.extension}"
        export_mix(song, choices.mix, encoding, path)
        return {"mix": path}
    if choices.kind == "stem-file":
        options = OutputOptions(AudioEncoding(bitrate=choices.bitrate), stem_file=True)
        return export_stems(song, options, options.output_paths(Path(name), folder))
    if choices.kind == "stem":
        stem = choices.stem or ""
        song = Song({stem: song.stems[stem]}, song.original, song.gain, song.align)
    if choices.is_part:
        return _parts(song, choices, folder)
    if not choices.residual and all(_is_so(path, choices) for path in song.stems.values()):
        return dict(song.stems)
    residual: Residual = "write" if choices.residual and choices.kind == "zip" else "none"
    options = OutputOptions(encoding, residual=residual)
    return export_stems(song, options, options.output_paths(Path("stems"), folder))


def _song(here: Service, row: Values) -> Song:
    if row["state"] != "finished" or not row["stems"]:
        raise ConflictError("this track is not finished; wait for it, or separate it")
    about: Mapping[str, Any] = read_manifest(Path(row["place"] or "")) or {}
    stems = {stem: here.file(row["files"][stem]["path"]) for stem in row["stems"]}
    original = Path(row["path"] or "")
    return Song(
        stems,
        original if original.is_file() else None,
        about.get("gain") or 1.0,
        about.get("output", {}).get("align") or "start",
    )


def _parts(song: Song, choices: Choices, folder: Path) -> dict[str, Path]:
    """Write a part of each stem, or all of it at another tempo."""
    mix, encoding = choices.part, choices.encoding
    files = {name: folder / f"{name}.{encoding.extension}" for name in song.stems}
    for name, path in files.items():
        export_mix(Song({name: song.stems[name]}), mix, encoding, path)
    return files


def _is_so(path: Path, choices: Choices) -> bool:
    """Whether a file is as it is wanted."""
    if choices.format is None:
        return True
    depth = choices.encoding.stored_bit_depth
    same = path.suffix.lower() == f".{choices.encoding.extension}"
    return same and depth is not None and AudioFile(path).bit_depth == depth


def _numbers(text: str) -> dict[str, float]:
    """Read "vocals:0.5,drums:0"; a stem's name may have a colon in it."""
    found = {}
    for item in text.split(","):
        name, colon, number = item.rpartition(":")
        try:
            if item.strip():
                found[name.strip()] = float(number)
        except ValueError:
            colon = ""
        if item.strip() and not colon:
            raise BadRequestError(f"{item!r} must be like vocals:0.5")
    return found


def _track_name(row: Values) -> str:
    return str(row["name"]).rpartition(".")[0] or str(row["name"])


def _then_removed(stream: Iterator[bytes], folder: Path) -> Iterator[bytes]:
    try:
        yield from stream
    finally:
        shutil.rmtree(folder, ignore_errors=True)
