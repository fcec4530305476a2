"""Routes for a track's lanes: samples, peaks and spectrograms."""

from typing import Annotated

import numpy as np
from fastapi import APIRouter, Path, Query, Response
from numpy.typing import NDArray

from htdemucs.errors import InvalidValueError
from htdemucs.serve.app_state import AppState, StateDep
from htdemucs.serve.db import Row
from htdemucs.serve.preview import COLUMN, range_end
from htdemucs.serve.spectrogram import wide_spectrogram
from htdemucs.serve.time_stretch import LOOKAHEAD, Stretcher

router = APIRouter(prefix="/api/tracks/{track}", tags=["sound"])
MAX_BYTES = 8 << 20  # of samples in one response
TrackId = Annotated[str, Path(max_length=100)]
From = Annotated[int, Query(alias="from", ge=0, le=1 << 40)]
Frames = Annotated[int, Query(ge=1, le=1 << 24)]
Columns = Annotated[int, Query(ge=1, le=1 << 16)]
Lanes = Annotated[
    str | None, Query(max_length=500, description="Stems and original, separated by commas.")
]


@router.get("/pcm", response_class=Response)
def pcm(
    state: StateDep,
    track: TrackId,
    start: From = 0,
    frames: Frames = 1 << 16,
    stems: Lanes = None,
    tempo: Annotated[float, Query(ge=0.5, le=2)] = 1.0,
    pitch: Annotated[float, Query(ge=-12, le=12, description="Semitones.")] = 0.0,
) -> Response:
    """Return samples from a frame on, up to the first part that is not separated yet.

    int16, little-endian, as `[frame][lane][channel]`. The header `X-Frames` has the number of
    frames; the status is 204 if there are none yet. At another tempo `from` and `frames` count in
    the stretched track, whose frame n is the track's frame n * tempo.
    """
    row = state.tracks.row(track)
    preview, lanes = state.preview(row), state.lane_numbers(row, stems)
    frame_bytes = 2 * preview.channels * len(lanes)
    frames = min(frames, MAX_BYTES // frame_bytes)
    state.request_preview(row)
    if tempo != 1 or pitch != 0:
        data = _stretched(state, row, lanes, start, frames, tempo, pitch)
    else:
        available = range_end(row["ranges"], start) - start
        data = preview.read(lanes, start, min(available, frames)).tobytes()
    count = len(data) // frame_bytes
    if not count:
        return Response(status_code=204, headers={"x-frames": "0"})
    return Response(data, media_type="application/octet-stream", headers={"x-frames": str(count)})


def _stretched(
    state: AppState,
    row: Row,
    lanes: list[int],
    start: int,
    frames: int,
    tempo: float,
    semitones: float,
) -> bytes:
    """Return samples of the stretched track, as far as the track is separated."""
    preview, rate, whole = state.preview(row), row["sample_rate"], row["frames"]
    separated = range_end(row["ranges"], round(start * tempo))
    if whole is not None and separated >= whole:
        end = round(separated / tempo)
    else:
        end = int(separated / tempo - LOOKAHEAD * rate) - 1 if rate else 0
    if end <= start:
        return b""

    def read(first: int, count: int) -> NDArray[np.float32]:
        before = max(0, min(-first, count))  # frames before the track's first
        samples = preview.read(lanes, max(0, first), count - before)
        channels = samples.reshape(count - before, -1).T
        return np.pad(channels.astype(np.float32) / 2**15, ((0, 0), (before, 0)))

    samples = state.stretchers.read(
        (row["id"], tuple(lanes), tempo, semitones),
        lambda: Stretcher(read, rate, tempo, semitones),
        start,
        frames,
        end,
    )
    return (samples.T * 2**15).round().clip(-(2**15), 2**15 - 1).astype("<i2").tobytes()


@router.get("/peaks", response_class=Response)
def peaks(state: StateDep, track: TrackId, start: From = 0, columns: Columns = 4096) -> Response:
    """Return the peaks of columns of 1024 frames.

    int8, as `[column][lane][minimum, maximum]`; the lanes are the stems and the original. The
    header `X-Columns` has the number of columns. Parts that are not separated yet are 0.
    """
    row = state.tracks.row(track)
    state.request_preview(row)
    end = row["frames"] or max((stop for _, stop in row["ranges"]), default=0)
    count = max(0, min(columns, -(-end // COLUMN) - start))
    data = state.preview(row).peaks(start, count)
    return Response(data, media_type="application/octet-stream", headers={"x-columns": str(count)})


@router.get("/spectrogram", response_class=Response)
def spectrogram(
    state: StateDep,
    track: TrackId,
    stem: Annotated[str, Query(max_length=200)],
    start: From = 0,
    columns: Annotated[int, Query(ge=1, le=4096)] = 512,
    step: Annotated[int, Query(ge=1, le=1024, description="A power of two.")] = 1,
) -> Response:
    """Return a mel spectrogram of columns of 1024 frames.

    uint8, as `[column][band]` with 96 bands: 0 is -90 dB, 255 is 0 dB. With `step`, each column
    is the maximum of that many columns. The header `X-Columns` has the number of columns.
    """
    if step & (step - 1):
        raise InvalidValueError("step must be a power of two")
    row = state.tracks.row(track)
    state.request_preview(row)
    rate, end = row["sample_rate"], row["frames"] or 0
    count = max(0, min(columns, -(-end // (step * COLUMN)) - start))
    if "," in stem:
        raise InvalidValueError("a spectrogram shows one stem; request one at a time")
    lanes = state.lane_numbers(row, stem)
    if not count or not rate:
        return Response(b"", media_type="application/octet-stream", headers={"x-columns": "0"})
    preview = state.preview(row)

    def read(first: int, frames: int) -> NDArray[np.int16]:
        return preview.read(lanes, first, frames)[:, 0]

    bands = wide_spectrogram(read, rate, start, count, step)
    headers = {"x-columns": str(count)}
    return Response(bands.tobytes(), media_type="application/octet-stream", headers=headers)
