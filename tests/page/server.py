"""The real application without workers: tests do their work and so control each track's state."""

import asyncio
import os
import shutil
import threading
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import soundfile
import torch
import uvicorn

import htdemucs
from htdemucs.serve.app import create_app
from htdemucs.serve.app_state import AppState
from htdemucs.serve.auth import Access
from htdemucs.serve.preview import Preview
from htdemucs.serve.server import _Server, listening_socket
from htdemucs.serve.settings import Limits, Settings

PAGE = Path(htdemucs.__file__).parent / "serve" / "page"
STEMS = ("drums", "bass", "other", "vocals")
RATE = 44_100
MAX_SECONDS = 30  # of a track
UPLOAD_SECONDS = 20  # of an uploaded track, whatever was uploaded


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
    """A track of the server."""

    id: str
    state: AppState

    @property
    def values(self) -> dict:
        """The track as JSON."""
        return self.state.tracks.get(self.id)

    @property
    def seek_frame(self) -> int | None:
        """The frame of the seek request that no worker has served yet."""
        return self.state.tracks.row(self.id)["seek_frame"]

    @property
    def sound(self) -> np.ndarray:
        """(L, stems + 1, 2) int16: what its files and its preview contain."""
        values = self.values
        return music(values["frames"], len(values["stems"]))


class PageServer:
    """Runs in a thread of the test's process.

    Args:
        folder: of the server's data.
        recordings: a folder for files that several servers share.
        prefix: path below which it serves, as behind a reverse proxy.
        token: that requests need; None for none.
        settings: of the server.
    """

    def __init__(
        self,
        folder: Path,
        recordings: Path,
        prefix: str = "",
        token: str | None = None,
        **settings,
    ) -> None:
        self.state = AppState(Settings.in_folder(folder, limits=Limits(free_bytes=0), **settings))
        self.requests: list[tuple[str, str]] = []  # method and address of each
        self._recordings, self._prefix = recordings, prefix
        self._app = create_app(self.state, Access.to(token))

    def __enter__(self):
        ready = threading.Event()
        config = uvicorn.Config(
            self._proxy, interface="asgi3", log_level="warning", timeout_graceful_shutdown=1
        )
        listener = listening_socket("127.0.0.1", 0)
        self._server = _Server(config, self.state, ready.set)
        self._thread = threading.Thread(target=self._run, args=(listener,), daemon=True)
        self._thread.start()
        assert ready.wait(30)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}{self._prefix}/"
        return self

    def __exit__(self, *_):
        self._server.should_exit = True
        self._thread.join(10)
        self.state.database.close()

    def _run(self, listener) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            runner.run(self._server.serve(sockets=[listener]))

    async def _proxy(self, scope, receive, send) -> None:
        """Note the request and, as a reverse proxy may, remove the prefix from its path."""
        if scope["type"] == "http":
            address = f"{scope['path']}?{scope['query_string'].decode()}"
            self.requests.append((scope["method"], address))
            scope = {**scope, "path": scope["path"].removeprefix(self._prefix)}
        await self._app(scope, receive, send)

    @property
    def uploads(self) -> list[dict]:
        """The parameters of each upload."""
        addresses = [urlsplit(url) for method, url in self.requests if method == "POST"]
        return [dict(parse_qsl(url.query)) for url in addresses if url.path == "/api/tracks"]

    @property
    def songs(self) -> dict[str, Song]:
        """All tracks, by id."""
        _, tracks = self.state.tracks.search()
        return {track["id"]: Song(track["id"], self.state) for track in tracks}

    @property
    def open_streams(self) -> int:
        """Number of open event streams."""
        return self.state.changes.streams

    def limit_uploads(self, size: int) -> None:
        """Refuse larger uploads from now on; `size` is in bytes."""
        settings = self.state.settings
        self.state.settings = replace(settings, limits=Limits(free_bytes=0, upload_bytes=size))

    def cut(self) -> None:
        """End all event streams."""

        async def restart() -> None:
            await self.state.changes.stop()
            await self.state.changes.start()

        asyncio.run_coroutine_threadsafe(restart(), self._loop).result(10)

    def add(self, name="Blue Bossa.mp3", seconds=30.0, state="finished", **values) -> Song:
        """Add a track; if it is finished, all of it is separated."""
        stems, frames = tuple(values.pop("stems", STEMS)), int(seconds * RATE)
        # Maintenance removes folders without a row, so the row is added first.
        track = self.state.tracks.add(name=name, state="unseparated", kind="upload")
        song = Song(track, self.state)
        self._record(song, stems, frames)
        if state == "finished":
            folder = self.state.settings.uploads / song.id
            files = {stem: folder / f"{stem}.wav" for stem in stems}
            values["files"] = {
                stem: {"path": str(path), "bytes": path.stat().st_size}
                for stem, path in files.items()
            }
            values |= {"ranges": [[0, frames]], "done": seconds}
        self.change(song, state=state, **{"model": "htdemucs", **values})
        return song

    def _record(self, song: Song, stems: tuple[str, ...], frames: int) -> None:
        """Give a track its source, its stems and its preview, as long as `frames`."""
        shared = self._recordings / f"{len(stems)}-{frames}"
        if not shared.exists():
            sound = music(frames, len(stems))
            preview = Preview(shared, len(stems) + 1, 2)
            preview.clear()
            for lane in range(len(stems) + 1):
                preview.write(lane, 0, torch.from_numpy(sound[:, lane].T / np.float32(32768)))
                soundfile.write(shared / f"{lane}.wav", sound[:, lane], RATE)
            preview.write_peaks(0, frames)
        settings = self.state.settings
        preview, upload = settings.previews / song.id, settings.uploads / song.id
        for folder in (preview, upload):
            folder.mkdir(exist_ok=True)
        links = {preview / path.name: path for path in (*shared.glob("*.pcm"), shared / "peaks")}
        for lane, stem in enumerate((*stems, "source")):
            links[upload / f"{stem}.wav"] = shared / f"{lane}.wav"
        for link, path in links.items():
            link.unlink(missing_ok=True)
            os.link(path, link)
        source = str(upload / "source.wav")
        self.change(song, path=source, stems=list(stems), sample_rate=RATE, frames=frames)

    def add_unseparated(self, name: str, seconds: float = 10.0, **values) -> Song:
        """Add a song without stems, which the server has not decoded."""
        song = self.add(name, seconds, state="unseparated", **values)
        shutil.rmtree(self.state.settings.previews / song.id)
        unknown = {"stems": [], "sample_rate": None, "frames": None, "model": None}
        self.change(song, **unknown, length=seconds)
        return song

    def add_many(self, count: int) -> None:
        """Add songs without files, twelve to an album; every third is separated."""
        rows = [
            {
                "kind": "upload",  # a scan removes missing songs of the library
                "state": "unseparated" if n % 3 else "finished",
                "name": f"{n}.flac",
                "title": f"Song {n}",
                "artist": f"Artist {n // 60}",
                "album": f"Album {n // 12}",
                "folder": f"Artist {n // 60}/Album {n // 12}",
                "length": float(60 + n * 7 % 300),
                "stems": [] if n % 3 else list(STEMS),
                "path": f"/nowhere/{n}.flac",
            }
            for n in range(count)
        ]
        self.state.tracks.add_all(rows)

    def change(self, song: Song, **values) -> None:
        """Change columns of a track's row."""
        assert self.state.tracks.update(song.id, **values)

    def remove(self, song: Song) -> None:
        """Delete a track."""
        self.state.deletion.delete(song.id)

    def separate(self, song: Song, seconds: float) -> None:
        """Set how many seconds of a track are separated, from its start."""
        if song.values["frames"] is None:
            self._record(song, tuple(song.values["stems"]), UPLOAD_SECONDS * RATE)
        to = min(int(seconds * RATE), song.values["frames"])
        self.change(song, state="separating", done=seconds, ranges=[[0, to]], speed=1.25)
