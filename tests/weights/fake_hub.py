"""A fake hub and legacy root: a small HTTP server, with faults on demand."""

import base64
import contextlib
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = re.compile(r"/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
TOKEN = "hf_writer"


class FakeHub(ThreadingHTTPServer):
    """Serves `files` by path: `/NAMESPACE/REPO/resolve/main/FILE` or `/legacy/FOLDER/FILE`.

    `faults` maps a part of a path to a fault: a status (404, 500), "cut" (the connection breaks in
    the middle of the body), "wrong" (the last byte differs), "no ranges" (a request for a range
    gets the whole file), "no length" (no Content-Length), "nonsense" (not HTTP).

    With TOKEN, clients can make repositories (`repositories`: what they asked for, by name) and
    commit to them (`commits`). A `private` repository cannot be read without it.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, int | str] = {}
        self.log: list[tuple[str, str, str | None]] = []  # method, path, range
        self.repositories: dict[str, dict] = {}
        self.commits: list[dict] = []
        self.large: dict[str, bytes] = {}  # large files by their hash, uploaded before the commit

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def on_hub(self, repository: str, files: dict[str, bytes], revision: str = "main") -> None:
        for name, content in files.items():
            self.files[f"/{repository}/resolve/{revision}/{name}"] = content

    def downloads(self) -> list[str]:
        """Return the names of the files that clients downloaded."""
        return [path.rpartition("/")[2] for method, path, _ in self.log if method == "GET"]

    def handle_error(self, request, client_address) -> None:
        """Ignore clients that hang up: some tests do that."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = next((f for part, f in self.server.faults.items() if part in self.path), None)
        if isinstance(fault, int) or not self.may_write():
            return self.fail(fault or 401, {})
        for pattern, reply in REPLIES.items():
            if place := re.fullmatch(pattern, self.path.partition("?")[0]):
                return reply(self, body, *place.groups())
        return self.fail(404, {})

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.large[hashlib.sha256(content).hexdigest()] = content
        self.reply({})

    def may_write(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def reply(self, value: object, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def create(self, body: bytes) -> None:
        wanted = json.loads(body)
        name = f"{wanted['organization']}/{wanted['name']}"
        known = name in self.server.repositories
        self.server.repositories.setdefault(name, wanted)
        self.reply({"url": f"{self.server.address}/{name}"}, 409 if known else 200)

    def validate(self, body: bytes) -> None:
        """Say, as the hub does, whether a card's metadata names one of its licences."""
        known = "license: mit" in json.loads(body)["content"]
        errors = [] if known else [{"message": '"license" must be one of [mit]'}]
        self.reply({"errors": errors, "warnings": []}, 400 if errors else 200)

    def branch(self, _: bytes, repository: str, name: str) -> None:
        self.server.repositories[repository].setdefault("branches", []).append(name)
        self.reply({})

    def preupload(self, body: bytes, _: str) -> None:
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self.reply({"files": modes})

    def batch(self, body: bytes) -> None:
        href = f"{self.server.address}/large"
        objects = [
            {**file, "actions": {"upload": {"href": href}}} for file in json.loads(body)["objects"]
        ]
        self.reply({"objects": objects})

    def commit(self, body: bytes, repository: str, revision: str) -> None:
        lines = [json.loads(line) for line in body.splitlines()]
        commit = {line["key"]: line["value"] for line in lines if line["key"] == "header"}
        files = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"])
            if line["key"] == "file"
            else self.server.large[line["value"]["oid"]]
            for line in lines
            if line["key"] != "header"
        }
        self.server.on_hub(repository, files, revision)
        proposed = self.path.endswith("create_pr=1")
        self.server.commits.append(
            {**commit["header"], "files": sorted(files), "revision": revision, "proposed": proposed}
        )
        address = f"{self.server.address}/{repository}"
        done = {"commitOid": COMMIT, "commitUrl": f"{address}/commit/{COMMIT}"}
        self.reply(done | ({"pullRequestUrl": f"{address}/discussions/1"} if proposed else {}))

    def answer(self, with_body: bool) -> None:
        if self.path == "/api/whoami-v2" and self.may_write():
            return self.reply({"name": "someone"})
        if self.path.startswith("/api/"):  # a list that the tests do not need
            return self.fail(401 if "whoami" in self.path else 404, {})
        self.server.log.append((self.command, self.path, self.headers.get("Range")))
        fault = next((f for part, f in self.server.faults.items() if part in self.path), None)
        if isinstance(fault, int):
            return self.fail(fault, {})
        if fault == "nonsense":
            self.close_connection = True
            return self.wfile.write(b"220 mail.example ready\r\n\r\n")
        content = self.server.files.get(self.path)
        place = HUB.fullmatch(self.path)
        repository = self.server.repositories.get(place["repository"], {}) if place else {}
        if repository.get("visibility") == "private" and not self.may_write():
            return self.fail(401, {"X-Error-Code": "RepoNotFound"})
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
        if place := HUB.fullmatch(self.path):
            revision = place["revision"]
            commit = COMMIT if revision == "main" else hashlib.sha1(revision.encode()).hexdigest()
            self.send_header("X-Repo-Commit", commit)
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


REPLIES = {
    "/api/repos/create": Handler.create,
    "/api/validate-yaml": Handler.validate,
    "/api/models/([^/]+/[^/]+)/branch/(.+)": Handler.branch,
    "/api/models/([^/]+/[^/]+)/preupload/.+": Handler.preupload,
    "/[^/]+/[^/]+.git/info/lfs/objects/batch": Handler.batch,
    "/api/models/([^/]+/[^/]+)/commit/(.+)": Handler.commit,
}


@contextlib.contextmanager
def running():
    """Run a fake hub at a free address."""
    with FakeHub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
