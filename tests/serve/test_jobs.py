"""The queue: order, cancellation, deletion, and crashes of workers; on both databases."""

import os
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import pytest

from htdemucs.errors import ConflictError, NotFoundError
from htdemucs.serve.db import METADATA, TRACKS, Database
from htdemucs.serve.jobs import MAX_CRASHES, JobCancelledError, Jobs
from htdemucs.serve.maintenance import Maintenance
from htdemucs.serve.tracks import Tracks
from serve.searches import SEARCHES


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request):
    """Both databases, empty."""
    if request.param == "sqlite":
        return None
    url = request.getfixturevalue("postgresql")
    database = Database(url)
    METADATA.drop_all(database.engine)
    database.close()
    return url


@pytest.fixture
def songs(client, write_song, tmp_path):
    """Three queued tracks."""
    paths = [write_song(tmp_path / f"{name}.flac", seed=i) for i, name in enumerate("abc")]
    return [client.upload(path)["id"] for path in paths]


def states(client):
    tracks = client.get("/api/tracks").json()["tracks"]
    return {track["name"][0]: (track["state"], track["position"]) for track in tracks}


@pytest.fixture
def during(monkeypatch):
    """Return a function: call something once, when the first range of a track can be heard."""

    def set_up(call):
        waiting = [call]
        report = Jobs.update

        def reporting(self, track, holder, /, **values):
            report(self, track, holder, **values)
            if values.get("ranges") and waiting:
                waiting.pop()()

        monkeypatch.setattr(Jobs, "update", reporting)

    return set_up


def test_the_queue_is_first_in_first_out_unless_a_track_is_prioritized(client, state, songs):
    assert states(client) == {"a": ("queued", 1), "b": ("queued", 2), "c": ("queued", 3)}
    response = client.post(f"/api/tracks/{songs[2]}/first")
    assert response.json()["position"] == 1
    assert state.jobs.claim("worker")["id"] == songs[2]
    assert states(client) == {"a": ("queued", 1), "b": ("queued", 2), "c": ("separating", None)}
    assert client.post(f"/api/tracks/{songs[2]}/first").status_code == 409


def test_two_workers_never_get_the_same_track(state, songs, in_background):
    taken = []

    def take(name):
        while row := state.jobs.claim(name):
            taken.append(row["id"])

    for thread in [in_background(lambda n=n: take(f"worker {n}")) for n in range(4)]:
        thread.join()
    assert sorted(taken) == sorted(songs)


def test_a_queued_track_is_cancelled_and_queued_again(client, worker, songs):
    cancelled = client.post(f"/api/tracks/{songs[0]}/cancel").json()
    assert (cancelled["state"], cancelled["position"]) == ("cancelled", None)
    assert cancelled["ended"]
    assert client.post(f"/api/tracks/{songs[0]}/cancel").status_code == 409
    assert client.post(f"/api/tracks/{songs[0]}/retry").json()["position"] == 3
    assert client.post(f"/api/tracks/{songs[0]}/retry").status_code == 409


def test_a_cancelled_job_stops_and_resumes_later(client, worker, songs, during, tmp_path):
    during(lambda: client.post(f"/api/tracks/{songs[0]}/cancel"))
    assert worker.work()
    shown = client.track(songs[0])
    assert shown["state"] == "cancelled"
    place = tmp_path / "data" / "separated" / "tiny" / "a"
    assert [path.suffix for path in place.iterdir()] == [".work"]  # what was done
    assert not (tmp_path / "data" / "previews" / songs[0]).exists()
    client.post(f"/api/tracks/{songs[0]}/retry")
    client.post(f"/api/tracks/{songs[0]}/first")
    worker.work()
    shown = client.track(songs[0])
    assert (shown["state"], shown["ranges"]) == ("finished", [[0, 32_000]])


def test_a_job_waits_until_its_last_worker_has_released_it(state, songs):
    """Two workers must not write the same files."""
    assert state.jobs.claim("slow")["id"] == songs[0]
    state.jobs.cancel(songs[0])
    state.jobs.enqueue(songs[0])
    state.jobs.prioritize(songs[0])
    assert state.jobs.workers_to_release() == {"slow"}
    assert state.jobs.claim("quick")["id"] == songs[1]
    state.jobs.release_cancelled(songs[0], "slow")
    assert state.jobs.claim("quick")["id"] == songs[0]


def test_deleting_while_separating_leaves_nothing(client, worker, songs, during, tmp_path):
    during(lambda: client.delete(f"/api/tracks/{songs[0]}"))
    assert worker.work()
    assert client.get(f"/api/tracks/{songs[0]}").status_code == 404
    data = tmp_path / "data"
    for folder in ("uploads", "previews"):
        assert not (data / folder / songs[0]).exists()
    assert not list((data / "separated").iterdir())


@pytest.fixture
def held(state, songs):
    """A cancelled track that its worker has not released yet, and its unfinished file."""
    row = state.jobs.claim("worker")
    manifest = state.settings.library / "tiny" / "a" / "htdemucs.json"
    assert state.jobs.reserve_output(row, "worker", str(manifest), 1)
    manifest.parent.mkdir(parents=True)
    unfinished = manifest.with_name(".htdemucs-0123456789abcdef.work")
    unfinished.write_bytes(b"x")
    (state.settings.previews / row["id"]).mkdir()
    state.jobs.cancel(row["id"])
    return row, unfinished


def remains(settings, track):
    """What is left of a deleted track on the disk."""
    folders = (settings.uploads / track, settings.previews / track, settings.library / "tiny")
    return [folder for folder in folders if folder.exists()]


@pytest.mark.parametrize("first", ["the worker", "the page"])
def test_deleting_while_a_worker_releases_a_track_leaves_nothing(
    client, state, worker, settings, held, monkeypatch, first
):
    row, _ = held
    release_cancelled, delete = Jobs.release_cancelled, Tracks.mark_deleted
    steps = []

    def giving_up(self, track, name):
        if first == "the page":
            assert client.delete(f"/api/tracks/{track}").status_code == 204
            steps.append("deleted")
        return release_cancelled(self, track, name)

    def deleting(self, track, *conditions):
        if first == "the worker":
            worker.release(row)
            steps.append("given up")
        return delete(self, track, *conditions)

    monkeypatch.setattr(Jobs, "release_cancelled", giving_up)
    monkeypatch.setattr(Tracks, "mark_deleted", deleting)
    if first == "the page":
        worker.release(row)
    else:
        client.delete(f"/api/tracks/{row['id']}")
    assert len(steps) == 1
    assert remains(settings, row["id"]) == []


def test_deletion_does_not_trust_a_row_read_before_its_transaction(
    client, state, worker, settings, held, monkeypatch
):
    """The worker releases the track just after the request has read who holds it."""
    row, _ = held
    read = Tracks.row

    def reading(self, track):
        found = read(self, track)
        if found["worker"]:
            worker.release(row)
        return found

    monkeypatch.setattr(Tracks, "row", reading)
    client.delete(f"/api/tracks/{row['id']}")
    if state.tracks.rows(TRACKS.c.id == row["id"])[0]["worker"]:
        worker.release(row)
    assert remains(settings, row["id"]) == []


def test_a_track_that_is_deleted_right_after_its_claim_ends_no_worker(
    client, worker, settings, songs, monkeypatch
):
    """The claim's transaction is the last moment at which the row is sure to exist."""
    writing = Database.writing

    @contextmanager
    def deleting(self):
        monkeypatch.setattr(Database, "writing", writing)
        with writing(self) as change:
            yield change
        client.delete(f"/api/tracks/{songs[0]}")

    monkeypatch.setattr(Database, "writing", deleting)
    assert worker.work()
    assert remains(settings, songs[0]) == []
    assert client.get(f"/api/tracks/{songs[0]}").status_code == 404
    assert worker.work()
    assert client.track(songs[1])["state"] == "finished"


def test_files_that_a_dead_worker_left_of_a_deleted_track_are_removed(
    client, state, settings, held
):
    row, unfinished = held
    assert client.delete(f"/api/tracks/{row['id']}").status_code == 204
    assert unfinished.exists()  # the worker may be writing to it
    place, other = str(unfinished.with_name("htdemucs.json")), state.jobs.claim("other")
    assert not state.jobs.reserve_output(other, "other", place, 1)
    state.jobs.requeue("worker")
    assert state.jobs.workers_to_release() == set()
    Maintenance(state).sweep()
    assert remains(settings, row["id"]) == []
    assert state.jobs.reserve_output(other, "other", place, 1)


def test_files_that_cannot_be_removed_are_tried_again(
    client, state, settings, worker, held, monkeypatch
):
    row, unfinished = held
    worker.release(row)
    unlink = Path.unlink

    def refusing(self, **options):
        raise PermissionError(13, "in use")

    monkeypatch.setattr(Path, "unlink", refusing)
    assert client.delete(f"/api/tracks/{row['id']}").status_code == 204
    assert unfinished.exists()
    monkeypatch.setattr(Path, "unlink", unlink)
    Maintenance(state).sweep()
    assert remains(settings, row["id"]) == []


def test_stems_without_a_manifest_are_removed_if_they_are_newer_than_the_track(
    client, state, settings, worker, held
):
    row, unfinished = held
    state.tracks.update(row["id"], stems=["drums", "bass"])
    mine, other = unfinished.with_name("drums.wav"), unfinished.with_name("bass.wav")
    for path, time in ((mine, row["created"] + 1), (other, row["created"] - 100)):
        path.write_bytes(b"x")
        os.utime(path, (time, time))
    worker.release(row)
    client.delete(f"/api/tracks/{row['id']}")
    assert list(other.parent.iterdir()) == [other]


def test_a_preview_that_was_begun_during_deletion_is_removed(client, state, settings, songs):
    client.delete(f"/api/tracks/{songs[0]}")
    for track in songs[:2]:
        (settings.previews / track).mkdir()
    Maintenance(state).sweep()
    assert [folder.name for folder in settings.previews.iterdir()] == [songs[1]]


def test_a_cancelled_job_reserves_no_output(state, held):
    row, unfinished = held
    with pytest.raises(JobCancelledError):
        state.jobs.reserve_output(row, "worker", str(unfinished.parent / "other.json"), 2)


def test_a_track_that_was_queued_again_does_not_expire(client, state, songs, monkeypatch):
    """Between the query for old tracks and the deletion."""
    object.__setattr__(state.settings.limits, "keep_days", 1.0)
    client.post(f"/api/tracks/{songs[0]}/cancel")
    state.tracks.update(songs[0], ended=1.0)  # 1970
    all_of = Tracks.rows

    def looking(self, *conditions):
        rows = all_of(self, *conditions)
        monkeypatch.setattr(Tracks, "rows", all_of)
        client.post(f"/api/tracks/{songs[0]}/retry")
        return rows

    monkeypatch.setattr(Tracks, "rows", looking)
    Maintenance(state).expire()
    assert states(client)["a"] == ("queued", 3)


def test_events_have_all_tracks_whose_positions_change(client, state, songs):
    def told(call):
        version = state.database.version()
        call()
        return {track["name"][0]: track["position"] for track in state.tracks.changes(version)[1]}

    state.jobs.claim("worker")
    assert told(lambda: state.jobs.requeue("worker")) == {"a": 1, "b": 2, "c": 3}
    assert told(lambda: client.delete(f"/api/tracks/{songs[0]}")) == {"b": 1, "c": 2}


def test_a_cancelled_track_has_no_ranges_of_its_deleted_preview(
    client, state, worker, songs, during
):
    during(lambda: client.post(f"/api/tracks/{songs[0]}/cancel"))
    worker.work()
    assert client.track(songs[0])["ranges"] == []
    assert client.get(f"/api/tracks/{songs[0]}/pcm").status_code == 204


def test_a_deleted_track_does_not_reappear(client, state, worker, songs, monkeypatch):
    """Not even if it is deleted just after its last file was written."""
    finish = Jobs.finish

    def deleting(self, track, *rest, **values):
        client.delete(f"/api/tracks/{track}")
        finish(self, track, *rest, **values)

    monkeypatch.setattr(Jobs, "finish", deleting)
    while worker.work():
        pass
    keeping = Maintenance(state)
    keeping.scan()
    assert client.get("/api/tracks").json()["tracks"] == []
    for action in ("cancel", "retry", "first"):
        assert client.post(f"/api/tracks/{songs[0]}/{action}").status_code == 404
    assert client.delete(f"/api/tracks/{songs[0]}").status_code == 404
    _, changed, removed = state.tracks.changes(0)
    assert (changed, set(removed)) == ([], set(songs))


def test_a_dead_worker_s_track_is_next_again(state, songs):
    state.jobs.claim("dead")
    state.jobs.requeue("dead")
    assert state.jobs.claim("worker")["id"] == songs[0]
    state.jobs.requeue("another")
    assert state.tracks.row(songs[0])["state"] == "separating"


def test_a_track_that_kills_its_workers_fails(state, songs):
    for _ in range(MAX_CRASHES):
        assert state.jobs.claim("dead")["id"] == songs[0]
        state.jobs.request_seek(songs[0], 9)
        state.jobs.requeue("dead", crashed=True)
    row = state.tracks.row(songs[0])
    assert (row["state"], row["seek_frame"]) == ("failed", None)
    assert "ended several times" in row["error"]
    assert state.jobs.claim("worker")["id"] == songs[1]
    state.jobs.enqueue(songs[0])
    assert state.tracks.row(songs[0])["crash_count"] == 0


def test_the_next_server_requeues_the_jobs_of_the_last_one(state, songs, settings):
    state.jobs.claim("gone")
    database = Database(settings.database)
    Jobs(database).requeue()
    row = Tracks(database).row(songs[0])
    assert (row["state"], row["worker"], row["crash_count"]) == ("queued", None, 0)
    database.close()


def test_changes_are_numbered_in_the_order_of_commits(state, songs, in_background):
    """Whoever has seen a version has seen everything before it."""
    seen, last = {}, 0

    def change(name):
        for number in range(20):
            state.tracks.update(songs[name], title=f"{number}")

    threads = [in_background(lambda n=n: change(n)) for n in range(3)]
    while (
        any(thread.is_alive() for thread in threads) or not seen or last < state.database.version()
    ):
        version, changed, _ = state.tracks.changes(last)
        assert version >= last
        last = version
        seen |= {track["id"]: track for track in changed}
    assert {track["title"] for track in seen.values()} == {"19"}


def test_seeking_needs_a_job_and_a_frame(client, state, worker, songs):
    response = client.post(f"/api/tracks/{songs[0]}/seek", json={"frame": 9})
    assert response.status_code == 200
    assert state.tracks.row(songs[0])["seek_frame"] == 9
    for wrong in ({"frame": -1}, {"frame": "9"}, {"frame": True}, {}, [], {"frame": 1 << 60}):
        assert client.post(f"/api/tracks/{songs[0]}/seek", json=wrong).status_code == 422
    client.post(f"/api/tracks/{songs[0]}/cancel")
    assert state.tracks.row(songs[0])["seek_frame"] is None  # a retry starts at the beginning
    assert client.post(f"/api/tracks/{songs[0]}/seek", json={"frame": 9}).status_code == 409


def test_errors_name_the_track(state, songs):
    with pytest.raises(NotFoundError, match="no such track"):
        state.jobs.cancel("nobody's")
    state.jobs.cancel(songs[0])
    with pytest.raises(ConflictError, match=r"a\.flac is neither queued nor being separated"):
        state.jobs.cancel(songs[0])


def test_lists_are_searched_and_paged(client, songs):
    client.post(f"/api/tracks/{songs[0]}/cancel")
    names = lambda response: [track["name"] for track in response.json()["tracks"]]  # noqa: E731
    assert names(client.get("/api/tracks?search=B.FL")) == ["b.flac"]
    assert names(client.get("/api/tracks?search=%25")) == []  # no wildcard
    assert names(client.get("/api/tracks?state=cancelled")) == ["a.flac"]
    page = client.get("/api/tracks?offset=1&limit=1")
    assert (page.json()["total"], names(page)) == (3, ["c.flac"])


def test_searches_ignore_case_accents_and_width(client, state):
    """Whichever field it is: the texts are in one after the other."""
    fields = cycle(["name", "title", "artist", "album"])
    for (text, search, found), field in zip(SEARCHES, fields, strict=False):
        track = state.tracks.add(kind="library", state="unseparated", name="")
        state.tracks.update(track, **{field: text.replace("\0", "")})
        response = client.get("/api/tracks", params={"search": search}).json()
        assert [shown["id"] for shown in response["tracks"]] == [track] * found, (text, search)
        assert response["total"] == found
        state.tracks.mark_deleted(track)


def test_every_word_of_a_search_must_be_in_some_field(client, state):
    about = {"name": "01.flac", "title": "Jóga", "artist": "Björk", "album": "Homogenic"}
    state.tracks.add(kind="library", state="unseparated", **about)
    state.tracks.add_all([{"kind": "library", "state": "unseparated", **about}])
    for search, count in [("homogenic BJORK joga 01", 2), ("bjork nonsense", 0)]:
        assert client.get("/api/tracks", params={"search": search}).json()["total"] == count


def test_an_id_with_a_nul_is_unknown(client):
    """PostgreSQL cannot even compare it."""
    for method, path in [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/pcm")]:
        assert client.request(method, f"/api/tracks/a%00{path}").status_code in (400, 404)
    assert client.post("/api/tracks", json={"track": "a\0"}).status_code in (400, 404)


def test_an_unknown_state_is_refused(client, songs):
    client.post(f"/api/tracks/{songs[0]}/cancel")
    assert client.get("/api/tracks?state=cancelled, failed").json()["total"] == 1
    response = client.get("/api/tracks?state=Finished")
    assert response.status_code == 422
    assert (
        "unseparated, queued, separating, finished, failed, cancelled" in response.json()["error"]
    )


def test_another_separation_of_a_known_track(client, worker, songs):
    for _ in songs:
        worker.work()
    response = client.post("/api/tracks", json={"track": songs[0], "stems": ["vocals"]})
    assert response.status_code == 201
    other = response.json()
    assert (other["state"], other["name"]) == ("queued", "a.flac")
    assert client.delete(f"/api/tracks/{songs[0]}").status_code == 204
    worker.work()
    assert client.track(other["id"])["stems"] == ["vocals"]
    assert client.get(f"/api/tracks/{other['id']}/stems/vocals").status_code == 200


def test_uploads_expire_if_there_is_a_limit(client, state, worker, songs, tmp_path):
    worker.work()
    keeping = Maintenance(state)
    keeping.expire()
    assert len(states(client)) == 3
    object.__setattr__(state.settings.limits, "keep_days", 1.0)
    keeping.expire()
    assert len(states(client)) == 3
    state.tracks.update(songs[0], ended=1.0)  # 1970
    keeping.expire()
    assert set(states(client)) == {"b", "c"}
    assert not (tmp_path / "data" / "separated" / "tiny").exists()
