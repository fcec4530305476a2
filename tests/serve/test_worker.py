"""From an upload to its stems and its preview."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sqlalchemy.exc import OperationalError

from htdemucs import Library, OutputOptions, Separator, Track
from htdemucs.audio import AudioFile, AudioWriter, SampleCache
from htdemucs.batch import read_manifest
from htdemucs.separation.runner import Runner
from htdemucs.serve import live_preview
from htdemucs.serve.jobs import JobCancelledError, Jobs
from htdemucs.serve.preview import COLUMN


def pcm(client, track, **parameters):
    response = client.get(f"/api/tracks/{track}/pcm", params=parameters)
    frames = int(response.headers["x-frames"])
    return np.frombuffer(response.content, "<i2").reshape(frames, -1, 2) if frames else None


def file_samples(path):
    samples = torch.cat(list(AudioFile(path)), dim=1).T.numpy() * 32768
    return samples.astype(np.int16)


def separated_alone(model, song, folder):
    """The stems that `htdemucs separate` writes."""
    library = Library(folder)
    outcome = library.separate(library.assign_output(Track(str(song))), Separator(model, shifts=1))
    return {stem: Path(path).read_bytes() for stem, path in outcome.files.items()}


@pytest.fixture
def seeking(state, monkeypatch):
    """Return a function that requests frames when so many seconds are done."""

    def seek(track, *wishes):
        waiting = list(wishes)
        report = Jobs.update

        def reporting(self, track_id, holder, /, **values):
            report(self, track_id, holder, **values)
            if waiting and values.get("ranges") and values["done"] >= waiting[0][0]:
                state.jobs.request_seek(track_id, waiting.pop(0)[1])

        monkeypatch.setattr(Jobs, "update", reporting)

    return seek


def test_an_upload_becomes_stems(client, worker, write_song, model, tmp_path):
    song = write_song(tmp_path / "song.flac")
    track = client.upload(song)
    assert (track["state"], track["position"], track["kind"]) == ("queued", 1, "upload")
    assert worker.work()
    track = client.track(track["id"])
    assert track["state"] == "finished"
    assert track["stems"] == ["drums", "bass", "other", "vocals"]
    assert (track["sample_rate"], track["channels"], track["frames"]) == (8000, 2, 32_000)
    assert track["ranges"] == [[0, 32_000]]
    assert track["done"] == track["duration"] == 4.0
    assert track["error"] is None
    assert track["ended"] >= track["created"]
    assert not worker.work()


def test_stems_are_identical_to_those_of_the_command(client, worker, write_song, model, tmp_path):
    song = write_song(tmp_path / "song.flac")
    track = client.upload(song)["id"]
    worker.work()
    for stem, data in separated_alone(model, song, tmp_path / "alone").items():
        response = client.get(f"/api/tracks/{track}/stems/{stem}")
        assert response.content == data
        named = response.headers["content-disposition"]
        assert named.startswith(f'attachment; filename="song - {stem}.wav"')
    assert client.get(f"/api/tracks/{track}/source").content == song.read_bytes()


def test_separating_again_with_more_shifts_keeps_the_first_stems(
    client, worker, write_song, tmp_path
):
    first = client.upload(write_song(tmp_path / "song.flac"))["id"]
    second = client.post("/api/tracks", json={"track": first, "shifts": 3}).json()["id"]
    sounds = {}
    for track, shifts in ((first, 1), (second, 3)):
        worker.work()
        shown = client.track(track)
        assert (shown["state"], shown["shifts"]) == ("finished", shifts)
        sounds[track] = client.get(f"/api/tracks/{track}/stems/bass").content
    assert sounds[first] != sounds[second]
    assert client.get(f"/api/tracks/{first}/stems/bass").content == sounds[first]


def test_deleted_uploads_leave_no_stems_of_any_format(client, worker, state, write_song, tmp_path):
    first = client.upload(write_song(tmp_path / "song.flac"))["id"]
    worker.work()
    assert client.request("PATCH", "/api/storage", json={"format": "flac"}).status_code == 200
    second = client.post("/api/tracks", json={"track": first}).json()["id"]
    worker.work()
    assert client.track(second)["files"]["bass"]["name"] == "bass.flac"
    for track in (second, first):
        client.delete(f"/api/tracks/{track}")
    assert [path for path in state.settings.library.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("rate", [8000, 11_025])
def test_the_preview_equals_the_files(client, worker, write_song, tmp_path, rate):
    song = write_song(tmp_path / "song.flac", rate=rate)
    track = client.upload(song)["id"]
    worker.work()
    shown = client.track(track)
    assert shown["frames"] == 4 * rate
    heard = pcm(client, track, frames=1 << 20)
    for lane, stem in enumerate(shown["stems"]):
        client.get(f"/api/tracks/{track}/stems/{stem}")
        place = tmp_path / "data" / "separated" / "tiny" / "song" / f"{stem}.wav"
        np.testing.assert_array_equal(heard[:, lane], file_samples(place))
    np.testing.assert_array_equal(heard[:, 4], file_samples(song))


def test_samples_of_some_lanes_from_a_frame_on(client, worker, write_song, tmp_path):
    track = client.upload(write_song(tmp_path / "song.flac"))["id"]
    worker.work()
    whole = pcm(client, track, frames=1 << 20)
    part = pcm(client, track, frames=500, stems="original,bass", **{"from": 777})
    np.testing.assert_array_equal(part, whole[777:1277][:, [4, 1]])
    assert client.get(f"/api/tracks/{track}/pcm?from=32000").status_code == 204
    assert client.get(f"/api/tracks/{track}/pcm?stems=piano").status_code == 404


def test_peaks_are_those_of_the_samples(client, worker, write_song, tmp_path):
    track = client.upload(write_song(tmp_path / "song.flac"))["id"]
    worker.work()
    heard = pcm(client, track, frames=1 << 20)
    response = client.get(f"/api/tracks/{track}/peaks")
    peaks = np.frombuffer(response.content, np.int8).reshape(-1, 5, 2)
    assert len(peaks) == -(-32_000 // COLUMN) == int(response.headers["x-columns"])
    for column, lanes in enumerate(peaks):
        samples = heard[column * COLUMN : (column + 1) * COLUMN] >> 8
        silence = [0] if column == len(peaks) - 1 else []  # behind the track's end
        for lane, (low, high) in enumerate(lanes):
            assert low == min(samples[:, lane].min(), *silence, 127)
            assert high == max(samples[:, lane].max(), *silence, -128)
    part = client.get(f"/api/tracks/{track}/peaks?from=3&columns=2").content
    assert part == peaks[3:5].tobytes()


def test_samples_are_available_before_the_end(client, worker, write_song, tmp_path, monkeypatch):
    track = client.upload(write_song(tmp_path / "song.flac"))["id"]
    heard = []
    report = Jobs.update

    def reporting(self, track_id, holder, /, **values):
        report(self, track_id, holder, **values)
        if values.get("ranges"):
            shown = client.track(track)
            samples = pcm(client, track, frames=1 << 20)
            assert len(samples) == shown["ranges"][0][1]
            heard.append((shown["state"], samples))

    monkeypatch.setattr(Jobs, "update", reporting)
    monkeypatch.setattr(live_preview, "REPORT_INTERVAL", 0.0)
    worker.work()
    whole = pcm(client, track, frames=1 << 20)
    assert len(heard) > 2
    for state, samples in heard:
        assert state == "separating"
        np.testing.assert_array_equal(samples, whole[: len(samples)])


@pytest.mark.parametrize("rate", [8000, 11_025])
def test_separating_later_parts_early_changes_no_bit(
    client, worker, write_song, model, tmp_path, seeking, monkeypatch, rate
):
    """Two seek requests: the second comes while the first one's part is being separated."""
    monkeypatch.setattr(live_preview, "REPORT_INTERVAL", 0.0)
    song = write_song(tmp_path / "song.flac", seconds=12, rate=rate)
    track = client.upload(song)["id"]
    seeking(track, (0.1, 9 * rate), (0.1, 5 * rate))
    ranges = []
    report = Jobs.update

    def reporting(self, track_id, holder, /, **values):
        report(self, track_id, holder, **values)
        ranges.append(values.get("ranges") or [])

    monkeypatch.setattr(Jobs, "update", reporting)
    worker.work()
    begun = [first for held in ranges for first, _ in held]
    assert {0, 9 * rate, 5 * rate} <= set(begun)
    assert begun.index(9 * rate) < begun.index(5 * rate)
    shown = client.track(track)
    assert shown["state"] == "finished", shown
    assert shown["ranges"] == [[0, 12 * rate]]
    alone = separated_alone(model, song, tmp_path / "alone")
    whole = pcm(client, track, frames=1 << 20)
    for lane, stem in enumerate(shown["stems"]):
        assert client.get(f"/api/tracks/{track}/stems/{stem}").content == alone[stem]
        difference = whole[:, lane].astype(int) - file_samples(
            tmp_path / "alone" / "song" / f"{stem}.wav"
        )
        assert abs(difference).max() <= 1
    folder = tmp_path / "data" / "previews" / track
    assert sorted(path.name for path in folder.iterdir()) == [
        *(f"{lane}.pcm" for lane in range(5)), "peaks",
    ]  # fmt: skip


def test_no_segment_of_an_early_part_is_computed_twice(
    client, worker, write_song, tmp_path, seeking, monkeypatch
):
    song = write_song(tmp_path / "song.flac", seconds=12)
    computed = []
    for wishes in ([], [(0.1, 9 * 8000)]):
        track = client.upload(song, stems=["drums,bass,other,vocals", ""][bool(wishes)])["id"]
        seeking(track, *wishes)
        run, count = Runner._run, []

        def counting(self, windows, length, run=run, count=count):
            count.append(len(windows))
            return run(self, windows, length)

        monkeypatch.setattr(Runner, "_run", counting)
        worker.work()
        monkeypatch.setattr(Runner, "_run", run)
        computed.append(sum(count))
    assert computed[0] <= computed[1] <= computed[0] + 2  # those that the seam needs again


def test_tags_are_read_by_the_worker(client, worker, write_song, tmp_path):
    """Not by the server, because an upload may contain anything."""
    import mutagen.flac

    song = write_song(tmp_path / "song.flac")
    tags = mutagen.flac.FLAC(song)
    tags.update({"title": "<b>Title</b>", "artist": "Artist", "album": "Album"})
    tags.save()
    track = client.upload(song)
    assert track["title"] is None
    worker.work()
    shown = client.track(track["id"])
    assert (shown["title"], shown["artist"], shown["album"]) == ("<b>Title</b>", "Artist", "Album")


def test_a_lost_database_does_not_fail_the_track(
    client, state, worker, write_song, tmp_path, monkeypatch
):
    track = client.upload(write_song(tmp_path / "song.flac"))["id"]
    report = Jobs.update

    def failing(self, track_id, holder, /, **values):
        if values.get("ranges"):
            raise OperationalError("gone", {}, Exception("gone"))
        report(self, track_id, holder, **values)

    monkeypatch.setattr(Jobs, "update", failing)
    with pytest.raises(OperationalError) as failure:
        worker.work()
    monkeypatch.setattr(Jobs, "update", report)
    worker.wait_for_database(failure.value)
    worker.work()
    assert client.track(track)["state"] == "finished"
    assert state.tracks.row(track)["crash_count"] == 0


def test_a_full_disk_pauses_the_queue(client, worker, write_song, tmp_path, state, monkeypatch):
    tracks = [client.upload(write_song(tmp_path / f"{n}.flac", n))["id"] for n in range(2)]
    write = AudioWriter.write

    def full(self, block):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "data" / "x"))

    monkeypatch.setattr(AudioWriter, "write", full)
    free = SimpleNamespace(free=0)
    monkeypatch.setattr("htdemucs.serve.worker.shutil.disk_usage", lambda _: free)
    assert not worker.work()
    shown = client.track(tracks[0])
    assert (shown["state"], shown["code"]) == ("queued", "disk-full")
    assert "disk is full" in shown["error"]
    assert not worker.work()
    monkeypatch.setattr(AudioWriter, "write", write)
    free.free = 1 << 30
    while worker.work():
        pass
    for track in tracks:
        assert (client.track(track)["state"], client.track(track)["error"]) == ("finished", None)


def test_a_track_that_a_command_is_separating_waits(client, worker, write_song, tmp_path, model):
    track = client.upload(write_song(tmp_path / "song.flac"))["id"]
    library = Library(tmp_path / "data" / "separated" / "tiny")
    [file] = (tmp_path / "data" / "uploads").rglob("song.flac")
    assigned = library.assign_output(Track(str(file)))
    cache = SampleCache.open(library.output_paths_for(assigned).cache_file, 8, "other")
    assert not worker.work()
    shown = client.track(track)
    assert (shown["state"], shown["code"]) == ("queued", "busy")
    other = client.upload(write_song(tmp_path / "other.flac", 2))["id"]
    assert not worker.work()  # the first again, which goes behind the other one
    assert worker.work()
    assert client.track(other)["state"] == "finished"
    cache.close()
    library.separate(assigned, Separator(model))
    assert worker.work()
    shown = client.track(track)
    assert (shown["state"], shown["error"]) == ("finished", None)


def test_tracks_share_no_folder_though_an_earlier_one_is_free(client, worker, write_song, tmp_path):
    """The folder of a deleted track is free, and a cancelled track has reserved it."""
    songs = [write_song(tmp_path / f"{n}" / "song.wav", n) for n in range(4)]
    first, _ = (client.upload(song)["id"] for song in songs[:2])
    while worker.work():
        pass
    client.delete(f"/api/tracks/{first}")
    cancelled = client.upload(songs[2])["id"]
    row = worker._jobs.claim("another")
    library = Library(tmp_path / "data" / "separated" / "tiny")
    manifest = library.output_paths_for(Track(row["path"])).manifest
    assert worker._jobs.reserve_output(row, "another", str(manifest), 1)
    client.post(f"/api/tracks/{cancelled}/cancel")
    worker._jobs.release_cancelled(cancelled, "another")
    last = client.upload(songs[3])["id"]
    assert worker.work()
    assert client.track(last)["error"] is None
    assert client.track(last)["state"] == "finished"


def test_the_command_skips_what_the_server_separated(client, worker, write_song, model, tmp_path):
    from click.testing import CliRunner

    from htdemucs.cli.main import cli

    song = write_song(tmp_path / "song.flac")
    client.upload(song)
    worker.work()
    library = str(tmp_path / "data" / "separated")
    result = CliRunner().invoke(cli, ["separate", "-n", model, "-o", library, str(song)])
    assert result.exit_code == 0
    assert "already there" in result.stderr


def test_previews_of_softened_stems_equal_their_files(
    client, state, worker, write_song, tmp_path, monkeypatch
):
    monkeypatch.setattr(OutputOptions, "gain", lambda *_: 0.5)  # as if one had clipped
    song = write_song(tmp_path / "song.flac")
    for is_known in (False, True):
        track = client.upload(song)["id"]
        worker.work()
        shown = client.track(track)
        if is_known:  # there at once; the preview is made when somebody listens
            assert (shown["frames"], shown["ranges"]) == (32_000, [])
            state.preview_builder.build(track)
            shown = client.track(track)
        assert (shown["state"], shown["ranges"]) == ("finished", [[0, 32_000]])
        heard = pcm(client, track, frames=1 << 20)
        folder = tmp_path / "data" / "separated" / "tiny" / "song"
        assert read_manifest(folder / "htdemucs.json")["gain"] == 0.5
        for lane, stem in enumerate(shown["stems"]):
            np.testing.assert_array_equal(heard[:, lane], file_samples(folder / f"{stem}.wav"))


def test_a_stem_s_file_has_a_name_for_every_program(client, worker, write_song, tmp_path):
    track = client.upload(write_song(tmp_path / "Früh.flac"))["id"]
    worker.work()
    header = client.get(f"/api/tracks/{track}/source").headers["content-disposition"]
    assert header == "attachment; filename=\"Fr_h.flac\"; filename*=utf-8''Fr%C3%BCh.flac"


def test_range_and_conditional_requests(client, worker, write_song, tmp_path):
    track = client.upload(write_song(tmp_path / "song.flac"))["id"]
    worker.work()
    url = f"/api/tracks/{track}/stems/bass"
    whole = client.get(url)
    part = client.get(url, headers={"range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, whole.content[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(whole.content)}"
    etag = whole.headers["etag"]
    assert client.get(url, headers={"if-none-match": etag}).status_code == 304
    changed = client.get(url, headers={"range": "bytes=0-9", "if-range": '"other"'})
    assert changed.status_code == 200
    beyond = client.get(url, headers={"range": "bytes=999999999-"})
    assert (beyond.status_code, beyond.json()) == (
        416,
        {"error": "Cannot satisfy request range", "code": None},
    )
    assert beyond.headers["content-range"].startswith("bytes */")
    assert client.get(url, headers={"range": "words=1-2"}).json()["error"]
    many = "bytes=" + ",".join(f"{2 * i}-{2 * i}" for i in range(1000))
    assert client.get(url, headers={"range": many}).status_code == 400
    head = client.request("HEAD", url)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(whole.content)))
    assert client.get(f"/api/tracks/{track}/stems/piano").status_code == 404


def test_a_file_that_is_not_audio_fails(client, worker, tmp_path):
    (tmp_path / "song.mp3").write_bytes(b"no audio at all" * 100)
    track = client.upload(tmp_path / "song.mp3")["id"]
    worker.work()
    shown = client.track(track)
    assert shown["state"] == "failed"
    assert shown["error"].startswith("song.mp3 ")
    assert shown["code"] == "no-audio"
    assert str(tmp_path) not in shown["error"]


def test_tracks_of_the_same_name_get_different_folders(client, worker, write_song, tmp_path):
    one = client.upload(write_song(tmp_path / "a" / "song.flac"))["id"]
    two = client.upload(write_song(tmp_path / "b" / "song.flac", seed=1))["id"]
    same = client.upload(tmp_path / "a" / "song.flac")["id"]
    while worker.work():
        pass
    stems = [client.get(f"/api/tracks/{track}/stems/bass").content for track in (one, two, same)]
    assert stems[0] != stems[1]
    assert stems[0] == stems[2]
    assert client.delete(f"/api/tracks/{one}").status_code == 204
    assert client.get(f"/api/tracks/{same}/stems/bass").content == stems[0]
    assert client.delete(f"/api/tracks/{same}").status_code == 204
    assert [p.name for p in (tmp_path / "data" / "separated" / "tiny").iterdir()] == ["song (2)"]


def test_only_the_requested_stems_are_written(client, worker, write_song, tmp_path):
    track = client.upload(write_song(tmp_path / "song.flac"), stems="vocals,bass")["id"]
    worker.work()
    shown = client.track(track)
    assert shown["stems"] == list(shown["files"]) == ["vocals", "bass"]
    assert pcm(client, track, frames=100).shape == (100, 3, 2)


def test_an_unknown_job_counts_as_cancelled(state):
    with pytest.raises(JobCancelledError):
        state.jobs.check("nobody's", "worker")


def test_deleting_an_upload_keeps_stems_that_the_command_wrote(
    client, worker, write_song, model, tmp_path
):
    song = write_song(tmp_path / "song.flac")
    alone = separated_alone(model, song, tmp_path / "data" / "separated" / "tiny")
    track = client.upload(song)["id"]
    worker.work()
    assert client.track(track)["state"] == "finished"
    assert client.delete(f"/api/tracks/{track}").status_code == 204
    folder = tmp_path / "data" / "separated" / "tiny" / "song"
    assert (folder / "htdemucs.json").exists()
    assert {path.stem: path.read_bytes() for path in folder.glob("*.wav")} == alone
