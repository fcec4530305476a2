"""Adding tracks: bodies of requests, file names and limits."""

import asyncio
import tracemalloc
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from htdemucs.errors import BadRequestError
from htdemucs.formats import FORMATS
from htdemucs.serve import request_body
from htdemucs.serve.app import create_app
from htdemucs.serve.app_state import AppState
from htdemucs.serve.request_body import safe_name
from htdemucs.serve.settings import Limits

KIND = "multipart/form-data; boundary=limit"


@pytest.fixture
def limits():
    return Limits(upload_bytes=1000, free_bytes=0, jobs=2, seconds=3.0)


def post(client, body, **options):
    return client.post("/api/tracks?name=song.flac", content=body, **options)


def leftovers(settings):
    return list(settings.uploads.iterdir())


def test_too_large_a_file_is_refused_before_it_arrives(client, settings):
    response = post(client, b"x" * 1001)
    assert response.status_code == 413
    assert "0 MB" in response.json()["error"]
    assert leftovers(settings) == []


def test_too_large_a_stream_is_cut_off(client, settings, monkeypatch):
    monkeypatch.setattr(request_body, "BLOCK", 100)
    monkeypatch.setattr(request_body, "MAX_DRAINED", 1000)
    taken = []

    async def endless():
        while True:
            taken.append(1)
            yield b"x" * 99

    assert post(client, endless()).status_code == 413
    assert len(taken) < 40
    assert leftovers(settings) == []


def test_a_full_disk_is_reported(client, settings, monkeypatch, state):
    object.__setattr__(state.settings, "limits", replace(settings.limits, free_bytes=1 << 60))
    response = post(client, b"x")
    assert response.status_code == 413
    assert "disk is full" in response.json()["error"]
    assert response.json()["code"] == "disk-full"


def test_an_empty_or_broken_file_is_refused(client, settings):
    assert post(client, b"").status_code == 400
    response = post(client, b"abc", headers={"content-length": "9"})
    assert response.status_code == 400
    assert "incomplete" in response.json()["error"]
    assert leftovers(settings) == []


def test_a_client_that_sends_nothing_times_out(client, settings, monkeypatch):
    monkeypatch.setattr(request_body, "TIMEOUT", 0.01)

    async def silent():
        yield b"x"
        await asyncio.Event().wait()

    for kind in ("audio/mpeg", KIND, "application/json"):
        response = send(client, silent(), kind)
        assert response.status_code == 400
        assert "for a while" in response.json()["error"]
        assert leftovers(settings) == []


@pytest.mark.parametrize(
    "kind", ["audio/mpeg", "multipart/form-data; boundary=b", "application/json"]
)
def test_a_client_that_disconnects_leaves_nothing(state, settings, caplog, kind):
    """In the middle of a file."""

    async def go():
        body = b'--b\r\ncontent-disposition: form-data; name="file"\r\n\r\nx'
        sent = [{"type": "http.request", "body": body, "more_body": True}]

        async def receive():
            return sent.pop() if sent else {"type": "http.disconnect"}

        async def send(_message):
            pass

        scope = {
            "type": "http", "method": "POST", "path": "/api/tracks", "query_string": b"name=a.wav",
            "headers": [(b"host", b"localhost"), (b"content-type", kind.encode())],
            "http_version": "1.1", "scheme": "http", "server": ("localhost", 80),
            "client": ("127.0.0.1", 1), "root_path": "",
        }  # fmt: skip
        await create_app(state)(scope, receive, send)

    asyncio.run(go())
    assert leftovers(settings) == []
    assert state.uploading == 0
    assert state.tracks.search()[0] == 0
    assert caplog.text == ""


def test_the_number_of_jobs_is_limited(client, write_song, tmp_path):
    assert post(client, b"one").status_code == 201
    assert post(client, b"two").status_code == 201
    response = post(client, b"three")
    assert response.status_code == 429
    assert "2 tracks are waiting" in response.json()["error"]
    assert response.json()["code"] == "too-many"


def test_too_long_a_track_fails(client, worker, write_song, tmp_path, state):
    object.__setattr__(state.settings.limits, "upload_bytes", 1 << 20)
    track = client.upload(write_song(tmp_path / "song.flac", seconds=3.1))["id"]
    worker.work()
    shown = client.track(track)
    assert shown["state"] == "failed"
    assert "at most 0.1" in shown["error"]
    assert shown["code"] == "too-long"
    track = client.upload(write_song(tmp_path / "long.flac", seconds=9))["id"]
    worker.work()
    assert "the track lasts 0.1 minutes" in client.track(track)["error"]


def stored(state, response):
    """The name and contents of the file of a track that was added."""
    assert response.status_code == 201, response.text
    path = Path(state.tracks.row(response.json()["id"])["path"])
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    return response.json()["name"], path.read_bytes()


def form(*parts, boundary="limit", end="--\r\n"):
    """The bytes of a form: (headers, contents) each."""
    text = b"".join(
        b"--%b\r\n%b\r\n\r\n%b\r\n" % (boundary.encode(), head.encode(), contents)
        for head, contents in parts
    )
    return text + f"--{boundary}{end}".encode()


def field(name, more=""):
    return f'Content-Disposition: form-data; name="{name}"{more}'


def send(client, content, kind=KIND, **options):
    headers = {"content-type": kind, **options.pop("headers", {})}
    return client.post("/api/tracks", content=content, headers=headers, **options)


SONG = (field("file", '; filename="song.mp3"'), b"sound")


def test_a_file_in_a_form_is_stored_as_it_is(client, state):
    data = bytes(range(256)) + b"\r\n--\r\n--limi\r\n\r\n"
    response = client.post("/api/tracks", files={"file": ("Ünï côdé.mp3", data)})
    assert stored(state, response) == ("Ünï côdé.mp3", data)


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_a_form_may_arrive_in_pieces(client, state, size):
    body = form(SONG, (field("name"), b"other.mp3"))

    async def pieces():
        for start in range(0, len(body), size):
            yield body[start : start + size]

    assert stored(state, send(client, pieces())) == ("other.mp3", b"sound")


def test_fields_of_a_form_are_the_parameters_before_and_after_the_file(client, state):
    stems = [(field("stems"), b"vocals"), (field("stems"), b"bass")]
    for parts in (
        [(field("model"), b"mini"), (field("shifts"), b"2"), SONG, *stems],
        [*stems, (field("model"), b"mini"), SONG, (field("shifts"), b"2")],
    ):
        response = send(client, form(*parts), params={"name": "a.mp3", "model": "htdemucs"})
        assert stored(state, response) == ("a.mp3", b"sound")
        chosen = [response.json()[name] for name in ("model", "stems", "shifts")]
        assert chosen == ["mini", ["vocals", "bass"], 2]


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (field("file"), "track"),  # curl -F 'file=<song.mp3'
        (field("song", "; filename=song.mp3"), "song.mp3"),
        (field("file", "; filename=\"a.mp3\"; filename*=UTF-8''%E6%AD%8C.mp3"), "歌.mp3"),
        (field("file", '; filename="歌.mp3"'), "歌.mp3"),
        (field("file", "; filename*=bogus''%41.mp3"), "A.mp3"),
        (field("file", '; filename="Say %22hi%22.mp3"'), 'Say "hi".mp3'),
        (field("file", '; filename="Say \\"hi\\".mp3"'), 'Say "hi".mp3'),
        (field("file", '; filename="C:\\music\\song.mp3"'), "song.mp3"),
        (field("file", '; filename="../../song.mp3"'), "song.mp3"),
        (field("file", '; filename=""'), "track"),
        ("x: y\r\nCONTENT-DISPOSITION: form-data; NAME=file; FileName=a.mp3", "a.mp3"),
    ],
)  # fmt: skip
def test_names_in_forms(client, state, head, name):
    assert stored(state, send(client, form((head, b"sound")))) == (name, b"sound")


def test_closing_a_form_needs_no_line_end(client, state):
    assert stored(state, send(client, form(SONG, end="--"))) == ("song.mp3", b"sound")
    kind = 'Multipart/Form-Data; charset=utf-8; boundary="li mit"'
    response = send(client, form(SONG, boundary="li mit", end="--\r\nepilogue"), kind)
    assert stored(state, response) == ("song.mp3", b"sound")


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (form(), KIND, "no file"),
        (form(SONG, SONG), KIND, "two files"),
        (form(SONG, (field("modle"), b"mini")), KIND, "name, model"),
        (form(SONG, (field("model"), b"x")), KIND, "no model of"),
        (form((field("stems"), b"x" * 1001), SONG), KIND, "long"),
        (form(*[(field("stems"), b"")] * 1100), KIND, "long"),
        (form((field("name"), b"x" * 9999), SONG), KIND, "long"),
        (form((field("x" * 9999), b""), SONG), KIND, "headers"),
        (form((SONG[0], b"")), KIND, "empty"),
        (form(("X: y", b"")), KIND, "no name"),
        (form((field("file", "; filename*=undefined''%ff"), b"")), KIND, "UTF-8"),
        (form(SONG), "multipart/form-data; boundary=other", "boundary"),
        (form(SONG), "multipart/form-data", "boundary"),
        (form(SONG), 'multipart/form-data; boundary=""', "boundary"),
        (b"sound", KIND, "boundary"),
        (b"", KIND, "boundary"),
        (form(SONG, end=""), KIND, "incomplete"),
        (form(SONG, end="-"), KIND, "incomplete"),
        (form(SONG)[:-20], KIND, "incomplete"),
        (form(SONG, end="x"), KIND, "incomplete"),
    ],
)  # fmt: skip
def test_invalid_forms_are_refused_and_leave_nothing(client, state, settings, content, kind, words):
    response = send(client, content, kind)
    assert response.status_code in (400, 422)
    assert words in response.json()["error"]
    assert leftovers(settings) == []
    assert state.uploading == state.tracks.count("queued") == 0


@pytest.mark.parametrize(
    ("kind", "content", "words"),
    [
        ("application/x-www-form-urlencoded", b"sound", "curl -F"),
        ("application/x-www-form-urlencoded; charset=utf-8", b"sound", "curl -X POST -T"),
        ("multipart/mixed; boundary=limit", form(SONG), "curl -F"),
        ("multipart/related; boundary=limit", form(SONG), "curl -F"),
        ("audio/mpeg", form(SONG), "curl -F"),
        ("", form(SONG), "curl -F"),
        ("application/octet-stream", b"\r\n" + form(("content-type: audio/mpeg", b"")), "curl -F"),
        (
            KIND,
            form((SONG[0] + "\r\nContent-Transfer-Encoding: base64", b"c291bmQ=")),
            "Content-Transfer-Encoding",
        ),
    ],
)
def test_other_content_types_are_refused_with_an_example(client, settings, kind, content, words):
    response = send(client, content, kind)
    assert (response.status_code, words in response.json()["error"]) == (415, True), response.text
    assert leftovers(settings) == []


@pytest.mark.parametrize(
    "encoding", ["gzip", "br", "deflate", "GZIP", "identity, gzip", "nonsense"]
)
def test_compressed_bodies_are_refused(client, settings, encoding):
    headers = {"content-encoding": encoding}
    for kind, body in [
        ("audio/mpeg", b"x"),
        (KIND, form(SONG)),
        ("application/json", b"{}"),
    ]:
        response = send(client, body, kind, headers=headers)
        assert (response.status_code, "Content-Encoding" in response.json()["error"]) == (415, True)
    response = client.post("/api/tracks/1/seek", content=b"{}", headers=headers)
    assert response.status_code == 415
    assert leftovers(settings) == []


def test_every_line_of_content_encoding_counts(client):
    headers = [("content-encoding", "identity"), ("content-encoding", "gzip")]
    response = client.post("/api/tracks", params={"name": "a.wav"}, content=b"x", headers=headers)
    assert response.status_code == 415


def test_a_path_that_is_too_long_for_a_file_is_not_found(client):
    assert client.post("/api/tracks", json={"path": "a" * 60_000}).status_code == 404


def test_the_identity_encoding_is_accepted(client, state):
    response = send(client, b"sound", "audio/mpeg", headers={"content-encoding": "Identity"})
    assert stored(state, response) == ("track", b"sound")


def test_a_form_has_the_limits_of_a_file(client, settings, state, monkeypatch):
    assert send(client, form((SONG[0], b"x" * 1001))).status_code == 413
    assert send(client, form((SONG[0], b"x" * 70_000))).status_code == 413  # before it arrives
    object.__setattr__(state.settings, "limits", replace(settings.limits, free_bytes=1 << 60))
    assert send(client, form(SONG)).json()["code"] == "disk-full"
    object.__setattr__(state.settings, "limits", replace(settings.limits, free_bytes=0))
    assert leftovers(settings) == []
    assert stored(state, send(client, form((SONG[0], b"x" * 1000))))[1] == b"x" * 1000


def test_a_large_form_takes_no_memory(client, settings, state):
    object.__setattr__(state.settings, "limits", replace(settings.limits, upload_bytes=1 << 30))

    async def large():
        yield form(SONG, end="")[: -len("sound\r\n--limit")]
        for _ in range(512):
            yield bytes(1 << 16)
        yield b"\r\n--limit--\r\n"

    tracemalloc.start()
    response = send(client, large())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert stored(state, response)[1] == bytes(32 << 20)
    assert peak < 8 << 20


def test_a_file_whose_row_cannot_be_added_is_removed(client, state, settings, monkeypatch):
    monkeypatch.setattr(state.tracks, "add", lambda **_: 1 / 0)
    assert post(client, b"x").status_code == 500
    assert leftovers(settings) == []


def test_a_source_that_is_deleted_in_the_meantime_is_reported(client, state, settings, monkeypatch):
    track = post(client, b"x").json()["id"]
    state.tracks.update(track, state="finished")
    readable_file = state.readable_file

    def deleting(path):
        found = readable_file(path)
        client.delete(f"/api/tracks/{track}")
        return found

    monkeypatch.setattr(state, "readable_file", deleting)
    response = client.post("/api/tracks", json={"track": track})
    assert (response.status_code, response.json()["error"]) == (
        404,
        "this file does not exist any more",
    )
    assert leftovers(settings) == []


KEY = {"idempotency-key": "5f0c"}


@pytest.mark.parametrize("kind", ["audio/mpeg", KIND])
def test_a_repeated_upload_adds_no_second_track(client, apps, settings, state, kind):
    body = form(SONG) if kind == KIND else b"sound"
    first = send(client, body, kind, headers=KEY)
    for restarted in (False, True):
        if restarted:
            apps[0].state.htdemucs = AppState(settings)
        again = send(client, body, kind, headers=KEY, params={"model": "mini"})
        assert (again.status_code, again.json()) == (200, first.json())
    apps[0].state.htdemucs.database.close()
    assert (state.tracks.search()[0], len(leftovers(settings))) == (1, 1)


def test_another_key_or_a_deleted_track_makes_a_new_upload(client, state):
    first = post(client, b"x", headers=KEY).json()["id"]
    assert post(client, b"x", headers={"idempotency-key": "5f0d"}).status_code == 201
    assert post(client, b"x", headers=KEY).json()["id"] == first  # though the queue is full
    client.delete(f"/api/tracks/{first}")
    assert post(client, b"x", headers=KEY).status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_an_impossible_key_is_refused(client, settings, key):
    assert post(client, b"x", headers={"idempotency-key": key}).status_code == 422
    assert leftovers(settings) == []


@pytest.mark.parametrize("is_complete", [True, False])
def test_a_repeat_waits_for_an_upload_that_is_still_arriving(client, state, settings, is_complete):
    """It returns the track of the first one or, if that breaks off, is the upload itself."""

    async def go():
        arriving, repeated, broken = asyncio.Event(), asyncio.Event(), BadRequestError("broken off")

        async def slow():
            yield b"sou"
            arriving.set()
            await repeated.wait()
            if not is_complete:
                raise broken
            yield b"nd"

        async def whole():
            yield b"sound"

        address = {"url": "/api/tracks?name=song.flac", "headers": KEY}
        async with client.session() as session:
            first = asyncio.create_task(session.post(**address, content=slow()))
            await arriving.wait()
            second = asyncio.create_task(session.post(**address, content=whole()))
            for _ in range(100):  # it gets as far as it can
                await asyncio.sleep(0)
            assert state.uploading == 1
            repeated.set()
            return await first, await second

    first, second = asyncio.run(go())
    assert (first.status_code, second.status_code) == ((201, 200) if is_complete else (400, 201))
    assert not is_complete or first.json()["id"] == second.json()["id"]
    assert (state.tracks.search()[0], len(leftovers(settings))) == (1, 1)
    assert not state._upload_locks


@pytest.mark.parametrize(
    ("given", "safe"),
    [
        ("song.mp3", "song.mp3"),
        ("../../etc/passwd", "passwd"),
        ("C:\\music\\song.mp3", "song.mp3"),
        ("..", "track"),
        ("", "track"),
        (".htaccess", "track.htaccess"),
        ("a\0b\n.mp3", "a_b_.mp3"),
        ("<script>.mp3", "_script_.mp3"),
        ("con.mp3", "_con.mp3"),
        ("流行歌曲.flac", "流行歌曲.flac"),
        ("x" * 300 + ".flac", "x" * 145 + ".flac"),
        ("\udc80.mp3", "_.mp3"),
    ],
)
def test_unsafe_file_names_are_changed(given, safe):
    assert safe_name(given) == safe


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"model": "nonsense"}, "no model of that name"),
        ({"model": "/etc/passwd"}, "no model of that name"),
        ({"model": "hf://somebody/model"}, "no model of that name"),
        ({"model": "mini", "stems": "piano"}, "mini has no stem piano"),
        ({"model": "mini", "stems": "bass,bass"}, "each stem once"),
        ({"shifts": "0"}, "greater than or equal to 1"),
        ({"shifts": "21"}, "less than or equal to 20"),
    ],
)
def test_unknown_models_and_stems_are_refused(client, parameters, words):
    response = client.post("/api/tracks", params={"name": "a.wav"} | parameters, content=b"x")
    assert response.status_code == 422
    assert words in response.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{", b'{"path": 3}', b'{"track": null}', b"[" * 9999, b" " * 70_000,
        rb'{"track": "\ud800"}', rb'{"path": "a", "model": "mini", "stems": ["\ud800"]}',
        b'{"path": "a", "shifts": "2"}', b'{"path": "a", "shifts": true}',
        b'{"path": "a", "model": ["mini"]}', b'{"path": "a", "model": {"mini": 1}}', b"\xff",
    ],
)  # fmt: skip
def test_invalid_json_is_refused(client, body):
    response = client.post(
        "/api/tracks", content=body, headers={"content-type": "application/json"}
    )
    assert response.status_code in (400, 422)


def test_info_lists_models_formats_and_limits(client, settings):
    info = client.get("/api/info").json()
    assert info["default_model"] == settings.model
    assert {"mini", "htdemucs", "htdemucs_ft"} < {model["name"] for model in info["models"]}
    assert info["models"][0]["name"] == settings.model
    assert info["limits"] == {"bytes": 1000, "seconds": 3.0, "jobs": 2}
    assert set(info["formats"]) == set(FORMATS)
    assert info["formats"]["flac"]["bit_depths"] == [16, 24]


def test_the_openapi_document_is_served(client):
    paths = client.get("/api/openapi.json").json()["paths"]
    assert "/api/tracks/{track}/pcm" in paths
    assert isinstance(client.get("/health").json()["version"], int)
    for path in ("/", "/health"):
        response = client.request("HEAD", path)
        assert (response.status_code, response.content) == (200, b"")
    assert httpx.Response(200).status_code == client.get("/").status_code
