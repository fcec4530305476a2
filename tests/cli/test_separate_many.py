"""`htdemucs separate` over many tracks: finding, skipping, resuming, reporting."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from htdemucs import AudioEncoding, AudioFile
from htdemucs.audio import AudioWriter

pytestmark = pytest.mark.usefixtures("forked")


def store(path, seconds=1.5, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = torch.randn(2, int(8000 * seconds), generator=torch.Generator().manual_seed(seed))
    with AudioWriter(path, 8000, 2, AudioEncoding(path.suffix[1:])) as writer:
        writer.write(0.1 * samples)
    return path


@pytest.fixture
def album(tmp_path):
    for seed, name in enumerate(("one.flac", "two.wav", "cd 2/one.flac", "cd 2/three.mp3")):
        store(tmp_path / "album" / name, seed=seed)
    (tmp_path / "album" / "cover.jpg").write_bytes(b"no audio")
    return tmp_path / "album"


def stems(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.wav")}


def command(*words):
    return [sys.executable, "-m", "htdemucs", *map(str, words)]


def test_an_album_in_its_folders(run, model_folder, album, tmp_path):
    out = tmp_path / "out"
    result = run("separate", album, "-n", model_folder, "-o", out)
    assert result.exit_code == 0, result.output
    assert "4 tracks: 4 separated" in result.stderr
    folders = {str(p.parent.relative_to(out / "tiny")) for p in out.rglob("htdemucs.json")}
    assert folders == {"one", "two", "cd 2/one", "cd 2/three"}
    assert len(stems(out)) == 16
    again = run("separate", album, "-n", model_folder, "-o", out, "--stems", "bass")
    assert "4 separated" in again.stderr
    again = run("separate", album, "-n", model_folder, "-o", out, "--stems", "bass")
    assert "4 skipped" in again.stderr


def test_a_file_that_may_not_be_read_fails_alone(run, model_folder, album, tmp_path, monkeypatch):
    closed, access = album / "one.flac", os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: str(path) != str(closed) and access(path, mode)
    )
    words = [closed, "~nosuchuser/song.wav", album / "two.wav"]
    result = run("separate", *words, "-n", model_folder, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert f"error: {closed} cannot be opened: no permission to read it" in result.stderr
    assert "error: ~nosuchuser/song.wav does not exist" in result.stderr
    assert "3 tracks: 1 separated, 2 failed" in result.stderr


def test_stems_inside_the_album_are_no_tracks(run, model_folder, album):
    for expected in ("4 separated", "4 skipped"):
        result = run("separate", album, "-n", model_folder, "-o", album / "stems")
        assert expected in result.stderr
        assert "4 tracks" in result.stderr


def test_a_summary_for_programs(run, model_folder, album, tmp_path):
    (album / "broken.mp3").write_bytes(b"nothing")
    words = ("separate", album, "-n", model_folder, "-o", tmp_path / "out", "--json")
    result = run(*words)
    assert result.exit_code == 1
    summary = json.loads(result.stdout)
    assert (summary["separated"], summary["skipped"], summary["failed"]) == (4, 0, 1)
    assert summary["stopped"] is False
    assert summary["duration"] == pytest.approx(6, abs=0.1)
    by_name = {os.path.relpath(track["track"], album): track for track in summary["tracks"]}
    assert by_name["broken.mp3"]["status"] == "failed"
    assert "broken.mp3" in by_name["broken.mp3"]["error"]
    done = by_name["one.flac"]
    assert sorted(done["files"]) == ["bass", "drums", "other", "vocals"]
    assert all(Path(path).is_file() for path in done["files"].values())
    manifest = json.loads(Path(done["manifest"]).read_text())
    assert manifest["source"]["path"] == str(album / "one.flac")
    assert json.loads(run(*words, "-q").stdout)["skipped"] == 4


def test_a_dry_run_writes_nothing(run, model_folder, album, tmp_path):
    out = tmp_path / "out"
    words = ("separate", album, tmp_path / "missing.wav", "-n", model_folder, "-o", out)
    (album / "broken.mp3").write_bytes(b"nothing")
    result = run(*words, "--dry-run")
    assert result.exit_code == 1
    assert "missing.wav does not exist" in result.stderr
    assert "broken.mp3 cannot be read" in result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("separate  ") for line in lines)
    assert str(out / "tiny" / "cd 2" / "three" / "vocals.wav") in result.stdout
    assert not out.exists()
    run("separate", album / "one.flac", "-n", model_folder, "-o", out)
    again = run("separate", album / "one.flac", "-n", model_folder, "-o", out, "--dry-run")
    assert again.stdout.startswith("skip  ")


def test_a_playlist_and_a_pattern(run, model_folder, album, tmp_path):
    (album / "list.m3u8").write_text("#EXTM3U\ntwo.wav\ncd 2/three.mp3\n")
    out = tmp_path / "out"
    words = ("-n", model_folder, "-o", out)
    assert "2 separated" in run("separate", album / "list.m3u8", *words).stderr
    result = run("separate", album / "**" / "*.flac", *words)
    assert "2 separated" in result.stderr
    assert {p.parent.name for p in out.rglob("htdemucs.json")} == {"one", "one (2)", "two", "three"}


def test_from_standard_input_to_standard_output(model_folder, album, tmp_path, run):
    words = ("-n", model_folder, "-d", "cpu", "--stems", "vocals", "--flac")
    process = subprocess.run(
        command("separate", "-", *words, "--output", "-"),
        input=(album / "one.flac").read_bytes(),
        capture_output=True,
        check=True,
    )
    run("separate", album / "one.flac", *words, "-o", tmp_path / "out")
    [expected] = (tmp_path / "out").rglob("vocals.flac")
    assert process.stdout == expected.read_bytes()
    assert b"vocals -> standard output" in process.stderr
    assert b"Traceback" not in process.stderr


def test_standard_output_takes_one_stem_of_one_track(run, model_folder, album):
    result = run("separate", album / "one.flac", "-n", model_folder, "-o", "-")
    assert "one stem" in result.stderr
    words = ("--stems", "bass", "-n", model_folder, "-o", "-")
    for several in (album, album / "*"):
        result = run("separate", several, *words)
        assert "standard output takes one track, not" in result.stderr
        assert result.exit_code == 2
    result = run("separate", album / "missing.wav", *words)
    assert result.exit_code == 1
    assert result.stdout == ""


def test_a_signal_ends_in_one_line_and_the_same_command_goes_on(model_folder, tmp_path, run):
    """Twice: what goes on is stopped by another signal."""
    song, out = store(tmp_path / "long.flac", 40), tmp_path / "out"
    words = ("-n", model_folder, "-d", "cpu", "--shifts", "0")
    run("separate", song, *words, "-o", tmp_path / "whole")

    def kept():
        return max((p.stat().st_size for p in out.rglob(".htdemucs-*.work")), default=0)

    for number in (signal.SIGINT, signal.SIGTERM):
        enough = kept() + 10_000
        process = subprocess.Popen(
            command("separate", song, *words, "-o", out, "--json"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while kept() < enough:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(number)
        output, messages = process.communicate(timeout=60)
        assert process.returncode == 128 + number
        assert "stopped; run the same command again to resume" in messages
        assert "Traceback" not in messages
        assert json.loads(output)["stopped"] is True
        assert not list(out.rglob("*.wav"))
        assert not list(out.rglob("*.partial"))
    result = run("separate", song, *words, "-o", out, "--json")
    [track] = json.loads(result.stdout)["tracks"]
    assert 0 < track["resumed"] < 40
    assert stems(out) == stems(tmp_path / "whole")


def test_killed_at_any_moment_the_same_command_ends_the_same(model_folder, tmp_path, run, album):
    store(album / "long.flac", 15, seed=7)
    words = ("-n", model_folder, "-d", "cpu")
    run("separate", album, *words, "-o", tmp_path / "whole")
    expected, out = stems(tmp_path / "whole"), tmp_path / "out"
    kills = 0
    for moment in (0.0, 0.05, 0.15, 0.3, 0.5):
        process = subprocess.Popen(
            command("separate", album, *words, "-o", out, "-q"), stderr=subprocess.DEVNULL
        )
        while not out.exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(moment)
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        finished = {p.parent for p in out.rglob("htdemucs.json")}
        for name, data in stems(out).items():  # whatever has its name is whole
            assert data == expected[name]
        assert all(len(list(folder.glob("*.wav"))) == 4 for folder in finished)
    assert kills > 2
    assert run("separate", album, *words, "-o", out).exit_code == 0
    assert stems(out) == expected
    assert not list(out.rglob(".htdemucs-*"))


def test_the_residual_and_a_stem_file(run, model_folder, album, tmp_path):
    words = ("separate", album / "one.flac", "-n", model_folder)
    result = run(*words, "-o", tmp_path / "a", "--residual", "write", "--bit-depth", "keep")
    assert result.exit_code == 0, result.output
    written = {p.stem: torch.cat(list(AudioFile(p)), 1) for p in (tmp_path / "a").rglob("*.wav")}
    mixture = torch.cat(list(AudioFile(album / "one.flac")), 1)
    assert set(written) == {"drums", "bass", "other", "vocals", "residual"}
    assert torch.equal(sum(stem.double() for stem in written.values()), mixture.double())
    result = run(*words, "-o", tmp_path / "b", "--stem-file")
    assert result.exit_code == 0, result.output
    [stem_file] = (tmp_path / "b").rglob("*.mp4")
    assert stem_file == tmp_path / "b" / "tiny" / "one" / "one.stem.mp4"
    whole = torch.cat(list(AudioFile(stem_file)), 1)  # its first stream is the mixture
    assert whole.shape == mixture.shape


def test_what_clips_makes_all_stems_softer_and_is_told(run, model_folder, tmp_path):
    path = tmp_path / "loud.wav"
    with AudioWriter(path, 8000, 2, AudioEncoding("wav", bit_depth=32)) as writer:
        writer.write(5 * torch.randn(2, 8000, generator=torch.Generator().manual_seed(0)))
    result = run("separate", path, "-n", model_folder, "-o", tmp_path / "out", "--json")
    [track] = json.loads(result.stdout)["tracks"]
    assert track["gain"] < 1
    assert "all stems lowered by" in result.stderr


def test_a_reader_that_leaves_is_no_traceback(model_folder, album, tmp_path):
    words = ("-n", model_folder, "-d", "cpu", "--stems", "bass", "-o", "-")
    process = subprocess.Popen(
        command("separate", album / "one.flac", *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    messages = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=60)
    assert b"Traceback" not in messages
