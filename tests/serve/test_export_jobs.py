"""Downloads that are prepared before they are fetched."""

import io
import time
import zipfile
from dataclasses import replace

import pytest

from htdemucs.serve import export_jobs, export_routes
from htdemucs.serve.settings import Limits


@pytest.fixture
def track(client, worker, write_song, tmp_path):
    track = client.upload(write_song(tmp_path / "song.flac"))["id"]
    assert worker.work()
    return track


def prepare(client, track, **choices):
    response = client.post(f"/api/tracks/{track}/exports", json=choices)
    assert response.status_code == 201, response.text
    return response.json()


def wait(client, job):
    while job["state"] == "preparing":
        time.sleep(0.01)
        job = client.get(f"/api/exports/{job['id']}").json()
    return job


def test_a_prepared_download_is_the_same_as_a_direct_one(client, track):
    for choices in (
        {"kind": "mix", "gains": "vocals:0.5", "format": "flac"},
        {"kind": "stem", "stem": "bass"},
        {"kind": "stem", "stem": "bass", "format": "mp3", "from": 1.0, "to": 2.0},
    ):
        job = wait(client, prepare(client, track, **choices))
        assert (job["state"], job["progress"], job["error"]) == ("ready", 1.0, None)
        direct = client.get(f"/api/tracks/{track}/export", params=choices)
        for _ in range(2):  # a browser may ask twice
            fetched = client.get(f"/api/exports/{job['id']}/file")
            assert fetched.content == direct.content
            assert fetched.headers["content-disposition"] == direct.headers["content-disposition"]
        assert job["filename"] in direct.headers["content-disposition"]


def test_a_zip_has_all_stems(client, track):
    job = wait(client, prepare(client, track, kind="zip", format="flac", residual=True))
    assert job["filename"] == "song.zip"
    content = client.get(f"/api/exports/{job['id']}/file").content
    names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    stems = ("drums", "bass", "other", "vocals", "residual")
    assert names == [f"song/{stem}.flac" for stem in stems]


def test_the_same_download_is_prepared_once(client, track, state):
    first = prepare(client, track, kind="mix")
    again = prepare(client, track, kind="mix")
    other = prepare(client, track, kind="mix", gains="bass:0")
    assert first["id"] == again["id"] != other["id"]
    for job in (first, other):
        wait(client, job)
    assert len(list(state.settings.exports.iterdir())) == 2


def test_progress_is_reported(client, track, monkeypatch):
    seen, make = [], export_routes._make_files

    def making(finished, *rest):
        def on_frames(count):
            finished.on_frames(count)
            [job] = client.app.state.htdemucs.export_jobs._jobs.values()
            seen.append(job.progress)

        return make(export_routes.replace(finished, on_frames=on_frames), *rest)

    monkeypatch.setattr(export_routes, "_make_files", making)
    wait(client, prepare(client, track, kind="mix"))
    assert seen == sorted(seen)
    assert 0 < seen[0] < seen[-1] < 1


def test_what_cannot_be_prepared_says_why(client, track, state):
    refused = client.post(f"/api/tracks/{track}/exports", json={"kind": "stem", "stem": "kazoo"})
    assert (refused.status_code, refused.json()["error"][:22]) == (422, "this track has the ste")
    assert client.post(f"/api/tracks/{track}/exports", json={"format": "mp4"}).status_code == 422
    assert client.post("/api/tracks/none/exports", json={}).status_code == 404
    row = state.tracks.row(track)
    for entry in row["files"].values():
        entry["path"] = str(state.settings.library / "gone.wav")
    state.tracks.update(track, files=row["files"])
    gone = client.post(f"/api/tracks/{track}/exports", json={})
    assert gone.status_code == 404
    assert "does not exist any more" in gone.json()["error"]
    assert not any(state.settings.exports.iterdir())


def test_a_failure_while_preparing_is_a_sentence(client, track, monkeypatch):
    def fail(*_):
        raise export_routes.ConflictError("the disk is full")

    monkeypatch.setattr(export_routes, "_make_files", fail)
    job = wait(client, prepare(client, track, kind="mix"))
    assert (job["state"], job["error"], job["code"]) == ("failed", "the disk is full", "conflict")
    assert client.get(f"/api/exports/{job['id']}/file").status_code == 409
    monkeypatch.undo()
    assert wait(client, prepare(client, track, kind="mix"))["state"] == "ready"


def test_downloads_are_deleted_by_the_client_or_after_a_while(client, track, state, monkeypatch):
    job = wait(client, prepare(client, track, kind="mix"))
    assert client.delete(f"/api/exports/{job['id']}").status_code == 204
    assert client.get(f"/api/exports/{job['id']}").status_code == 404
    assert not any(state.settings.exports.iterdir())
    old = wait(client, prepare(client, track, kind="mix"))
    monkeypatch.setattr(export_jobs, "KEPT", 0.0)
    new = prepare(client, track, kind="zip", format="mp3")
    assert client.get(f"/api/exports/{old['id']}").status_code == 404
    assert wait(client, new)["state"] == "ready"


@pytest.fixture
def album(client, worker, write_song, tmp_path):
    """Three finished tracks, two of the same name."""
    songs = [tmp_path / "a" / "song.flac", tmp_path / "b" / "song.flac", tmp_path / "other.flac"]
    ids = [client.upload(write_song(song, i, 2.0))["id"] for i, song in enumerate(songs)]
    while worker.work():
        pass
    return ids


def prepare_all(client, tracks, **choices):
    return client.post("/api/exports", json={"tracks": tracks} | choices)


@pytest.mark.parametrize("choices", [{}, {"format": "mp3", "bitrate": 128}])
def test_several_tracks_are_one_zip_with_a_folder_for_each(client, state, album, choices):
    job = wait(client, prepare_all(client, [*album, album[0]], **choices).json())
    assert (job["state"], job["filename"]) == ("ready", "3 tracks.zip")
    content = client.get(f"/api/exports/{job['id']}/file").content
    archive = zipfile.ZipFile(io.BytesIO(content))
    extension = choices.get("format", "wav")
    names = [
        f"{folder}/{stem}.{extension}"
        for folder in ("song", "song (2)", "other")
        for stem in ("drums", "bass", "other", "vocals")
    ]
    assert archive.namelist() == names
    one = client.get(
        f"/api/tracks/{album[1]}/export", params={"kind": "stem", "stem": "bass"} | choices
    )
    assert archive.read(names[5]) == one.content
    written = [path for path in state.settings.exports.rglob("*") if path.is_file()]
    assert len(written) == (12 if choices else 0)


def test_several_tracks_need_space_only_if_they_are_converted(client, state, album):
    state.settings = replace(state.settings, limits=Limits(free_bytes=1 << 60))
    assert wait(client, prepare_all(client, album).json())["state"] == "ready"
    job = wait(client, prepare_all(client, album, format="mp3").json())
    assert (job["state"], job["code"]) == ("failed", "disk-full")


def test_a_track_that_cannot_be_exported_is_named(client, state, album, write_song, tmp_path):
    queued = client.upload(write_song(tmp_path / "new.flac"))["id"]
    refused = prepare_all(client, [*album, queued])
    assert (refused.status_code, refused.json()["error"][:10]) == (409, "new.flac: ")
    assert prepare_all(client, []).status_code == 422
    assert prepare_all(client, [album[0], "none"]).status_code == 404
