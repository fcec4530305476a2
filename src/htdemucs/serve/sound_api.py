"""The API of sound: what can be heard of a track, and pictures of it."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from htdemucs.errors import BadRequestError
from htdemucs.serve.preview import COLUMN
from htdemucs.serve.ranges import end_of
from htdemucs.serve.service import Here
from htdemucs.serve.spectrogram import BEFORE, frames_around, spectrogram

router = APIRouter(prefix="/api/tracks/{track}", tags=["sound"])
MOST_BYTES = 8 << 20  # of samples in one answer
Id = Annotated[str, Path(max_length=100)]
From = Annotated[int, Query(alias="from", ge=0, le=1 << 40)]
Frames = Annotated[int, Query(ge=1, le=1 << 24)]
Columns = Annotated[int, Query(ge=1, le=1 << 16)]
Lanes = Annotated[
    str | None, Query(max_length=500, description="Stems and original, separated by commas.")
]


@router.get("/pcm", response_class=Response)
def pcm(
    here: Here, track: Id, start: From = 0, frames: Frames = 1 << 16, stems: Lanes = None
) -> Response:
    """Return samples from a frame on, as far as they can be heard without a gap.

    int16, little-endian: frame by frame, lane by lane, channel by channel. `X-Frames` says how
    many; 204 if nothing can be heard there yet.
    """
    row = here.tracks.row(track)
    preview, lanes = here.preview(row), here.lanes(row, stems)
    most = MOST_BYTES // (2 * preview.channels * len(lanes))
    count = min(end_of(row["ranges"], start) - start, frames, most)
    here.listen(row)
    if count <= 0:
        return Response(status_code=204, headers={"x-frames": "0"})
    data = preview.read(lanes, start, count).tobytes()
    return Response(data, media_type="application/octet-stream", headers={"x-frames": str(count)})


@router.get("/peaks", response_class=Response)
def peaks(here: Here, track: Id, start: From = 0, columns: Columns = 4096) -> Response:
    """Return the peaks of columns of 1024 frames: int8 [column][stem..., original][min, max].

    What cannot be heard yet is flat; there are no columns behind the track's end.
    """
    row = here.tracks.row(track)
    here.listen(row)
    end = row["frames"] or max((stop for _, stop in row["ranges"]), default=0)
    count = max(0, min(columns, -(-end // COLUMN) - start))
    data = here.preview(row).peaks(start, count)
    return Response(data, media_type="application/octet-stream", headers={"x-columns": str(count)})


@router.get("/spectrogram", response_class=Response)
def picture(
    here: Here,
    track: Id,
    stem: Annotated[str, Query(max_length=200)],
    start: From = 0,
    columns: Annotated[int, Query(ge=1, le=4096)] = 512,
) -> Response:
    """Return mel bands of columns of 1024 frames: uint8 [column][96], 0 = -90 dB, 255 = 0 dB."""
    row = here.tracks.row(track)
    here.listen(row)
    rate, end = row["sample_rate"], row["frames"] or 0
    count = max(0, min(columns, -(-end // COLUMN) - start))
    if "," in stem:
        raise BadRequestError("one stem at a time, please")
    lanes = here.lanes(row, stem)
    if not count or not rate:
        return Response(b"", media_type="application/octet-stream", headers={"x-columns": "0"})
    first = start * COLUMN - BEFORE
    missing = max(0, -first)
    samples = here.preview(row).read(lanes, first + missing, frames_around(count) - missing)[:, 0]
    bands = spectrogram(samples, rate, count, missing)
    headers = {"x-columns": str(count)}
    return Response(bands.tobytes(), media_type="application/octet-stream", headers=headers)
