import json
import os
from itertools import groupby
from pathlib import Path

import pytest
import torch

from htdemucs import AudioEncoding, OutputOptions, Separator
from htdemucs.audio import SampleCache
from htdemucs.batch import Library, Track, find_tracks, read_manifest
from htdemucs.batch import library as library_module
from htdemucs.environment import CheckpointFiles, checksum
from htdemucs.events import Finished, Progress, Waiting, Written
from htdemucs.results import summary
from htdemucs.stems import manifest, writer


@pytest.fixture
def separator(tiny_model, tmp_path):
    tiny_model.origin = origin("00", tiny_model)
    return Separator(tiny_model, shifts=1)


def origin(sha256, model):
    """Return the origin of a model from one file with this hash."""
    result = CheckpointFiles("tiny", (), checksum=checksum(model))
    result.__dict__["sha256"] = {"model": sha256}
    return result


@pytest.fixture
def song(tmp_path, write_song):
    return write_song(tmp_path / "music" / "song.flac")


def separate(lib, separator, path, folder=""):
    return lib.separate(lib.assign_output(Track(str(path), folder)), separator)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def stems_of(result):
    return {name: Path(path).read_bytes() for name, path in result.files.items()}


def test_the_manifest_says_how_stems_were_made(separator, song, tmp_path):
    result = separate(Library(tmp_path / "out"), separator, song)
    assert result.status == "separated"
    manifest = json.loads(Path(result.manifest).read_text())
    assert Path(result.manifest) == tmp_path / "out" / "song" / "htdemucs.json"
    assert manifest["source"]["path"] == str(song)
    assert manifest["source"]["bytes"] == song.stat().st_size
    assert manifest["source"]["length"] == 12_000
    assert manifest["model"] == {"name": "tiny", "sha256": {"model": "00"}}
    assert manifest["separation"]["shifts"] == 1
    assert manifest["output"]["clip_mode"] == "rescale"
    assert manifest["gain"] == 1
    assert set(manifest["peaks"]) == {"drums", "bass", "other", "vocals"}
    assert (manifest["sample_rate"], manifest["length"], manifest["bit_depth"]) == (8000, 12000, 16)
    assert manifest["versions"]["htdemucs"]
    for name, file in manifest["files"].items():
        path = tmp_path / "out" / "song" / file["path"]
        assert path.stem == name
        assert path.stat().st_size == file["bytes"]


def test_finished_tracks_are_skipped(separator, song, tmp_path):
    first = separate(Library(tmp_path / "out"), separator, song)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    second = separate(Library(tmp_path / "out"), separator, song)
    assert second.status == "skipped"
    assert second.files == first.files
    assert second.duration == first.duration == 1.5
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    again = separate(Library(tmp_path / "out", skip_existing=False), separator, song)
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
    path.write_text(json.dumps(manifest | {"gain": [], "source": "x"}))


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
def test_a_track_is_skipped_if_it_and_its_stems_have_the_same_contents(
    separator, song, tmp_path, write_song, change, status
):
    out = tmp_path / "out"
    first = stems_of(separate(Library(out), separator, song))
    change(song, out, write_song)
    result = separate(Library(out), separator, song)
    assert result.status == status
    assert (stems_of(result) == first) == (change is not other_song)


def test_with_other_settings_a_track_is_separated_again(tiny_model, song, tmp_path):
    out = tmp_path / "out"
    options = OutputOptions()

    def status(model="00", options=options, **settings):
        tiny_model.origin = origin(model, tiny_model)
        return separate(Library(out, options), Separator(tiny_model, **settings), song).status

    assert status() == "separated"
    assert status() == "skipped"
    assert status(overlap=0.5) == "separated"
    assert status(overlap=0.5, seed=1) == "separated"
    assert status(overlap=0.5, seed=1) == "skipped"
    assert status(model="11") == "separated"
    assert status(options=OutputOptions(AudioEncoding(bit_depth=24))) == "separated"
    assert status(options=OutputOptions(AudioEncoding(bit_depth=24))) == "skipped"


def test_a_model_that_was_changed_in_memory_is_not_that_of_its_file(tiny_model, song, tmp_path):
    def result():
        return separate(Library(tmp_path / "out"), Separator(tiny_model), song)

    tiny_model.origin = origin("00", tiny_model)
    assert [result().status, result().status] == ["separated", "skipped"]
    with torch.no_grad():
        next(tiny_model.parameters()).mul_(2)
    changed = result()
    assert [changed.status, result().status] == ["separated", "skipped"]
    model = read_manifest(Path(changed.manifest))["model"]
    assert model["name"] is None
    assert list(model["sha256"]) == ["parameters"]


def test_stopped_work_is_resumed_in_any_format(separator, song, tmp_path):
    whole = stems_of(separate(Library(tmp_path / "whole"), separator, song))
    lib = Library(tmp_path / "out")
    track = lib.assign_output(Track(str(song)))

    def stop(event):
        if isinstance(event, Progress) and event.done > 0.7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lib.separate(track, separator, stop)
    cache_file = lib.output_paths_for(track).cache_file
    left = [cache_file.with_suffix(suffix) for suffix in (".measured", ".mixture", ".work")]
    assert sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file()) == left
    assert lib.dry_run(track, separator) == "resume"
    result = lib.separate(track, separator)
    assert result.resumed > 0.7
    assert stems_of(result) == whole
    assert not any(path.exists() for path in left)
    assert lib.dry_run(track, separator) == "skip"


def test_a_failure_is_a_result_and_changes_nothing(separator, song, tmp_path):
    lib = Library(tmp_path / "out")
    good = separate(lib, separator, song)
    before = contents(tmp_path / "out")
    song.write_bytes(b"no longer audio")
    result = lib.separate(Library(tmp_path / "out").assign_output(Track(str(song))), separator)
    assert result.status == "failed"
    assert result.error.startswith(str(song))
    assert contents(tmp_path / "out") == before
    counts = summary([good, result])
    assert (counts["separated"], counts["failed"], counts["duration"]) == (1, 1, 1.5)
    json.dumps(counts)


def test_a_track_that_changes_meanwhile_fails(separator, song, tmp_path):
    lib = Library(tmp_path / "out")
    track = lib.assign_output(Track(str(song)))
    result = lib.separate(track, separator, lambda *_: os.truncate(song, song.stat().st_size - 1))
    assert result.status == "failed"
    assert "changed" in result.error
    assert not lib.output_paths_for(track).manifest.exists()


def test_a_track_that_vanishes_meanwhile_fails(separator, song, tmp_path):
    lib = Library(tmp_path / "out")
    result = lib.separate(
        lib.assign_output(Track(str(song))), separator, lambda *_: song.unlink(missing_ok=True)
    )
    assert result.status == "failed"
    assert "song.flac" in result.error


def test_a_full_disk_ends_in_one_line_and_loses_nothing(separator, song, tmp_path, monkeypatch):
    lib = Library(tmp_path / "out")
    whole = stems_of(separate(Library(tmp_path / "whole"), separator, song))
    write = SampleCache.write

    def full(self, block):
        if self._channels > 1 and self.length > 6000:  # the stems
            with self._audio_errors():
                raise OSError(28, "No space left on device")
        write(self, block)

    track = lib.assign_output(Track(str(song)))
    monkeypatch.setattr(SampleCache, "write", full)
    result = lib.separate(track, separator)
    assert result.status == "failed"
    assert "No space left" in result.error
    assert "\n" not in result.error
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == [
        lib.output_paths_for(track).cache_file
    ]
    monkeypatch.setattr(SampleCache, "write", write)
    again = lib.separate(track, separator)
    assert again.resumed > 0.7
    assert stems_of(again) == whole


def test_two_at_the_same_track_do_not_disturb_each_other(separator, song, tmp_path):
    lib = Library(tmp_path / "out")
    track = lib.assign_output(Track(str(song)))
    results = []

    def other(event):
        if isinstance(event, Progress) and not results:
            results.append(Library(tmp_path / "out").separate(track, separator))

    assert lib.separate(track, separator, other).status == "separated"
    assert results[0].status == "failed"
    assert "another htdemucs" in results[0].error


def test_nobody_begins_with_a_track_before_its_manifest_is_written(
    separator, song, tmp_path, monkeypatch
):
    lib = Library(tmp_path / "out")
    track = lib.assign_output(Track(str(song)))
    write, results = manifest.write_manifest, []

    def other(*arguments):
        results.append(Library(tmp_path / "out").separate(track, separator))
        write(*arguments)

    monkeypatch.setattr(manifest, "write_manifest", other)
    assert lib.separate(track, separator).status == "separated"
    assert results[0].status == "failed"
    assert "another htdemucs" in results[0].error


def before_locking(monkeypatch, call):
    """Make a call just before the next cache is locked."""
    open_cache = SampleCache.open

    def late(*arguments):
        monkeypatch.setattr(SampleCache, "open", open_cache)
        call()
        return open_cache(*arguments)

    monkeypatch.setattr(SampleCache, "open", late)


def test_a_track_that_another_process_has_just_finished_is_skipped(
    separator, song, tmp_path, monkeypatch
):
    lib, other = Library(tmp_path / "out"), Library(tmp_path / "out")
    track = lib.assign_output(Track(str(song)))
    before_locking(monkeypatch, lambda: other.separate(track, separator))
    assert lib.separate(track, separator).status == "skipped"
    assert not lib.output_paths_for(track).cache_file.exists()


def busy_track(out, song):
    """Return the cache of a track, locked as by another process."""
    lib = Library(out)
    paths = lib.output_paths_for(lib.assign_output(Track(str(song))))
    return SampleCache.open(paths.cache_file, 8, "other")


@pytest.mark.parametrize("threads", [1, 2])
def test_a_track_that_another_process_separates_comes_last(
    separator, song, tmp_path, write_song, threads
):
    """The other process finishes it while this one separates the rest."""
    write_song(song.parent / "two.wav", 4)
    cache, events = busy_track(tmp_path / "out", song), []

    def finish(event):
        events.append(event)
        if isinstance(event, Finished) and not cache._file.closed:
            cache.close()
            separate(Library(tmp_path / "out"), separator, song)

    library = Library(tmp_path / "out")
    results = list(library.separate_all(find_tracks([song.parent]), [separator] * threads, finish))
    assert [(Path(r.track).name, r.status) for r in results] == [
        ("two.wav", "separated"),
        ("song.flac", "skipped"),
    ]
    assert not any(isinstance(event, Waiting) for event in events)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("finished", [True, False])
def test_the_last_track_is_waited_for(separator, song, tmp_path, monkeypatch, threads, finished):
    """The other process finishes the track, or is killed and leaves it."""
    cache, events = busy_track(tmp_path / "out", song), []

    def sleep(_):
        assert [type(event) for event in events] == [Waiting]
        cache.close()
        if finished:
            separate(Library(tmp_path / "out"), separator, song)

    monkeypatch.setattr(library_module.time, "sleep", sleep)
    library = Library(tmp_path / "out")
    tracks = find_tracks([song])
    [result] = library.separate_all(tracks, [separator] * threads, events.append)
    assert result.status == ("skipped" if finished else "separated")


def test_another_track_of_the_same_name_gets_another_folder_though_it_was_busy(
    separator, song, tmp_path, monkeypatch, write_song
):
    other = write_song(tmp_path / "other" / song.name, 7)
    cache = busy_track(tmp_path / "out", song)

    def sleep(_):
        cache.close()
        separate(Library(tmp_path / "out"), separator, song)

    monkeypatch.setattr(library_module.time, "sleep", sleep)
    [result] = Library(tmp_path / "out").separate_all(find_tracks([other]), [separator])
    assert result.status == "separated"
    assert Path(result.manifest).parent.name == "song (2)"


def test_a_worker_waits_for_a_track_if_asked(separator, song, tmp_path, monkeypatch):
    cache = busy_track(tmp_path / "out", song)
    lib = Library(tmp_path / "out")
    track = lib.assign_output(Track(str(song)))
    assert "another htdemucs" in lib.separate(track, separator).error
    monkeypatch.setattr(library_module.time, "sleep", lambda _: cache.close())
    assert lib.separate(track, separator, wait=True).status == "separated"


def test_what_another_process_finished_meanwhile_stays_in_the_manifest(
    separator, song, tmp_path, monkeypatch
):
    lib = Library(tmp_path / "out", OutputOptions(AudioEncoding("mp3")))
    other = Library(tmp_path / "out")
    track, results = lib.assign_output(Track(str(song))), []
    before_locking(monkeypatch, lambda: results.append(other.separate(track, separator)))
    assert lib.separate(track, separator).status == "separated"
    assert results[0].status == "separated"
    assert lib.separate(track, separator).status == "skipped"
    assert other.separate(track, separator).status == "skipped"


def test_skipping_a_track_leaves_the_spool_of_another_process(separator, song, tmp_path):
    lib = Library(tmp_path / "out")
    track = lib.assign_output(Track(str(song)))
    assert lib.separate(track, separator).status == "separated"
    cache_file = lib.output_paths_for(track).cache_file
    with SampleCache.open(cache_file, 1, "other settings"):
        assert lib.separate(track, separator).status == "skipped"
        assert cache_file.exists()
    left = [cache_file, cache_file.with_suffix(".mixture"), cache_file.with_suffix(".measured")]
    for path in left:
        path.write_bytes(b"left by a kill")
    assert lib.separate(track, separator).status == "skipped"
    assert not any(path.exists() for path in left)


def test_a_manifest_appears_only_when_all_stems_are_there(separator, song, tmp_path, monkeypatch):
    """After a kill between stems and manifest, the next run only encodes."""
    lib = Library(tmp_path / "out")
    track = lib.assign_output(Track(str(song)))
    close = writer._FileEncoders.close

    def die(self):
        close(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(writer._FileEncoders, "close", die)
    with pytest.raises(KeyboardInterrupt):
        lib.separate(track, separator)
    monkeypatch.setattr(writer._FileEncoders, "close", close)
    assert read_manifest(lib.output_paths_for(track).manifest) is None
    result = lib.separate(track, separator)
    assert result.resumed == 1.5


def test_an_unexpected_error_is_one_line_and_stops_nothing(separator, song, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("DefaultCPUAllocator:\nnot enough memory")

    lib = Library(tmp_path / "out")
    track = lib.assign_output(Track(str(song)))
    with monkeypatch.context() as patch:
        patch.setattr(SampleCache, "write", broken)
        result = lib.separate(track, separator)
    assert result.status == "failed"
    assert "unexpected RuntimeError (DefaultCPUAllocator: not enough memory)" in result.error
    assert lib.separate(track, separator).status == "separated"


def test_the_manifest_remembers_every_kind_of_output(separator, song, tmp_path):
    """Write wav, then two stems in mp3, then either of them again: nothing is separated twice."""
    out = tmp_path / "out"
    kinds = [
        OutputOptions(),
        OutputOptions(AudioEncoding("mp3"), two_stems="vocals"),
        OutputOptions(AudioEncoding("flac")),
    ]
    for status in ("separated", "skipped", "skipped"):
        for options in kinds:
            assert separate(Library(out, options), separator, song).status == status
    document = read_manifest(out / "song" / "htdemucs.json")
    assert [run["output"]["encoding"]["format"] for run in document["earlier"]] == ["mp3", "wav"]
    deep = OutputOptions(AudioEncoding(bit_depth=24))  # the same names as the first
    assert separate(Library(out, deep), separator, song).status == "separated"
    assert separate(Library(out, kinds[1]), separator, song).status == "skipped"
    assert separate(Library(out, kinds[0]), separator, song).status == "separated"


def test_separate_all_yields_every_result(separator, song, tmp_path, write_song):
    write_song(song.parent / "two.wav", 4)
    (song.parent / "broken.wav").write_bytes(b"nothing")
    words = [song.parent, tmp_path / "missing.wav"]
    seen = []
    library = Library(tmp_path / "out")
    results = list(library.separate_all(find_tracks(words), [separator], seen.append))
    assert [(Path(o.track).name, o.status) for o in results] == [
        ("broken.wav", "failed"),
        ("song.flac", "separated"),
        ("two.wav", "separated"),
        ("missing.wav", "failed"),
    ]
    ends = {Path(e.track).name: e.done for e in seen if isinstance(e, Progress)}
    assert ends == {"song.flac": 1.5, "two.wav": 1.5}


def kinds(events, name):
    """Return the kinds of the events of the track of this name, without repetitions."""
    of_track = [type(e).__name__ for e in events if e.track and Path(e.track).name == name]
    return [kind for kind, _ in groupby(of_track)]


def test_every_track_tells_its_whole_story(separator, song, tmp_path):
    """And the same story from several threads, and of tracks that fail or are finished."""
    (song.parent / "broken.wav").write_bytes(b"nothing")
    words = [song.parent, tmp_path / "missing.wav"]
    for separators in ([separator], [separator, separator]):
        library = Library(tmp_path / str(len(separators)))
        events = []
        results = list(library.separate_all(find_tracks(words), separators, events.append))
        whole = ["Started", "Reading", "Progress", "Written", "Finished"]
        assert kinds(events, "song.flac") == whole
        assert kinds(events, "broken.wav") == ["Started", "Failed"]
        assert kinds(events, "missing.wav") == ["Failed"]
        separated = next(o for o in results if o.status == "separated")
        [finished] = [e for e in events if isinstance(e, Finished)]
        assert finished.result == separated
        assert separated.duration == 1.5
        assert {e.stem: e.path for e in events if isinstance(e, Written)} == separated.files
    events.clear()
    library = Library(library.out)
    list(library.separate_all(find_tracks([song]), [separator], events.append))
    assert kinds(events, "song.flac") == ["Started", "Finished"]
    assert events[-1].result.status == "skipped"
    assert events[-1].result.files == separated.files


def test_a_model_from_no_file_is_identified_by_its_parameters(tiny_model, song, tmp_path):
    out = tmp_path / "out"
    assert separate(Library(out), Separator(tiny_model), song).status == "separated"
    assert separate(Library(out), Separator(tiny_model), song).status == "skipped"
    with torch.no_grad():
        next(tiny_model.parameters()).add_(1)
    assert separate(Library(out), Separator(tiny_model), song).status == "separated"
