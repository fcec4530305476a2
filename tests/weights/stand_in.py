"""A small HTTP server that stands in for the hub and the legacy root, with faults on demand."""

import contextlib
import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = re.compile(r"/(?P<repository>[^/]+/[^/]+)/resolve/[^/]+/(?P<name>.+)")


class StandIn(ThreadingHTTPServer):
    """Serves `files` by path: `/NAMESPACE/REPO/resolve/main/FILE` or `/legacy/FOLDER/FILE`.

    `faults` maps a part of a path to a fault: a status (404, 500), "cut" (the connection breaks in
    the middle of the body), "wrong" (the last byte differs), "no ranges" (a request for a range
    gets the whole file), "no length" (no Content-Length), "nonsense" (not HTTP).
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, int | str] = {}
        self.log: list[tuple[str, str, str | None]] = []  # method, path, range

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def on_hub(self, repository: str, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            self.files[f"/{repository}/resolve/main/{name}"] = content

    def downloads(self) -> list[str]:
        """Return the names of the files that clients downloaded."""
        return [path.rpartition("/")[2] for method, path, _ in self.log if method == "GET"]

    def handle_error(self, request, client_address) -> None:
        """Ignore clients that hang up: some tests do that."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        if self.path.startswith("/api/"):  # a list that the tests do not need
            return self.fail(404, {})
        self.server.log.append((self.command, self.path, self.headers.get("Range")))
        fault = next((f for part, f in self.server.faults.items() if part in self.path), None)
        if isinstance(fault, int):
            return self.fail(fault, {})
        if fault == "nonsense":
            self.close_connection = True
            return self.wfile.write(b"220 mail.example ready\r\n\r\n")
        content = self.server.files.get(self.path)
        if content is None:
            return self.fail(404, self.why_missing())
        return self.send(content, fault, with_body)

    def send(self, content: bytes, fault: str | None, with_body: bool) -> None:
        etag = hashlib.sha256(content).hexdigest()
        if fault == "wrong":
            content = content[:-1] + bytes([content[-1] ^ 1])
        start, end = self.wanted(content, fault)
        if start >= len(content) > 0:
            return self.fail(416, {"Content-Range": f"bytes */{len(content)}"})
        body = content[start:end]
        self.send_response(206 if (start, end) != (0, len(content)) else 200)
        self.send_header("ETag", f'"{etag}"')
        if HUB.fullmatch(self.path):
            self.send_header("X-Repo-Commit", COMMIT)
        if (start, end) != (0, len(content)):
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        if fault == "no length":
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.close_connection = fault in ("cut", "no length")
        self.end_headers()
        if with_body:
            with contextlib.suppress(OSError):
                self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
        return None

    def wanted(self, content: bytes, fault: str | None) -> tuple[int, int]:
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not span or fault == "no ranges":
            return 0, len(content)
        return int(span[1]), int(span[2]) + 1 if span[2] else len(content)

    def why_missing(self) -> dict[str, str]:
        """Return the hub's headers: they say whether the repository or the file is missing."""
        place = HUB.fullmatch(self.path)
        if not place:
            return {}
        known = any(path.startswith(f"/{place['repository']}/") for path in self.server.files)
        code = "EntryNotFound" if known else "RepoNotFound"
        return {"X-Error-Code": code, "X-Repo-Commit": COMMIT} if known else {"X-Error-Code": code}

    def fail(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextlib.contextmanager
def running():
    """Run a stand-in at a free address."""
    with StandIn() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
