"""Tracks and stems elsewhere, without a cluster: fetched, put and skipped."""

import json
import os
import shutil
from pathlib import Path

import pytest

from htdemucs import AudioEncoding, OutputOptions, Separator, save_model
from htdemucs.audio import Spool
from htdemucs.batch import Library, Outcome, Track, storage
from htdemucs.batch.report import Report, Row
from htdemucs.batch.sources import Source, find_sources
from htdemucs.batch.work import Plan, Workshop
from htdemucs.errors import StorageError
from htdemucs.provenance import weights_sha256

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
            out=str(out),
            folder="tiny",
            device="cpu",
            scratch=tmp_path / "scratch",
            **changes,
        )

    return make


@pytest.fixture
def expected(tiny_model, model_folder, song, tmp_path):
    """What `htdemucs separate` makes of the song."""
    name = str(model_folder)
    library = Library(name, weights_sha256(name, None), OutputOptions(), tmp_path / "expected")
    outcome = library.separate(library.place(Track(song)), Separator(tiny_model, **SETTINGS))
    return {name: Path(path).read_bytes() for name, path in outcome.files.items()}


def source():
    [found] = find_sources("memory://b", "memory://out")
    return found


def contents(outcome):
    data = {}
    for name, place in outcome.files.items():
        with fsspec.open(place, "rb") as file:
            data[name] = file.read()
    return data


def scratch(tmp_path):
    return list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize("to", ["memory://out", "out"])
@pytest.mark.parametrize("remote", [True, False])
def test_wherever_tracks_and_stems_are(plan, bucket, song, expected, tmp_path, to, remote):
    out = to if "://" in to else tmp_path / to
    track = source() if remote else Source(str(song), "cd 1")
    outcome = Workshop(plan(out)).separate(track, 1)
    assert (outcome.status, outcome.reason, outcome.track) == ("separated", None, track.path)
    assert outcome.manifest == f"{out}/tiny/cd 1/song/htdemucs.json"
    assert contents(outcome) == expected
    with fsspec.open(outcome.manifest) as file:
        made_of = json.load(file)["source"]
    assert made_of["path"] == track.path
    if remote:
        assert made_of["version"] == track.stored.version
        assert made_of["bytes"] == track.stored.bytes
    again = Workshop(plan(out)).separate(track, 1)
    assert again.status == "skipped"
    assert (again.files, again.manifest, again.duration) == (
        outcome.files, outcome.manifest, outcome.duration
    )  # fmt: skip
    assert remote + ("://" in to) == 0 or scratch(tmp_path) == []


def test_what_is_known_is_not_fetched(plan, bucket, tmp_path, monkeypatch):
    workshop = Workshop(plan("memory://out"))
    assert workshop.separate(source(), 1).status == "separated"
    monkeypatch.setattr(storage, "fetch", None)
    assert workshop.separate(source(), 1).status == "skipped"
    listed = Source(source().path, source().folder)  # as of a list, which tells no sizes
    assert workshop.separate(listed, 1).status == "skipped"
    monkeypatch.undo()
    bucket.pipe_file("b/cd 1/song.flac", bucket.cat_file("b/cd 1/song.flac"))
    assert workshop.separate(source(), 1).status == "skipped"  # touched only


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
def test_what_is_not_whole_is_made_again(plan, bucket, expected, change):
    workshop = Workshop(plan("memory://out"))
    workshop.separate(source(), 1)
    change(bucket)
    outcome = workshop.separate(source(), 1)
    assert (outcome.status, outcome.reason) == ("separated", None)
    assert contents(outcome) == expected
    assert workshop.separate(source(), 1).status == "skipped"


def test_other_work_is_not_skipped(plan, bucket, tmp_path, write_song):
    assert Workshop(plan("memory://out")).separate(source(), 1).status == "separated"
    deep = OutputOptions(AudioEncoding(bit_depth=24))
    assert Workshop(plan("memory://out", deep)).separate(source(), 1).status == "separated"
    again = plan("memory://out", deep, skip_existing=False)
    assert Workshop(again).separate(source(), 1).status == "separated"
    other = write_song(tmp_path / "other.flac", seed=9)
    bucket.pipe_file("b/cd 1/song.flac", other.read_bytes())
    assert Workshop(plan("memory://out", deep)).separate(source(), 1).status == "separated"


def test_the_manifest_comes_last(plan, bucket, monkeypatch, tmp_path):
    put = storage.put
    names = []

    def note(path, url):
        names.append(path.name)
        if len(names) == 4:
            raise StorageError("no space")
        put(path, url)

    monkeypatch.setattr(storage, "put", note)
    outcome = Workshop(plan("memory://out")).separate(source(), 1)
    assert (outcome.status, outcome.reason) == ("failed", "no space")
    assert "htdemucs.json" not in names
    assert scratch(tmp_path) == []
    Workshop(plan("memory://out")).separate(source(), 1)
    assert names[-1] == "htdemucs.json"


def test_a_killed_worker_is_gone_on_from(plan, bucket, expected, monkeypatch, tmp_path):
    """Its scratch folder is found again, with the spool in it."""

    write = Spool.write

    def die(self, block):
        write(self, block)
        raise KeyboardInterrupt

    monkeypatch.setattr(Spool, "write", die)
    with pytest.raises(KeyboardInterrupt):
        Workshop(plan("memory://out")).separate(source(), 1)
    monkeypatch.undo()
    assert len(scratch(tmp_path)) == 1
    outcome = Workshop(plan("memory://out")).separate(source(), 1)
    assert (outcome.status, outcome.reason) == ("separated", None)
    assert outcome.resumed > 0
    assert contents(outcome) == expected
    assert scratch(tmp_path) == []


@pytest.mark.parametrize("to", ["memory://out", "out"])
def test_failures_name_the_track_as_the_user_does(plan, bucket, tmp_path, to):
    out = to if "://" in to else tmp_path / to
    bucket.pipe_file("b/cd 1/song.flac", b"no audio")
    outcome = Workshop(plan(out)).separate(source(), 1)
    assert outcome.status == "failed"
    assert outcome.reason.startswith("memory://b/cd 1/song.flac ")
    gone = Workshop(plan(out)).separate(Source("memory://b/gone.flac"), 1)
    assert gone.reason.startswith("memory://b/gone.flac cannot be read: it does not exist")


def test_what_nobody_expected_stops_nothing(plan, song, tmp_path, monkeypatch):
    workshop = Workshop(plan(tmp_path / "out"))
    monkeypatch.setattr(Library, "separate", lambda *_: 1 / 0)
    outcome = workshop.separate(Source(str(song)), 1)
    assert outcome.status == "failed"
    told = "unexpected ZeroDivisionError (division by zero); please report it"
    assert outcome.reason == f"{song}: {told}"


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no users here")
def test_scratch_of_another_user_is_refused(plan, bucket, monkeypatch, tmp_path):
    workshop = Workshop(plan("memory://out"))
    (tmp_path / "scratch").mkdir()
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    assert "another user's" in workshop.separate(source(), 1).reason


def test_the_report_keeps_the_order_and_any_name(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    workshop_outcome = {"duration": 2.0, "seconds": 0.5, "warnings": ("w",)}
    report = Report()
    bad = os.fsdecode(b"\xff.flac")
    report.add(Row(1, Outcome(bad, "failed", f"{bad} is none"), "host:1", "cpu", 3))
    files = {"bass": "out/bass.wav"}
    report.add(Row(0, Outcome("a", "separated", files=files, **workshop_outcome), "host:2", "cpu"))
    report.write(str(tmp_path / "new" / "report.parquet"))
    rows = parquet.read_table(tmp_path / "new" / "report.parquet").to_pylist()
    assert [row["number"] for row in rows] == [0, 1]
    assert rows[0]["files"] == [("bass", "out/bass.wav")]
    assert (rows[0]["warnings"], rows[0]["reason"], rows[0]["worker"]) == (["w"], None, "host:2")
    assert rows[1]["path"] == "\\udcff.flac"
    assert rows[1]["deaths"] == 3
    assert (report.counts["failed"], report.duration) == (1, 2.0)
    report.write("memory://reports/r.parquet")
    storage.fetch("memory://reports/r.parquet", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "new" / "report.parquet").read_bytes()
    shutil.rmtree(tmp_path / "new")
    Report().write(str(tmp_path / "empty.parquet"))
    assert parquet.read_table(tmp_path / "empty.parquet").num_rows == 0
