"""Remote tracks and stems, without a cluster."""

import json
import os
from pathlib import Path

import pytest

from htdemucs import AudioEncoding, OutputOptions, Separator, save_model
from htdemucs.audio import SampleCache
from htdemucs.batch import Library, Track, remote
from htdemucs.batch.inputs import find_batch_tracks
from htdemucs.batch.plan import Plan
from htdemucs.errors import StorageError
from htdemucs.events import Progress
from htdemucs.stems import manifest

fsspec = pytest.importorskip("fsspec")
SETTINGS = {"shifts": 1, "seed": 0}


@pytest.fixture
def model_folder(tiny_model, tmp_path):
    save_model(tiny_model, tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def song(tmp_path, write_song):
    return write_song(tmp_path / "music" / "song.flac")


@pytest.fixture
def bucket(song):
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    files.pipe_file("b/cd 1/song.flac", song.read_bytes())
    return files


@pytest.fixture
def plan(model_folder, tmp_path):
    def make(out, options=None, **changes):
        return Plan(
            name=str(model_folder),
            repo=None,
            options=options or OutputOptions(),
            stems=None,
            settings=SETTINGS,
            out=f"{out}/tiny",
            device="cpu",
            scratch=tmp_path / "scratch",
            **changes,
        )

    return make


@pytest.fixture
def expected(tiny_model, model_folder, song, tmp_path):
    """Return the stems of the song as `htdemucs separate` writes them."""
    library = Library(tmp_path / "expected")
    separator = Separator(model_folder, device="cpu", **SETTINGS)
    result = library.separate(library.assign_output(Track(str(song))), separator)
    return {name: Path(path).read_bytes() for name, path in result.files.items()}


class Worker:
    """Does the work of a plan, like a worker of Ray."""

    def __init__(self, plan):
        self.separator, self.library = plan.separator("cpu"), plan.library()

    def separate(self, track):
        return self.library.separate(track, self.separator)


def source():
    [track] = find_batch_tracks("memory://b")
    return track


def contents(result):
    data = {}
    for name, location in result.files.items():
        with fsspec.open(location, "rb") as file:
            data[name] = file.read()
    return data


def scratch(tmp_path):
    return list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize("to", ["memory://out", "out"])
@pytest.mark.parametrize("remote", [True, False])
def test_stems_are_the_same_wherever_tracks_and_stems_are(
    plan, bucket, song, expected, tmp_path, to, remote
):
    out = to if "://" in to else tmp_path / to
    track = source() if remote else Track(str(song), "cd 1")
    result = Worker(plan(out)).separate(track)
    assert (result.status, result.error, result.track) == ("separated", None, track.location)
    assert result.manifest == f"{out}/tiny/cd 1/song/htdemucs.json"
    assert contents(result) == expected
    with fsspec.open(result.manifest) as file:
        origin = json.load(file)["source"]
    assert origin["path"] == track.location
    if remote:
        assert origin["version"] == track.remote_file.version
        assert origin["bytes"] == track.remote_file.bytes
    again = Worker(plan(out)).separate(track)
    assert again.status == "skipped"
    assert (again.files, again.manifest, again.duration) == (
        result.files, result.manifest, result.duration
    )  # fmt: skip
    assert remote + ("://" in to) == 0 or scratch(tmp_path) == []


def test_finished_tracks_are_skipped_without_a_download(plan, bucket, tmp_path, monkeypatch):
    worker = Worker(plan("memory://out"))
    assert worker.separate(source()).status == "separated"
    monkeypatch.setattr(remote, "download", None)
    assert worker.separate(source()).status == "skipped"
    unsized = Track(source().location, source().folder)  # as from a list, which has no sizes
    assert worker.separate(unsized).status == "skipped"
    monkeypatch.undo()
    bucket.pipe_file("b/cd 1/song.flac", bucket.cat_file("b/cd 1/song.flac"))
    assert worker.separate(source()).status == "skipped"  # touched only


def lost_stem(bucket):
    bucket.rm_file("out/tiny/cd 1/song/bass.wav")


def shorter_stem(bucket):
    bucket.pipe_file("out/tiny/cd 1/song/bass.wav", b"RIFF")


def lost_manifest(bucket):
    bucket.rm_file("out/tiny/cd 1/song/htdemucs.json")


def hostile_manifest(bucket):
    path = "out/tiny/cd 1/song/htdemucs.json"
    document = json.loads(bucket.cat_file(path))
    files = dict.fromkeys(document["files"], 5)
    bucket.pipe_file(path, json.dumps(document | {"files": files}).encode())


def no_manifest(bucket):
    bucket.pipe_file("out/tiny/cd 1/song/htdemucs.json", b"[1")


@pytest.mark.parametrize(
    "change", [lost_stem, shorter_stem, lost_manifest, hostile_manifest, no_manifest]
)
def test_incomplete_work_is_done_again(plan, bucket, expected, change):
    worker = Worker(plan("memory://out"))
    worker.separate(source())
    change(bucket)
    result = worker.separate(source())
    assert (result.status, result.error) == ("separated", None)
    assert contents(result) == expected
    assert worker.separate(source()).status == "skipped"


def test_other_settings_and_other_contents_are_separated_again(plan, bucket, tmp_path, write_song):
    assert Worker(plan("memory://out")).separate(source()).status == "separated"
    deep = OutputOptions(AudioEncoding(bit_depth=24))
    assert Worker(plan("memory://out", deep)).separate(source()).status == "separated"
    again = plan("memory://out", deep, skip_existing=False)
    assert Worker(again).separate(source()).status == "separated"
    other = write_song(tmp_path / "other.flac", seed=9)
    bucket.pipe_file("b/cd 1/song.flac", other.read_bytes())
    assert Worker(plan("memory://out", deep)).separate(source()).status == "separated"


def test_the_manifest_is_written_last(plan, bucket, monkeypatch, tmp_path):
    upload = remote.upload
    names = []

    def note(path, url):
        names.append(path.name)
        if len(names) == 4:
            raise StorageError("no space")
        upload(path, url)

    monkeypatch.setattr(remote, "upload", note)
    result = Worker(plan("memory://out")).separate(source())
    assert (result.status, result.error) == ("failed", "no space")
    assert "htdemucs.json" not in names
    assert scratch(tmp_path) == []
    Worker(plan("memory://out")).separate(source())
    assert names[-1] == "htdemucs.json"


def test_another_worker_resumes_the_track_of_a_killed_one(
    plan, bucket, expected, monkeypatch, tmp_path
):
    """It finds the scratch folder and the cache in it."""

    write = SampleCache.write

    def die(self, block):
        write(self, block)
        if self._channels > 1:  # the cache of stems
            raise KeyboardInterrupt

    monkeypatch.setattr(SampleCache, "write", die)
    with pytest.raises(KeyboardInterrupt):
        Worker(plan("memory://out")).separate(source())
    monkeypatch.undo()
    assert len(scratch(tmp_path)) == 1
    result = Worker(plan("memory://out")).separate(source())
    assert (result.status, result.error) == ("separated", None)
    assert result.resumed > 0
    assert contents(result) == expected
    assert scratch(tmp_path) == []


def test_two_at_the_same_remote_track_do_not_disturb_each_other(plan, bucket, expected, tmp_path):
    worker, results = Worker(plan("memory://out")), []

    def other(event):
        if isinstance(event, Progress) and not results:
            results.append(Worker(plan("memory://out")).separate(source()))

    result = worker.library.separate(source(), worker.separator, other)
    assert (result.status, result.error) == ("separated", None)
    assert contents(result) == expected
    assert results[0].error == (
        "memory://b/cd 1/song.flac is being separated by another htdemucs; wait for it"
    )
    assert scratch(tmp_path) == []


@pytest.mark.parametrize("to", ["memory://out", "out"])
def test_failures_name_the_track_as_the_user_does(plan, bucket, tmp_path, to):
    out = to if "://" in to else tmp_path / to
    bucket.pipe_file("b/cd 1/song.flac", b"no audio")
    result = Worker(plan(out)).separate(source())
    assert result.status == "failed"
    assert result.error.startswith("memory://b/cd 1/song.flac ")
    missing = Worker(plan(out)).separate(Track("memory://b/gone.flac"))
    assert missing.error.startswith("memory://b/gone.flac cannot be read: it does not exist")


def test_an_unexpected_error_fails_its_track_only(plan, song, tmp_path, monkeypatch):
    worker = Worker(plan(tmp_path / "out"))
    monkeypatch.setattr(manifest, "file_fingerprint", lambda *_: 1 / 0)
    result = worker.separate(Track(str(song)))
    assert result.status == "failed"
    message = "unexpected ZeroDivisionError (division by zero); please report it"
    assert result.error == f"{song}: {message}"


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no users here")
def test_a_scratch_folder_of_another_user_is_refused(plan, bucket, monkeypatch, tmp_path):
    worker = Worker(plan("memory://out"))
    (tmp_path / "scratch").mkdir()
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    assert "another user's" in worker.separate(source()).error
