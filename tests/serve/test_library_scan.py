"""Tracks and stems in the library folder are listed."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from htdemucs import AudioEncoding, Library, OutputOptions, Separator, Track
from htdemucs.serve.library_scan import Scanner


@pytest.fixture
def library(settings):
    return settings.library


@pytest.fixture
def scan(state):
    return Scanner(state.settings, state.tracks).scan


@pytest.fixture
def separate(model, library):
    """Return a function that does what the command does."""

    def separate(song, folder="tiny", **options):
        work = Library(library / folder, OutputOptions(**options))
        separator = Separator(model, shifts=1)
        outcome = work.separate(work.assign_output(Track(str(song))), separator)
        assert outcome.status == "separated"
        return outcome

    return separate


def listed(client):
    return {t["name"]: t for t in client.get("/api/tracks").json()["tracks"]}


def pcm(client, track):
    response = client.get(f"/api/tracks/{track}/pcm?frames=1000000")
    return np.frombuffer(response.content, "<i2").reshape(int(response.headers["x-frames"]), -1, 2)


def test_tracks_that_the_command_separated_can_be_played(
    client, state, scan, separate, write_song, tmp_path
):
    outcome = separate(write_song(tmp_path / "music" / "song.flac"))
    scan()
    [track] = listed(client).values()
    assert (track["kind"], track["state"], track["name"]) == ("library", "finished", "song.flac")
    assert track["stems"] == ["drums", "bass", "other", "vocals"]
    assert (track["sample_rate"], track["frames"], track["duration"]) == (8000, 32_000, 4.0)
    assert track["ranges"] == []
    state.preview_builder.build(track["id"])
    assert client.track(track["id"])["ranges"] == [[0, 32_000]]
    assert pcm(client, track["id"]).shape == (32_000, 5, 2)
    response = client.get(f"/api/tracks/{track['id']}/stems/bass")
    assert response.content == Path(outcome.files["bass"]).read_bytes()
    peaks = client.get(f"/api/tracks/{track['id']}/peaks").content
    assert len(peaks) == 32 * 5 * 2


def test_a_request_for_samples_builds_the_preview(
    client, state, scan, separate, write_song, tmp_path, in_background
):
    separate(write_song(tmp_path / "song.flac"), encoding=AudioEncoding("mp3"))
    scan()
    [track] = listed(client).values()
    assert client.get(f"/api/tracks/{track['id']}/pcm").status_code == 204
    state.preview_builder.stop()  # waits for it
    shown = client.track(track["id"])
    assert shown["ranges"] == [[0, shown["frames"]]]


def test_without_its_file_the_original_is_the_stems_sum(
    client, state, scan, separate, write_song, tmp_path
):
    song = write_song(tmp_path / "song.flac")
    separate(song)
    song.unlink()
    scan()
    [track] = listed(client).values()
    state.preview_builder.build(track["id"])
    heard = pcm(client, track["id"]).astype(int)
    assert abs(heard[:, :4].sum(1) - heard[:, 4]).max() <= 1
    assert client.get(f"/api/tracks/{track['id']}/source").status_code == 404


def test_scanning_again_changes_nothing(client, state, scan, separate, write_song, tmp_path):
    separate(write_song(tmp_path / "song.flac"))
    scan()
    version = state.database.version()
    scan()
    assert state.database.version() == version


def test_unseparated_songs_are_listed(client, worker, scan, library, write_song):
    write_song(library / "album" / "new.flac")
    write_song(library / ".hidden" / "no.flac")
    scan()
    [track] = listed(client).values()
    assert (track["name"], track["state"], track["stems"]) == ("new.flac", "unseparated", [])
    response = client.post("/api/tracks", json={"track": track["id"]}).json()
    assert (response["id"], response["state"]) == (track["id"], "queued")
    worker.work()
    shown = client.track(track["id"])
    assert shown["state"] == "finished"
    assert (library / "tiny" / "album" / "new" / "htdemucs.json").exists()
    scan()
    assert list(listed(client)) == ["new.flac"]
    assert client.delete(f"/api/tracks/{track['id']}").status_code == 204
    assert (library / "album" / "new.flac").exists()
    assert (library / "tiny" / "album" / "new" / "vocals.wav").exists()
    scan()
    assert listed(client) == {}


def test_a_path_below_the_library_is_queued(client, scan, library, write_song, tmp_path):
    write_song(library / "album" / "new.flac")
    response = client.post("/api/tracks", json={"path": "album/new.flac", "stems": "bass"})
    assert response.status_code == 201
    again = client.post("/api/tracks", json={"path": "album/new.flac"}).json()
    assert again["id"] != response.json()["id"]
    write_song(tmp_path / "secret.flac")
    for path in ("../../secret.flac", str(tmp_path / "secret.flac"), "a\0b", "nothing", ""):
        assert client.post("/api/tracks", json={"path": path}).status_code == 404


def test_an_unseparated_song_that_the_command_separates_stays_one_track(
    client, scan, separate, library, write_song
):
    song = write_song(library / "song.flac")
    scan()
    [before] = listed(client).values()
    separate(song)
    scan()
    [after] = listed(client).values()
    assert after["id"] == before["id"]
    assert after["state"] == "finished"


def test_a_track_that_was_separated_again_is_updated(
    client, state, scan, separate, write_song, tmp_path
):
    song = write_song(tmp_path / "song.flac")
    separate(song)
    scan()
    [before] = listed(client).values()
    state.preview_builder.build(before["id"])
    separate(song, two_stems="vocals")
    scan()
    [after] = listed(client).values()
    assert after["id"] == before["id"]
    assert after["stems"] == ["vocals", "no_vocals"]
    assert after["ranges"] == []


def test_tracks_whose_files_are_moved_away_and_back_reappear(
    client, scan, separate, library, write_song, tmp_path
):
    separate(write_song(tmp_path / "song.flac"))
    write_song(library / "new.flac")
    scan()
    assert set(listed(client)) == {"song.flac", "new.flac"}
    (library / "tiny").rename(tmp_path / "elsewhere")
    (library / "new.flac").rename(tmp_path / "new.flac")
    scan()
    assert listed(client) == {}
    (tmp_path / "elsewhere").rename(library / "tiny")
    (tmp_path / "new.flac").rename(library / "new.flac")
    scan()
    assert set(listed(client)) == {"song.flac", "new.flac"}


def test_a_deleted_track_of_the_library_does_not_reappear(
    client, scan, separate, library, write_song, tmp_path
):
    song = write_song(tmp_path / "song.flac")
    outcome = separate(song)
    write_song(library / "new.flac")
    scan()
    for track in listed(client).values():
        client.delete(f"/api/tracks/{track['id']}")
    scan()
    assert listed(client) == {}
    assert Path(outcome.manifest).exists()


def test_files_outside_the_library_are_not_served(
    client, scan, separate, library, write_song, tmp_path
):
    """A manifest with a path that leads out; links that lead out."""
    outcome = separate(write_song(tmp_path / "song.flac"))
    manifest = Path(outcome.manifest)
    write_song(tmp_path / "secret" / "vocals.wav")
    (library / "link").symlink_to(tmp_path / "secret")
    (library / "link.wav").symlink_to(tmp_path / "secret" / "vocals.wav")
    (manifest.parent / "vocals.wav").unlink()
    text = manifest.read_text().replace(
        '"path": "vocals.wav"', '"path": "../../../../secret/vocals.wav"'
    )
    manifest.write_text(text)
    scan()
    [track] = listed(client).values()
    assert "vocals" not in track["files"]
    bass = manifest.parent / "bass.wav"  # later, it becomes a link
    bass.unlink()
    bass.symlink_to(tmp_path / "secret" / "vocals.wav")
    response = client.get(f"/api/tracks/{track['id']}/stems/bass")
    assert response.status_code == 404
    assert str(tmp_path) not in response.text


def test_texts_in_manifests_are_made_storable(client, scan, separate, write_song, tmp_path):
    manifest = Path(separate(write_song(tmp_path / "song.flac")).manifest)
    document = json.loads(manifest.read_text())
    document["source"]["path"] = "/music/so\0ng\ud800.flac"
    document["warnings"] = ["\0 \ud800", 3]
    document["model"] = "nonsense"
    manifest.write_text(json.dumps(document))
    scan()
    [track] = listed(client).values()
    assert (track["name"], track["warnings"], track["model"]) == ("song?.flac", [" ?", "3"], None)


def test_damaged_manifests_and_invalid_names_are_skipped(client, scan, library, write_song):
    write_song(library / "fine.flac")
    for name, text in [("a", "{"), ("b", '{"format": "htdemucs-track"}'), ("c", "[]")]:
        (library / name).mkdir()
        (library / name / "htdemucs.json").write_text(text)
    (library / os.fsdecode(b"\xff.flac")).write_bytes(b"x")
    (library / "loop").symlink_to(library)
    scan()
    assert list(listed(client)) == ["fine.flac"]


def test_a_stem_mp4_is_played_as_its_mixture(client, state, scan, separate, write_song, tmp_path):
    song = write_song(tmp_path / "song.flac")
    separate(song, stem_file=True)
    song.unlink()
    scan()
    [track] = listed(client).values()
    assert (track["stems"], list(track["files"])) == ([], ["stem file"])
    state.preview_builder.build(track["id"])
    assert pcm(client, track["id"]).shape[1] == 1


def test_previews_have_a_limit(client, state, scan, separate, write_song, tmp_path):
    for name in "ab":
        separate(write_song(tmp_path / f"{name}.flac", seed=ord(name)))
    scan()
    tracks = listed(client)
    for name in ("a.flac", "b.flac"):
        state.preview_builder.build(tracks[name]["id"])
    os.utime(state.settings.previews / tracks["a.flac"]["id"], (1, 1))
    object.__setattr__(state.settings.limits, "preview_bytes", 32_000 * 5 * 4)
    state.preview_builder.evict()
    tracks = listed(client)
    assert (tracks["a.flac"]["ranges"], tracks["b.flac"]["ranges"]) == ([], [[0, 32_000]])
    assert len(list(state.settings.previews.iterdir())) == 1
