import json
import os
from pathlib import Path, PurePath

import pytest

from htdemucs import AudioEncoding, OutputOptions, Separator
from htdemucs.audio import Spool
from htdemucs.batch import Library, Track, read_manifest
from htdemucs.batch.library import summary
from htdemucs.separation import output as separation_output


@pytest.fixture
def separator(tiny_model):
    return Separator(tiny_model, shifts=1)


@pytest.fixture
def song(tmp_path, write_song):
    return write_song(tmp_path / "music" / "song.flac")


def library(out, options=None, **changes):
    return Library("tiny", {"model": "00"}, options or OutputOptions(), out, **changes)


def separate(lib, separator, path, folder=""):
    return lib.separate(lib.place(Track(path, PurePath(folder))), separator)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def stems_of(outcome):
    return {name: Path(path).read_bytes() for name, path in outcome.files.items()}


def test_the_manifest_says_how_stems_were_made(separator, song, tmp_path):
    outcome = separate(library(tmp_path / "out"), separator, song)
    assert outcome.status == "separated"
    manifest = json.loads(Path(outcome.manifest).read_text())
    assert Path(outcome.manifest) == tmp_path / "out" / "song" / "htdemucs.json"
    assert manifest["source"]["path"] == str(song)
    assert manifest["source"]["bytes"] == song.stat().st_size
    assert manifest["source"]["length"] == 12_000
    assert manifest["model"] == {"name": "tiny", "sha256": {"model": "00"}}
    assert manifest["separation"]["shifts"] == 1
    assert manifest["output"]["clip_mode"] == "rescale"
    assert manifest["levels"]["gain"] == 1
    assert set(manifest["levels"]["peaks"]) == {"drums", "bass", "other", "vocals"}
    assert (manifest["sample_rate"], manifest["length"], manifest["bit_depth"]) == (8000, 12000, 16)
    assert manifest["versions"]["htdemucs"]
    for name, file in manifest["files"].items():
        path = tmp_path / "out" / "song" / file["path"]
        assert path.stem == name
        assert path.stat().st_size == file["bytes"]


def test_what_is_done_is_skipped(separator, song, tmp_path):
    first = separate(library(tmp_path / "out"), separator, song)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    second = separate(library(tmp_path / "out"), separator, song)
    assert second.status == "skipped"
    assert second.files == first.files
    assert second.duration == first.duration == 1.5
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    again = separate(library(tmp_path / "out", skip_existing=False), separator, song)
    assert again.status == "separated"


def other_song(song, out, write_song):
    write_song(song, seed=5)


def touched_song(song, out, write_song):
    os.utime(song, (5, 5))


def moved_song(song, out, write_song):
    song.rename(song.with_suffix(".moved"))
    song.with_suffix(".moved").rename(song)


def missing_stem(song, out, write_song):
    (out / "song" / "bass.wav").unlink()


def shorter_stem(song, out, write_song):
    os.truncate(out / "song" / "bass.wav", 500)


def damaged_stem(song, out, write_song):
    path = out / "song" / "bass.wav"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def touched_stem(song, out, write_song):
    os.utime(out / "song" / "bass.wav", (5, 5))


def no_manifest(song, out, write_song):
    (out / "song" / "htdemucs.json").unlink()


def damaged_manifest(song, out, write_song):
    path = out / "song" / "htdemucs.json"
    path.write_bytes(path.read_bytes()[:-20])


def hostile_manifest(song, out, write_song):
    path = out / "song" / "htdemucs.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"levels": [], "source": "x"}))


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (other_song, "separated"),
        (touched_song, "skipped"),
        (moved_song, "skipped"),
        (missing_stem, "separated"),
        (shorter_stem, "separated"),
        (damaged_stem, "separated"),
        (touched_stem, "skipped"),
        (no_manifest, "separated"),
        (damaged_manifest, "separated"),
        (hostile_manifest, "separated"),
    ],
)
def test_skipping_goes_by_contents(separator, song, tmp_path, write_song, change, status):
    out = tmp_path / "out"
    first = stems_of(separate(library(out), separator, song))
    change(song, out, write_song)
    outcome = separate(library(out), separator, song)
    assert outcome.status == status
    assert (stems_of(outcome) == first) == (change is not other_song)


def test_other_settings_are_other_work(tiny_model, song, tmp_path):
    out = tmp_path / "out"
    options = OutputOptions()

    def status(hashes=None, options=options, **settings):
        lib = Library("tiny", hashes or {"model": "00"}, options, out)
        return separate(lib, Separator(tiny_model, **settings), song).status

    assert status() == "separated"
    assert status() == "skipped"
    assert status(overlap=0.5) == "separated"
    assert status(overlap=0.5, seed=1) == "separated"
    assert status(overlap=0.5, seed=1) == "skipped"
    assert status(hashes={"model": "11"}) == "separated"
    assert status(options=OutputOptions(AudioEncoding(bit_depth=24))) == "separated"
    assert status(options=OutputOptions(AudioEncoding(bit_depth=24))) == "skipped"


def test_tracks_of_a_name_get_places_of_their_own(separator, tmp_path, write_song):
    lib = library(tmp_path / "out")
    paths = [
        write_song(tmp_path / "x" / "a.wav", 1),
        write_song(tmp_path / "y" / "a.flac", 2),
        write_song(tmp_path / "z" / "A.wav", 3),
    ]
    outcomes = [separate(lib, separator, path) for path in paths]
    folders = [Path(outcome.manifest).parent.name for outcome in outcomes]
    assert folders == ["a", "a (2)", "A (3)"]
    assert len({stems_of(outcome)["bass"] for outcome in outcomes}) == 3


def test_folders_are_kept(separator, song, tmp_path):
    outcome = separate(library(tmp_path / "out"), separator, song, "cd 1/x")
    assert Path(outcome.manifest) == tmp_path / "out" / "cd 1" / "x" / "song" / "htdemucs.json"


def test_stopped_work_is_gone_on_with_in_any_format(separator, song, tmp_path):
    whole = stems_of(separate(library(tmp_path / "whole"), separator, song))
    lib = library(tmp_path / "out")
    job = lib.place(Track(song))

    def stop(progress):
        if progress.done > 0.7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lib.separate(job, separator, stop)
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == [
        job.places.spool.name
    ]
    assert lib.state(job, separator) == "go on"
    outcome = lib.separate(job, separator)
    assert outcome.resumed > 0.7
    assert stems_of(outcome) == whole
    assert not job.places.spool.exists()
    assert lib.state(job, separator) == "skip"


def test_a_failure_is_an_outcome_and_changes_nothing(separator, song, tmp_path):
    lib = library(tmp_path / "out")
    good = separate(lib, separator, song)
    before = contents(tmp_path / "out")
    song.write_bytes(b"no longer audio")
    outcome = lib.separate(library(tmp_path / "out").place(Track(song)), separator)
    assert outcome.status == "failed"
    assert outcome.reason.startswith(str(song))
    assert contents(tmp_path / "out") == before
    told = summary([good, outcome])
    assert (told["separated"], told["failed"], told["duration"]) == (1, 1, 1.5)
    json.dumps(told)


def test_a_track_that_changes_meanwhile_is_not_called_finished(separator, song, tmp_path):
    lib = library(tmp_path / "out")
    job = lib.place(Track(song))
    outcome = lib.separate(job, separator, lambda _: os.truncate(song, song.stat().st_size - 1))
    assert outcome.status == "failed"
    assert "changed" in outcome.reason
    assert not job.places.manifest.exists()


def test_a_track_that_vanishes_meanwhile(separator, song, tmp_path):
    lib = library(tmp_path / "out")
    outcome = lib.separate(
        lib.place(Track(song)), separator, lambda _: song.unlink(missing_ok=True)
    )
    assert outcome.status == "failed"
    assert "song.flac" in outcome.reason


def test_a_full_disk_ends_in_one_line_and_loses_nothing(separator, song, tmp_path, monkeypatch):
    lib = library(tmp_path / "out")
    whole = stems_of(separate(library(tmp_path / "whole"), separator, song))
    write = Spool.write

    def full(self, block):
        if self.length > 6000:
            with self._reporting():
                raise OSError(28, "No space left on device")
        write(self, block)

    job = lib.place(Track(song))
    monkeypatch.setattr(Spool, "write", full)
    outcome = lib.separate(job, separator)
    assert outcome.status == "failed"
    assert "No space left" in outcome.reason
    assert "\n" not in outcome.reason
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == [job.places.spool]
    monkeypatch.setattr(Spool, "write", write)
    again = lib.separate(job, separator)
    assert again.resumed > 0.7
    assert stems_of(again) == whole


def test_two_at_the_same_track_do_not_disturb_each_other(separator, song, tmp_path):
    lib = library(tmp_path / "out")
    job = lib.place(Track(song))
    told = []

    def other(_):
        if not told:
            told.append(library(tmp_path / "out").separate(job, separator))

    assert lib.separate(job, separator, other).status == "separated"
    assert told[0].status == "failed"
    assert "another htdemucs" in told[0].reason


def test_a_manifest_appears_only_when_all_stems_are_there(separator, song, tmp_path, monkeypatch):
    """Killed between stems and manifest, the next run only encodes."""
    lib = library(tmp_path / "out")
    job = lib.place(Track(song))
    close = separation_output._FileEach.close

    def die(self):
        close(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(separation_output._FileEach, "close", die)
    with pytest.raises(KeyboardInterrupt):
        lib.separate(job, separator)
    monkeypatch.setattr(separation_output._FileEach, "close", close)
    assert read_manifest(job.places.manifest) is None
    outcome = lib.separate(job, separator)
    assert outcome.resumed == 1.5


def test_even_what_nobody_expects_is_one_line_and_stops_nothing(
    separator, song, tmp_path, monkeypatch
):
    def broken(*_):
        raise RuntimeError("DefaultCPUAllocator:\nnot enough memory")

    lib = library(tmp_path / "out")
    job = lib.place(Track(song))
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "write", broken)
        outcome = lib.separate(job, separator)
    assert outcome.status == "failed"
    assert "unexpected RuntimeError (DefaultCPUAllocator: not enough memory)" in outcome.reason
    assert lib.separate(job, separator).status == "separated"
