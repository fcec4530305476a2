"""Numbers for Prometheus, in its text format."""

from fastapi import APIRouter, Response
from sqlalchemy import func, select

from htdemucs.serve.service import Here
from htdemucs.serve.tables import LIVE, TRACKS
from htdemucs.version import __version__

router = APIRouter(tags=["server"])
T = TRACKS.c


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
