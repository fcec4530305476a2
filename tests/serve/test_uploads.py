"""Files on their way in, and limits."""

import asyncio
from dataclasses import replace

import httpx
import pytest

from htdemucs.serve import uploads
from htdemucs.serve.app import create_app
from htdemucs.serve.settings import Limits
from htdemucs.serve.uploads import safe_name


@pytest.fixture
def limits():
    return Limits(upload_bytes=1000, free_bytes=0, jobs=2, seconds=3.0)


def post(client, body, **options):
    return client.post("/api/tracks?name=song.flac", content=body, **options)


def leftovers(settings):
    return list(settings.uploads.iterdir())


def test_too_large_a_file_is_refused_before_it_arrives(client, settings):
    answer = post(client, b"x" * 1001)
    assert answer.status_code == 413
    assert "0 MB" in answer.json()["error"]
    assert leftovers(settings) == []


def test_too_large_a_stream_is_cut_off(client, settings, monkeypatch):
    monkeypatch.setattr(uploads, "CHUNK", 100)
    taken = []

    async def endless():
        while True:
            taken.append(1)
            yield b"x" * 99

    assert post(client, endless()).status_code == 413
    assert len(taken) < 20
    assert leftovers(settings) == []


def test_a_full_disk_is_said(client, settings, monkeypatch, service):
    object.__setattr__(service.settings, "limits", replace(settings.limits, free_bytes=1 << 60))
    answer = post(client, b"x")
    assert answer.status_code == 413
    assert "disk is full" in answer.json()["error"]
    assert answer.json()["code"] == "disk-full"


def test_an_empty_or_broken_file_is_refused(client, settings):
    assert post(client, b"").status_code == 400
    answer = post(client, b"abc", headers={"content-length": "9"})
    assert answer.status_code == 400
    assert "whole" in answer.json()["error"]
    assert leftovers(settings) == []


def test_a_client_that_sends_nothing_is_left(client, settings, monkeypatch):
    monkeypatch.setattr(uploads, "PATIENCE", 0.01)

    async def silent():
        yield b"x"
        await asyncio.Event().wait()

    answer = post(client, silent())
    assert answer.status_code == 400
    assert "for a while" in answer.json()["error"]
    assert leftovers(settings) == []


def test_a_client_that_goes_leaves_nothing(service, settings):
    """In the middle of a file."""

    async def go():
        sent = [{"type": "http.request", "body": b"x" * 10, "more_body": True}]

        async def receive():
            return sent.pop() if sent else {"type": "http.disconnect"}

        async def send(_message):
            pass

        scope = {
            "type": "http", "method": "POST", "path": "/api/tracks", "query_string": b"name=a.wav",
            "headers": [(b"host", b"localhost")], "http_version": "1.1", "scheme": "http",
            "server": ("localhost", 80), "client": ("127.0.0.1", 1), "root_path": "",
        }  # fmt: skip
        await create_app(service)(scope, receive, send)

    asyncio.run(go())
    assert leftovers(settings) == []
    assert service.uploading == 0
    assert service.tracks.page()[0] == 0


def test_the_queue_has_an_end(client, write_song, tmp_path):
    assert post(client, b"one").status_code == 201
    assert post(client, b"two").status_code == 201
    answer = post(client, b"three")
    assert answer.status_code == 429
    assert "2 tracks wait" in answer.json()["error"]
    assert answer.json()["code"] == "too-many"


def test_too_long_a_track_fails(client, worker, write_song, tmp_path, service):
    object.__setattr__(service.settings.limits, "upload_bytes", 1 << 20)
    track = client.upload(write_song(tmp_path / "song.flac", seconds=3.1))["id"]
    worker.work()
    shown = client.track(track)
    assert shown["state"] == "failed"
    assert "at most 0.1" in shown["error"]
    assert shown["code"] == "too-long"
    track = client.upload(write_song(tmp_path / "long.flac", seconds=9))["id"]
    worker.work()
    assert "the track lasts 0.1 minutes" in client.track(track)["error"]


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
def test_names_are_made_safe(given, safe):
    assert safe_name(given) == safe


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"model": "nonsense"}, "no model of that name"),
        ({"model": "/etc/passwd"}, "no model of that name"),
        ({"model": "hf://somebody/model"}, "no model of that name"),
        ({"model": "mini", "stems": "piano"}, "mini has no stem piano"),
        ({"model": "mini", "stems": "bass,bass"}, "each stem once"),
    ],
)
def test_what_cannot_be_separated_is_refused(client, parameters, words):
    answer = client.post("/api/tracks", params={"name": "a.wav"} | parameters, content=b"x")
    assert answer.status_code == 400
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"path": 3}', b'{"track": null}', b"[" * 9999]
)
def test_json_that_makes_no_sense_is_refused(client, body):
    answer = client.post("/api/tracks", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400


def test_info_says_what_can_be_chosen(client, settings):
    info = client.get("/api/info").json()
    assert info["default_model"] == settings.model
    assert {"mini", "htdemucs", "htdemucs_ft"} < {model["name"] for model in info["models"]}
    assert info["models"][0]["name"] == settings.model
    assert info["limits"] == {"bytes": 1000, "seconds": 3.0, "jobs": 2}
    assert set(info["formats"]) == {"wav", "flac", "mp3", "ogg", "opus", "m4a"}


def test_the_document_of_the_api_is_there(client):
    paths = client.get("/api/openapi.json").json()["paths"]
    assert "/api/tracks/{track}/pcm" in paths
    assert isinstance(client.get("/health").json()["version"], int)
    for path in ("/", "/health"):
        answer = client.request("HEAD", path)
        assert (answer.status_code, answer.content) == (200, b"")
    assert httpx.Response(200).status_code == client.get("/").status_code
