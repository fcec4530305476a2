"""Editing tracks, and requests for several tracks."""

import numpy as np
import pytest
import torch

from htdemucs.audio import AudioFile, Tags, read_tags, write_tags
from htdemucs.serve import library_scan
from htdemucs.serve.library_scan import Scanner
from htdemucs.serve.settings import Limits


@pytest.fixture
def limits():
    return Limits(free_bytes=0, jobs=3)


@pytest.fixture
def library(settings, write_song):
    """Five songs with tags in the library."""
    for number in range(5):
        path = write_song(settings.library / "Kind of Blue" / f"{number}.flac", number, seconds=1)
        fields = {"title": [f"So What {number}"], "artist": ["Miles"], "album": ["Kind of Blue"]}
        write_tags(Tags(fields), path, format="flac")
    return settings.library


@pytest.fixture
def scan(state):
    return Scanner(state.settings, state.tracks).scan


def tracks(client, search=""):
    found = client.get("/api/tracks", params={"search": search}).json()["tracks"]
    return sorted(found, key=lambda track: track["name"])


def edit(client, track, **texts):
    return client.request("PATCH", f"/api/tracks/{track['id']}", json=texts)


def test_songs_have_their_folder_and_length_before_they_are_decoded(client, scan, library):
    (library / "top.flac").write_bytes((library / "Kind of Blue" / "0.flac").read_bytes())
    scan()
    *album, top = tracks(client)
    assert {(track["folder"], track["duration"]) for track in album} == {("Kind of Blue", 1.0)}
    assert (top["folder"], top["frames"]) == ("", None)


def test_an_edited_title_is_shown_searched_and_survives_scans_and_separation(
    client, state, scan, library, worker
):
    scan()
    track = tracks(client)[0]
    changed = edit(client, track, title=" Blue in Green ", artist="").json()
    shown = ("Blue in Green", None, "Kind of Blue")
    assert tuple(changed[name] for name in ("title", "artist", "album")) == shown
    assert changed["version"] > track["version"]
    client.post("/api/tracks", json={"track": track["id"]})
    assert worker.work()
    scan()
    [found] = tracks(client, "green")
    assert (found["id"], found["state"], found["title"]) == (track["id"], "finished", shown[0])
    assert tracks(client, "what 0") == tracks(client, "miles blue green") == []
    copy = client.post("/api/tracks", json={"track": track["id"]}).json()
    assert copy["title"] == shown[0]
    restored = edit(client, track, title=None).json()
    assert (restored["title"], restored["artist"]) == ("So What 0", None)
    assert len(tracks(client, "what 0")) == 1


def test_impossible_edits_are_refused(client, scan, library):
    scan()
    track = tracks(client)[0]
    for texts in ({"title": 3}, {"title": "x" * 501}, {"state": "finished"}):
        assert edit(client, track, **texts).status_code == 422
    assert edit(client, {"id": "none"}, title="x").status_code == 404
    assert edit(client, track, title="a\0b").json()["title"] == "ab"


def test_several_tracks_are_queued_as_far_as_the_queue_has_room(client, scan, library):
    scan()
    ids = [track["id"] for track in tracks(client)]
    client.post("/api/tracks", json={"track": ids[3]})
    body = {"tracks": [ids[2], ids[3], ids[2], "none", ids[0], ids[1]], "stems": ["bass"]}
    response = client.post("/api/tracks/separate", json=body).json()
    assert response == {"queued": [ids[2], ids[0]], "refused": [ids[1]]}
    shown = {track["id"]: track for track in tracks(client)}
    assert [shown[ids[i]]["position"] for i in (3, 2, 0, 1)] == [1, 2, 3, None]
    assert shown[ids[2]]["stems"] == ["bass"]
    body = {"tracks": ids, "model": "nothing"}
    assert client.post("/api/tracks/separate", json=body).status_code == 422


def test_several_tracks_are_deleted(client, scan, library, write_song, tmp_path):
    upload = client.upload(write_song(tmp_path / "upload.flac"))
    scan()
    ids = [track["id"] for track in tracks(client)]
    body = {"tracks": [ids[0], "none", upload["id"], upload["id"]]}
    assert client.post("/api/tracks/delete", json=body).status_code == 204
    assert [track["id"] for track in tracks(client)] == ids[1:5]
    assert (library / "Kind of Blue" / "0.flac").exists()


def test_a_song_without_stems_can_be_played(client, state, scan, library):
    scan()
    track = tracks(client)[0]
    assert client.get(f"/api/tracks/{track['id']}/pcm?stems=original").status_code == 204
    state.preview_builder.stop()  # waits for it
    response = client.get(f"/api/tracks/{track['id']}/pcm?stems=original&frames=8000")
    heard = np.frombuffer(response.content, "<i2").reshape(-1, 2).T / 2**15
    song = torch.cat(list(AudioFile(library / "Kind of Blue" / "0.flac")), dim=-1).numpy()
    assert np.abs(heard - song).max() < 2**-15
    shown = client.get(f"/api/tracks/{track['id']}").json()
    assert (shown["state"], shown["ranges"]) == ("unseparated", [[0, 8000]])


def test_the_preview_of_a_song_that_is_being_separated_is_its_worker_s(
    client, state, scan, library
):
    """The song was queued after a client had asked for its preview."""
    scan()
    track = tracks(client)[0]["id"]
    client.post("/api/tracks", json={"track": track})
    assert state.jobs.claim("worker")["id"] == track
    lane = state.settings.previews / track / "0.pcm"
    lane.parent.mkdir()
    lane.write_bytes(b"worker")
    state.preview_builder.build(track)
    assert lane.read_bytes() == b"worker"
    assert client.track(track)["ranges"] == []


def test_songs_are_listed_while_others_are_still_being_found(client, scan, library, monkeypatch):
    listed = []
    read = library_scan.tag_columns

    def tag_columns(path):
        listed.append(len(tracks(client)))
        return read(path)

    monkeypatch.setattr(library_scan, "tag_columns", tag_columns)
    monkeypatch.setattr(library_scan, "MAX_ADDED", 2)
    scan()
    assert listed == [0, 0, 2, 2, 4]


def test_downloads_have_edited_titles(client, scan, library, worker, tmp_path):
    scan()
    track = tracks(client)[0]
    client.post("/api/tracks", json={"track": track["id"], "stems": ["vocals"]})
    assert worker.work()
    edit(client, track, title="Blue in Green", artist="Bill Evans", album="")
    choices = [{"kind": "mix"}, {"kind": "mix", "format": "mp3"}]
    stem = {"kind": "stem", "stem": "vocals"}
    for number, each in enumerate([*choices, stem, stem | {"format": "m4a"}]):
        response = client.get(f"/api/tracks/{track['id']}/export", params=each)
        name = f"Blue%20in%20Green{'%20-%20vocals' if 'stem' in each else '%20%28mix%29'}."
        assert name in response.headers["content-disposition"]
        path = tmp_path / str(number)
        path.write_bytes(response.content)
        suffix = "vocals" if "stem" in each else "mix"
        fields = read_tags(path).fields
        assert fields == {"title": [f"Blue in Green ({suffix})"], "artist": ["Bill Evans"]}


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/api/tracks/delete"), ("PATCH", "/api/tracks/x")]
)
def test_a_huge_json_body_is_refused(client, method, path):
    headers = {"content-type": "application/json"}
    response = client.request(method, path, content=b" " * (1 << 22), headers=headers)
    assert (response.status_code, response.json()["error"]) == (413, "the JSON is too long")
