"""A client of `htdemucs serve` that needs only Python's standard library.

from htdemucs.client import Client

track = Client().separate("song.mp3", "stems", lambda t: print(t["state"], t["done"]))
"""

import json
import select
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from os import PathLike
from pathlib import Path
from ssl import SSLError
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import HTTPHandler, HTTPSHandler, Request, build_opener

from htdemucs.errors import ServerError
from htdemucs.fsutil import atomic_write

Track = dict[str, Any]  # see docs/http-api.md
LOCAL = "http://127.0.0.1:8000"
DONE = ("finished", "failed", "cancelled")
BLOCK = 1 << 16  # bytes of a file sent at a time


class Client:
    """A client of one server.

    Args:
        address: the server's URL.
        token: the access token, if the server requires one.
        interval: seconds between requests for the state of a track.

    Every method raises ServerError, with the server's message, if the request is refused.
    """

    def __init__(
        self,
        address: str = LOCAL,
        token: str | None = None,
        interval: float = 0.5,
    ) -> None:
        self.address, self._interval = address.rstrip("/"), interval
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._opener = build_opener(_Handler)

    def tracks(self, search: str = "") -> list[Track]:
        """Return the newest tracks, or those that match a search."""
        tracks: list[Track] = self._json("GET", "tracks", search=search)["tracks"]
        return tracks

    def track(self, track: str) -> Track:
        """Return one track by its id."""
        return self._json("GET", f"tracks/{track}")

    def add(
        self, path: str | PathLike[str], idempotency_key: str | None = None, **options: str
    ) -> Track:
        """Upload a file; return its track.

        Args:
            path: the file.
            idempotency_key: a random text. If a response is lost, repeat the upload with the same
                one: no second track is added.
            **options: `model`, and `stems` separated by commas.
        """
        with Path(path).open("rb") as file:
            headers = {
                "content-length": str(Path(path).stat().st_size),
                "content-type": "application/octet-stream",
            }
            if idempotency_key is not None:
                headers["idempotency-key"] = idempotency_key
            return self._json("POST", "tracks", file, headers, name=Path(path).name, **options)

    def act(self, track: str, action: str) -> Track:
        """Run an action of the API on a track: `cancel`, `retry` or `first`."""
        return self._json("POST", f"tracks/{track}/{action}")

    def delete(self, track: str) -> None:
        """Delete a track."""
        self._open("DELETE", f"tracks/{track}").close()

    def wait(self, track: str, on_progress: Callable[[Track], None] | None = None) -> Track:
        """Return the track when its separation has ended."""
        while True:
            current = self.track(track)
            if on_progress:
                on_progress(current)
            if current["state"] in DONE:
                return current
            time.sleep(self._interval)

    def download(self, track: str, path: str | PathLike[str], **options: Any) -> Path:
        """Save a stem, zip, stem file or mix; options are those of the API's `export`."""
        response = self._open("GET", f"tracks/{track}/export", **options)
        with response, atomic_write(Path(path)) as partial, partial.open("wb") as file:
            shutil.copyfileobj(response, file)
        return Path(path)

    def separate(
        self,
        path: str | PathLike[str],
        out: str | PathLike[str],
        on_progress: Callable[[Track], None] | None = None,
        **options: str,
    ) -> dict[str, Path]:
        """Upload a song, wait for it, and save its stems in a folder; return their files."""
        track = self.wait(self.add(path, **options)["id"], on_progress)
        if track["state"] != "finished":
            raise ServerError(track["error"] or f"{track['name']} was {track['state']}")
        Path(out).mkdir(parents=True, exist_ok=True)
        files = {}
        for stem, file in track["files"].items():
            target = Path(out) / Path(file["name"]).name
            files[stem] = self.download(track["id"], target, kind="stem", stem=stem)
        return files

    def _json(
        self,
        method: str,
        path: str,
        body: IO[bytes] | None = None,
        headers: dict[str, str] | None = None,
        **query: Any,
    ) -> dict[str, Any]:
        with self._open(method, path, body, headers, **query) as response:
            content: dict[str, Any] = json.load(response)
            return content

    def _open(
        self,
        method: str,
        path: str,
        body: IO[bytes] | None = None,
        headers: dict[str, str] | None = None,
        **query: Any,
    ) -> Any:
        parameters = {name: value for name, value in query.items() if value is not None}
        url = f"{self.address}/api/{quote(path)}?{urlencode(parameters)}"
        try:
            request = Request(url, body, self._headers | (headers or {}), method=method)
            return self._opener.open(request)
        except HTTPError as error:
            try:
                reason = json.load(error)["error"]
            except (ValueError, KeyError, TypeError):
                reason = f"the server responded with status {error.code}"
            raise ServerError(reason) from error
        except (OSError, HTTPException, ValueError) as error:  # ValueError: invalid URL
            reason = getattr(error, "reason", error)
            raise ServerError(f"{self.address} cannot be reached ({reason})") from error


class _Connection(HTTPConnection):
    """A connection that stops sending a file when the response arrives early: it is a refusal."""

    def request(  # type: ignore[override]
        self, method: str, url: str, body: Any, headers: Any, **options: Any
    ) -> None:
        self.connect()
        if body is not None:
            body = self._blocks(body)
        with suppress(ConnectionError, SSLError):  # the response may have arrived nevertheless
            super().request(method, url, body, headers, **options)

    def _blocks(self, file: IO[bytes]) -> Iterator[bytes]:
        while not select.select([self.sock], [], [], 0)[0] and (block := file.read(BLOCK)):
            yield block


class _SecureConnection(_Connection, HTTPSConnection):
    pass


class _Handler(HTTPHandler, HTTPSHandler):
    def http_open(self, req: Request) -> Any:
        return self.do_open(_Connection, req)

    def https_open(self, req: Request) -> Any:
        return self.do_open(_SecureConnection, req)
