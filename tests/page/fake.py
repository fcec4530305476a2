"""A server with the API of `htdemucs serve` but no model: tests control each track's state."""

import asyncio
import itertools
import json
import threading
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles

import htdemucs
from htdemucs.serve.auth import Access, AuthMiddleware, SecurityHeadersMiddleware

PAGE = Path(htdemucs.__file__).parent / "serve" / "page"
STEMS = ("drums", "bass", "other", "vocals")
RATE = 44_100
COLUMN = 1024
BANDS = 96
MAX_SECONDS = 30  # of a track
INFO = {
    "version": "0",
    "default_model": "htdemucs",
    "models": [
        {
            "name": "htdemucs",
            "stems": STEMS,
            "ready": True,
            "bytes": 41_984_456,
            "licence": "MIT",
        },
        {
            "name": "mini",
            "stems": STEMS,
            "ready": True,
            "bytes": 1_400_000,
            "licence": "CC0",
        },
        {
            "name": "htdemucs_6s",
            "stems": (*STEMS, "guitar", "piano"),
            "ready": False,
            "bytes": 27_000_000,
            "licence": "MIT",
        },
    ],
    "formats": {
        name: {"label": label, "bit_depths": depths, "bitrates": bitrates, "default_bitrate": 320}
        for name, label, depths, bitrates in (
            ("wav", "WAV", [16, 24, 32], []),
            ("flac", "FLAC", [16, 24], []),
            ("mp3", "MP3", [], [128, 192, 320]),
            ("ogg", "Ogg Vorbis", [], []),
        )
    },
    "limits": {"bytes": 10**9, "seconds": 3600, "jobs": 50},
    "stretch": True,
}


def music(frames: int, sources: int) -> np.ndarray:
    """Return (L, sources + 1, 2) int16: stems that differ in pitch and rhythm, and their sum."""
    return long_music(sources)[:frames]


@cache
def long_music(sources: int) -> np.ndarray:
    frames = MAX_SECONDS * RATE
    time = np.arange(frames) / RATE
    parts = []
    for source in range(sources):
        beat = 0.5 / (1 + source % 3)
        envelope = np.exp(-6 * (time % beat)) * (
            0.6 + 0.4 * np.sin(2 * np.pi * time / (7 + source))
        )
        tone = np.sin(2 * np.pi * 110 * (source + 1) * time)
        noise = np.random.default_rng(source).standard_normal(frames) if source == 0 else tone
        left = 0.2 * envelope * noise
        parts.append(np.stack([left, 0.8 * left], axis=1))
    stems = np.round(32768 * np.stack(parts, axis=1)).clip(-8000, 8000)
    mixture = stems.sum(axis=1, keepdims=True)
    return np.concatenate([stems, mixture], axis=1).astype(np.int16)


@dataclass
class Song:
    """A track, its sound, and the frames that seek requests named."""

    id: str
    values: dict
    sound: np.ndarray  # (L, sources + 1, 2)
    seeks: list[int] = field(default_factory=list)

    def ready_from(self, frame: int) -> int:
        """Return how many frames are separated from here on."""
        return next((b - frame for a, b in self.values["ranges"] if a <= frame < b), 0)


class FakeServer:
    """Runs in a thread of the test's process.

    Args:
        prefix: path below which it serves, as behind a reverse proxy.
        token: that requests need; None for none.
    """

    def __init__(self, prefix: str = "", token: str | None = None) -> None:
        self.prefix = prefix
        self.songs: dict[str, Song] = {}
        self.removed: dict[str, int] = {}
        self.version = 0
        self.cuts = 0  # how often the event streams were cut
        self.open_streams = 0
        self.ended = False
        self.uploads: list[dict] = []  # the parameters of each
        self.requests: list[str] = []  # addresses of pcm and export
        self.refuse: tuple[int, str, str] | None = None  # of the next upload
        self.numbers = itertools.count(1)
        self.app = FastAPI()
        self.app.add_middleware(AuthMiddleware, access=Access.to(token))
        self.app.add_middleware(SecurityHeadersMiddleware)
        self._routes()

    def __enter__(self):
        outer = FastAPI()
        outer.mount(self.prefix, self.app)
        config = uvicorn.Config(outer, port=0, log_level="warning", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            self.thread.join(0.01)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}{self.prefix}/"
        return self

    def __exit__(self, *_):
        self.ended = True
        self.server.should_exit = True
        self.thread.join(5)

    def add(self, name="Blue Bossa.mp3", seconds=30.0, state="finished", **values) -> Song:
        """Add a track; if it is finished, all of it is separated."""
        frames, number = int(seconds * RATE), next(self.numbers)
        stems = values.pop("stems", STEMS)
        song = Song(f"t{number}", {}, music(frames, len(stems)))
        finished = state == "finished"
        song.values = {
            "name": name, "title": None, "artist": None, "album": None, "kind": "upload",
            "position": 1 if state == "queued" else None, "model": "htdemucs",
            "stems": list(stems), "sample_rate": RATE, "channels": 2, "frames": frames,
            "duration": seconds, "done": seconds if finished else 0.0,
            "ranges": [[0, frames]] if finished else [], "speed": None, "left": None,
            "error": None, "code": None, "warnings": [], "files": {}, "ended": None,
            "created": f"2026-01-01T00:00:{number:02}Z",
        }  # fmt: skip
        if finished:
            song.values["files"] = {
                stem: {
                    "name": f"{stem}.wav",
                    "bytes": 4 * frames,
                    "url": f"/api/tracks/{song.id}/stems/{stem}",
                }
                for stem in stems
            }
        self.songs[song.id] = song
        self.change(song, state=state, **values)
        return song

    def change(self, song: Song, **values) -> None:
        """Change a track and send the change to the page."""
        self.version += 1
        song.values = {**song.values, **values, "id": song.id, "version": self.version}

    def remove(self, song: Song) -> None:
        """Delete a track and send the deletion to the page."""
        del self.songs[song.id]
        self.version += 1
        self.removed[song.id] = self.version

    def cut(self) -> None:
        """Close all event streams."""
        self.cuts += 1

    def separate(self, song: Song, seconds: float) -> None:
        """Set how many seconds of a track are separated, from its start."""
        to = min(int(seconds * RATE), song.values["frames"])
        self.change(
            song,
            state="separating",
            position=None,
            done=seconds,
            ranges=[[0, to]],
            speed=3.2,
            left=12.0,
        )

    def _routes(self) -> None:
        app = self.app

        @app.get("/")
        def index():
            return FileResponse(PAGE / "index.html")

        app.mount("/page", StaticFiles(directory=PAGE))

        @app.get("/api/info")
        def info():
            return INFO

        @app.get("/api/events")
        async def events(request: Request, since: int | None = None):
            since = int(request.headers.get("Last-Event-ID", -1 if since is None else since))
            return StreamingResponse(self._event_stream(since), media_type="text/event-stream")

        @app.post("/api/tracks")
        async def create(request: Request):
            if request.headers["content-type"] == "application/json":
                body = await request.json()
                old = self.songs[body["track"]]
                stems = tuple(body["stems"] or STEMS)
                song = self.add(old.values["name"], 5, "queued", stems=stems, model=body["model"])
                return JSONResponse(song.values, 201)
            await request.body()
            if self.refuse:
                status, error, code = self.refuse
                self.refuse = None
                return JSONResponse({"error": error, "code": code}, status)
            self.uploads.append(dict(request.query_params))
            return JSONResponse(self.add(request.query_params["name"], 20, "queued").values, 201)

        @app.post("/api/tracks/{name}/{action}")
        async def act(name: str, action: str, request: Request):
            song = self.songs[name]
            if action == "seek":
                song.seeks.append((await request.json())["frame"])
            else:
                state = "cancelled" if action == "cancel" else "queued"
                self.change(song, state=state, position=1 if state == "queued" else None)
            return song.values

        @app.delete("/api/tracks/{name}")
        def delete(name: str):
            self.remove(self.songs[name])
            return Response(status_code=204)

        @app.get("/api/tracks/{name}/pcm")
        def pcm(request: Request, name: str, frames: int, tempo: float = 1.0, pitch: float = 0.0):
            self.requests.append(str(request.url))
            start = int(request.query_params["from"])
            song = self.songs[name]
            source = round(start * tempo)
            count = min(frames, int(song.ready_from(source) / tempo))
            if count == 0:
                return Response(status_code=204)
            indices = np.minimum(
                source + (np.arange(count) * tempo).astype(int), len(song.sound) - 1
            )
            headers = {"X-Frames": str(count)}
            return Response(song.sound[indices].tobytes(), headers=headers)

        @app.get("/api/tracks/{name}/peaks")
        def peaks(request: Request, name: str, columns: int):
            song, first = self.songs[name], int(request.query_params["from"])
            left = song.sound[first * COLUMN : (first + columns) * COLUMN, :, 0]  # the louder side
            edges = np.arange(0, len(left), COLUMN)
            ends = [reduce.reduceat(left, edges) // 256 for reduce in (np.minimum, np.maximum)]
            return Response(np.stack(ends, axis=2).astype(np.int8).tobytes())

        @app.get("/api/tracks/{name}/spectrogram")
        def spectrogram(request: Request, name: str, stem: str, columns: int, step: int):
            song, first = self.songs[name], int(request.query_params["from"])
            row = song.values["stems"].index(stem)
            last = -(-len(song.sound) // (step * COLUMN))
            count = max(0, min(columns, last - first))
            bands = (
                np.arange(BANDS)[None]
                - 12
                - 14 * row
                - 6 * np.sin(np.arange(first, first + count) / 9)[:, None]
            )
            level = 255 * np.exp(-((bands / 7) ** 2))
            return Response(level.astype(np.uint8).tobytes())

        @app.get("/api/tracks/{name}/stems/{stem}")
        def stem_file(name: str, stem: str):
            disposition = {"Content-Disposition": f'attachment; filename="{stem}.wav"'}
            return Response(f"{name} {stem}".encode(), headers=disposition)

        @app.get("/api/tracks/{name}/export")
        def export(request: Request, name: str, kind: str):
            self.requests.append(str(request.url))
            disposition = {"Content-Disposition": f'attachment; filename="{kind}.bin"'}
            return Response(kind.encode(), headers=disposition)

    async def _event_stream(self, since: int):
        self.open_streams += 1
        try:
            async for message in self._messages(since):
                yield message
        finally:
            self.open_streams -= 1

    async def _messages(self, since: int):
        cuts = self.cuts
        while not self.ended and cuts == self.cuts:
            if self.version > since or since < 0:
                version = self.version
                changed = [s.values for s in self.songs.values() if s.values["version"] > since]
                removed = [name for name, at in self.removed.items() if at > since >= 0]
                whole, since = since < 0, version
                message = {
                    "version": version,
                    "tracks": changed,
                    "removed": removed,
                    "whole": whole,
                }
                yield f"event: tracks\nid: {version}\ndata: {json.dumps(message)}\n\n"
            await asyncio.sleep(0.02)
