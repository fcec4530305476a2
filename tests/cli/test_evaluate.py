import json
import os
import subprocess
import sys

import pytest
import torch

from evaluation_data import STEMS, write, write_track


@pytest.fixture
def data(tmp_path):
    for i, name in enumerate(("one", "two")):
        write_track(tmp_path / "data" / name, 10 * i, 16_000)
    return tmp_path / "data"


def test_a_model_is_scored(run, data, model_folder, tmp_path):
    out, report = tmp_path / "new" / "scores.json", tmp_path / "report.html"
    result = run(
        "evaluate", model_folder, data, "--json", out, "--report", report, "-d", "cpu",
        "--shifts", "0", "--overlap", "0.1", "--segment", "0.5", "--seed", "3",
        "--batch-size", "2",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    document = json.loads(out.read_text())
    assert list(document["tracks"]) == ["one", "two"]
    options = {"shifts": 0, "overlap": 0.1, "segment": 0.5, "seed": 3, "batch_size": 2}
    assert options.items() <= document["options"].items()
    assert report.read_text().startswith("<!doctype html>")
    for word in (
        *STEMS,
        "all",
        "model",
        "mixture",
        "oracle",
        "nsdr",
        "real-time factor",
        "2 tracks",
    ):
        assert word in result.stdout
    assert f"{document['mean']['all']['nsdr']:.2f}" in result.stdout


def test_estimates_are_scored_with_and_without_a_name(run, data, tmp_path):
    words = ("--estimates", data, "--json", tmp_path / "scores.json", "--no-oracle")
    result = run("evaluate", "spleeter", data, *words)
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "scores.json").read_text())
    assert document["model"]["name"] == "spleeter"
    assert document["oracle"] is None
    assert document["undefined"]["model"]["bass"]["si_sdr"]["inf"] == 2
    assert "tracks left out of si_sdr: bass in 2 (inf), drums in 2 (inf)" in result.stdout
    assert "oracle" not in result.stdout
    assert "estimates" in result.stdout
    result = run("evaluate", data, *words, "--stems", "vocals, bass")
    document = json.loads((tmp_path / "scores.json").read_text())
    assert document["model"]["name"] == "data"
    assert document["stems"] == ["vocals", "bass"]


def test_names_that_are_not_utf8(data, tmp_path, forked):
    """A process of its own runs the command, because it sets up its standard output."""
    name = os.fsdecode(b"caf\xe9")
    try:
        (data / "one").rename(data / name)
    except OSError:
        pytest.skip("this file system has no such names")
    data.rename(tmp_path / name)
    words = ["evaluate", tmp_path / name, "--estimates", tmp_path / name]
    words += ["--json", tmp_path / "s.json", "--report", tmp_path / "s.html"]
    done = subprocess.run(
        [sys.executable, "-m", "htdemucs", *words], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"caf\\udce9: dB over 2 tracks" in done.stdout
    document = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert list(document["tracks"]) == [name, "two"]
    assert "caf\\udce9" in (tmp_path / "s.html").read_text(encoding="utf-8")


def test_quiet_prints_nothing(run, data):
    result = run("evaluate", data, "--estimates", data, "-q")
    assert (result.exit_code, result.output) == (0, "")


def test_a_bad_track_is_named_and_the_others_scored(run, data, tmp_path):
    (data / "one" / "bass.wav").write_bytes(b"nothing")
    result = run("evaluate", data, "--estimates", data, "--json", tmp_path / "scores.json")
    assert result.exit_code == 1
    assert result.stderr.strip().splitlines()[-1] == "error: 1 not scored: one"
    assert "error: one: " in result.stderr
    assert "bass.wav" in result.stderr
    document = json.loads((tmp_path / "scores.json").read_text())
    assert list(document["tracks"]) == ["two"]
    assert list(document["failures"]) == ["one"]


def test_without_any_good_track_nothing_is_written(run, data, tmp_path):
    for name in ("one", "two"):
        (data / name / "bass.wav").write_bytes(b"nothing")
    result = run("evaluate", data, "--estimates", data, "--json", tmp_path / "scores.json")
    assert result.exit_code == 1
    assert "2 not scored: one, two" in result.stderr
    assert not (tmp_path / "scores.json").exists()


def test_silent_stems_are_told(run, data, tmp_path):
    write(data / "one" / "drums.wav", torch.zeros(2, 16_000))
    result = run("evaluate", data, "--estimates", data, "--json", tmp_path / "scores.json")
    assert result.exit_code == 0, result.output
    assert "silent, and left out of the averages: drums in 1 of 2 tracks" in result.stdout


def test_folders_that_are_passed_over_are_noted(run, data, tmp_path):
    write(data / "three" / "bass" / "a1.wav", torch.zeros(2, 10))
    words = ("--report", tmp_path / "page.html", "--no-oracle")
    result = run("evaluate", data, "--estimates", data, *words)
    assert result.exit_code == 0
    assert "three is skipped: audio lies deeper" in " ".join(result.stderr.split())
    assert "three is skipped" in (tmp_path / "page.html").read_text()


def test_notes_go_to_standard_error(run, data):
    write_track(data / "two", 3, 15_000, mixture=False)
    result = run("evaluate", data / "two", "--estimates", data)
    assert result.exit_code == 0
    assert "note: two: the mixture is not the sum of the stems" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["nonsense", "DATA"], "no model nonsense"),
        (["mini", "nowhere"], "nowhere is not a folder"),
        (["MODEL", "DATA", "--stems", "kazoo"], "kazoo"),
        (["MODEL", "DATA", "--stems", "bass,vocals,bass"], "name each stem once"),
        (["MODEL", "DATA", "--metrics", "nsdr,pesq"], "no metric pesq; choose from nsdr"),
        (["MODEL", "DATA", "--segment", "99"], "99"),
        (["MODEL", "DATA", "-d", "gameboy"], "gameboy"),
        (["MODEL", "DATA", "--repo", "nowhere"], "nowhere"),
        (["DATA", "--estimates", "nowhere"], "nowhere"),
        (["MODEL", "DATA", "--json", "DATA"], "is a folder"),
        (["MODEL", "DATA", "--report", "DATA/one/bass.wav/x.html"], "cannot write"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_impossible_requests_end_with_one_line(run, data, model_folder, words, match):
    names = {"DATA": str(data), "MODEL": str(model_folder)}
    for name, path in names.items():
        words = [word.replace(name, path) for word in words]
    result = run("evaluate", *words)
    arguments = "nonsense" in words or words[-1] in ("99", "gameboy", "kazoo") or "--repo" in words
    assert result.exit_code == (2 if arguments else 1)
    assert match in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_wrong_arguments_exit_with_2(run, model_folder):
    assert run("evaluate", model_folder).exit_code == 2
    assert run("evaluate").exit_code == 2
    assert run("evaluate", model_folder, "x", "--workers", "0").exit_code == 2
