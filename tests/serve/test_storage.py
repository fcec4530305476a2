"""The stems' format, the use of the disk, and freeing previews."""

import io
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from htdemucs.audio import AudioFile
from htdemucs.cli.main import cli
from htdemucs.serve import server
from htdemucs.serve.app_state import AppState
from htdemucs.serve.worker import Worker


def storage(client):
    return client.get("/api/storage").json()


def set_format(client, name):
    return client.request("PATCH", "/api/storage", json={"format": name})


def read(path):
    return torch.cat(list(AudioFile(path)), dim=1)


def separate(client, worker, song):
    track = client.upload(song)["id"]
    assert worker.work()
    return client.track(track)


def test_new_stems_have_the_format_that_was_set(client, worker, state, write_song, tmp_path):
    first = separate(client, worker, write_song(tmp_path / "first.flac"))
    assert [storage(client)["format"], storage(client)["fixed"]] == ["wav", False]
    response = set_format(client, "flac")
    assert (response.status_code, response.json()["format"]) == (200, "flac")
    second = separate(client, worker, write_song(tmp_path / "second.flac"))
    assert client.track(first["id"]) == first
    names = [[file["name"] for file in track["files"].values()] for track in (first, second)]
    assert names == [
        [f"{stem}.{kind}" for stem in ("drums", "bass", "other", "vocals")]
        for kind in ("wav", "flac")
    ]
    stored = [state.tracks.row(track["id"])["files"] for track in (first, second)]
    for stem in stored[0]:  # the songs have the same samples
        assert torch.equal(*(read(files[stem]["path"]) for files in stored))


DOWNLOADS = [
    {"kind": "stem", "stem": "bass", "format": "wav"},
    {"kind": "stem", "stem": "bass", "format": "flac"},
    {"kind": "stem", "stem": "bass", "format": "flac", "bit_depth": 24},
    {"kind": "stem", "stem": "bass", "format": "wav", "from": 1, "to": 2.5},
    {"kind": "mix", "format": "wav", "gains": "vocals:0,drums:0.5"},
    {"kind": "zip", "format": "wav", "residual": True},
]


def test_downloads_do_not_depend_on_the_stems_format(client, settings, state, write_song, tmp_path):
    downloads = []
    for kind in ("wav", "flac"):
        worker = Worker(replace(settings, format=kind), kind, state.database)
        track = separate(client, worker, write_song(tmp_path / kind / "song.flac"))
        assert track["files"]["bass"]["name"] == f"bass.{kind}"
        responses = [
            client.get(f"/api/tracks/{track['id']}/export", params=choices) for choices in DOWNLOADS
        ]
        assert [response.status_code for response in responses] == [200] * len(DOWNLOADS)
        *files, archive = [response.content for response in responses]
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            files += [opened.read(name) for name in opened.namelist()]
        downloads.append(files)
        client.delete(f"/api/tracks/{track['id']}")
    assert [len(files) for files in downloads] == [10, 10]
    assert downloads[0] == downloads[1]


def test_the_format_lasts_over_a_restart_and_the_command_line_wins(client, apps, settings):
    set_format(client, "flac")
    for given, shown in ((None, "flac"), ("wav", "wav"), (None, "flac")):
        state = apps[0].state.htdemucs = AppState(replace(settings, format=given))
        assert storage(client)["format"] == shown
        assert storage(client)["fixed"] is (given is not None)
        if given:
            response = set_format(client, "flac")
            assert response.status_code == 409
            assert "start it without one" in response.json()["error"]
        state.database.close()


@pytest.mark.parametrize("name", ["mp3", "opus", "FLAC", "", "nonsense"])
def test_formats_that_lose_something_are_refused(client, name):
    response = set_format(client, name)
    assert response.status_code == 422
    assert "choose wav or flac" in response.json()["error"]
    assert storage(client)["format"] == "wav"


def test_the_command_line_sets_the_format(tmp_path, monkeypatch):
    started = []

    def serve(settings, _access, listener, _on_ready, **_options):
        listener.close()
        started.append(settings.format)

    monkeypatch.setattr(server, "serve", serve)
    common = ["serve", "--port", "0", "--data", str(tmp_path), "-n", "mini"]
    for more in ([], ["--format", "FLAC"]):
        assert CliRunner().invoke(cli, [*common, *more]).exit_code == 0
    assert started == [None, "flac"]
    assert CliRunner().invoke(cli, [*common, "--format", "mp3"]).exit_code == 2


def test_the_use_of_the_disk_is_counted(client, settings, state):
    sizes = {"library": 1000, "uploads": 200, "previews": 30}
    for name, size in sizes.items():
        folder = getattr(settings, name) / "track"
        folder.mkdir(parents=True)
        (folder / "file.wav").write_bytes(bytes(size))
    copy = settings.uploads / "copy"
    copy.mkdir()
    os.link(settings.uploads / "track" / "file.wav", copy / "file.wav")
    counted = storage(client)["bytes"]
    assert counted.pop("free") > 0
    assert counted == sizes
    inside = replace(settings, library=settings.data.parent)  # the data folder is in the library
    (settings.data.parent / "song.wav").write_bytes(bytes(5))
    other = AppState(inside, state.database)
    assert other.storage.usage()["library"] == sum(
        path.stat().st_size
        for path in settings.data.parent.rglob("*")
        if path.is_file() and not path.is_relative_to(settings.data)
    )


def test_freed_previews_are_built_again(client, worker, state, write_song, tmp_path):
    track = separate(client, worker, write_song(tmp_path / "song.flac"))
    path = f"/api/tracks/{track['id']}/pcm"
    before = client.get(path).content
    used = storage(client)["bytes"]["previews"]
    response = client.request("DELETE", "/api/storage/previews")
    assert (response.status_code, used > 0) == (200, True)
    assert response.json()["bytes"]["previews"] == 0
    assert client.track(track["id"])["ranges"] == []
    assert client.get(path).status_code == 204  # not silence
    state.preview_builder.stop()
    assert client.get(path).content == before
    assert storage(client)["bytes"]["previews"] == used


def test_the_preview_of_a_track_that_is_being_separated_stays(client, settings, state):
    track = state.tracks.add(name="a", kind="upload", state="separating", ranges=[[0, 5]])
    folder = settings.previews / track
    folder.mkdir()
    (folder / "0.pcm").write_bytes(bytes(20))
    assert client.request("DELETE", "/api/storage/previews").json()["bytes"]["previews"] == 20
    assert client.track(track)["ranges"] == [[0, 5]]
    assert Path(folder / "0.pcm").exists()


def test_a_preview_that_is_being_built_is_not_freed(client, state, write_song, tmp_path, worker):
    track = separate(client, worker, write_song(tmp_path / "song.flac"))["id"]
    builder, build, sizes = state.preview_builder, state.preview_builder.build, []

    def free_while_building(name):
        build(name)
        sizes.append(client.request("DELETE", "/api/storage/previews").json()["bytes"]["previews"])

    client.request("DELETE", "/api/storage/previews")
    builder.build = free_while_building
    client.get(f"/api/tracks/{track}/pcm")
    builder.stop()
    assert len(sizes) == 1
    assert sizes[0] > 0
    assert client.request("DELETE", "/api/storage/previews").json()["bytes"]["previews"] == 0
