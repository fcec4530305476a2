"""`--progress json`: events are lines of JSON on standard error."""

import json
import signal
import subprocess
import sys
import warnings
from itertools import groupby
from pathlib import Path

import pytest
import torch

from htdemucs import AudioEncoding
from htdemucs.audio import AudioWriter
from htdemucs.separation import runner

pytestmark = pytest.mark.usefixtures("forked")
RUN = [sys.executable, "-m", "htdemucs"]


def events(text):
    return [json.loads(line) for line in text.splitlines()]


def kinds(told):
    return [kind for kind, _ in groupby(event["event"] for event in told)]


@pytest.fixture
def words(model_folder, tmp_path):
    return ["-n", str(model_folder), "-d", "cpu", "-o", str(tmp_path / "out"), "--progress", "json"]


def test_a_track_tells_its_story_and_standard_output_is_as_ever(run, words, song, tmp_path):
    (tmp_path / "broken.flac").write_bytes(b"nothing")
    result = run("separate", song, tmp_path / "broken.flac", *words, "--json")
    assert result.exit_code == 1
    told = events(result.stderr)
    assert told[:3] == [
        {"event": "found", "tracks": 2},
        {"event": "loading", "model": words[1]},
        {"event": "loaded", "model": words[1], "device": "cpu"},
    ]
    assert kinds(told[3:]) == [
        "started", "reading", "progress", "written", "finished", "started", "failed", "ended",
    ]  # fmt: skip
    assert told[-1] == {"event": "ended", "exit_code": 1}
    progress = [event for event in told if event["event"] == "progress"]
    assert (progress[-1]["done"], progress[-1]["total"]) == (2.5, 2.5)
    [separated, failed] = json.loads(result.stdout)["tracks"]
    [finished] = [event for event in told if event["event"] == "finished"]
    written = {e["stem"]: e["path"] for e in told if e["event"] == "written"}
    assert finished["files"] == written == separated["files"]
    assert told[-2] == {"event": "failed", "track": failed["track"], "error": failed["error"]}


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["separate"], 2, "no tracks given"),
        (["separate", "x.wav"], 1, "x.wav does not exist"),
        (["separate", "SONG", "--overlap", "4"], 2, "overlap must be"),
        (["separate", "SONG", "--mp3", "--flac"], 2, "choose one format"),
        (["separate", "SONG", "-n", "htdemux"], 2, "no model htdemux"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_that_cannot_work_says_so_in_json(
    run, song, model_folder, arguments, code, reason
):
    arguments = [song if word == "SONG" else word for word in arguments]
    model = [] if "-n" in arguments or len(arguments) < 2 else ["-n", model_folder]
    result = run(*arguments, *model, "--progress=json")
    assert result.exit_code == code
    assert result.stdout == ""
    told = events(result.stderr)
    assert told[-1] == {"event": "ended", "exit_code": code}
    assert told[-2]["event"] == "failed"
    assert told[-2]["track"] == (str(arguments[1]) if code == 1 else None)
    assert reason in told[-2]["error"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["separate", "--nonsense"], "No such option '--nonsense'"),
        (["separate", "x.wav", "--overlap", "much"], "'--overlap'"),
        (["separate", "x.wav", "--clip-mode", "loud"], "'--clip-mode'"),
        (["sepperate", "x.wav"], "sepperate"),
        (["batch"], "'SOURCE'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_arguments_that_cannot_be_read_are_one_line_of_text(run, arguments, reason):
    result = run(*arguments, "--progress=json")
    assert result.exit_code == 2
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert reason in line


def test_warnings_are_events(run, words, song, monkeypatch):
    quiet = runner.Runner._run

    def noisy(self, *arguments):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("something is odd", stacklevel=1)
        return quiet(self, *arguments)

    monkeypatch.setattr(runner.Runner, "_run", noisy)
    told = events(run("separate", song, *words).stderr)
    assert {"event": "warned", "track": None, "text": "something is odd"} in told
    assert told[-1] == {"event": "ended", "exit_code": 0}


def test_details_are_notes(run, words, song):
    told = events(run("separate", song, *words, "--verbose").stderr)
    notes = [event["text"] for event in told if event["event"] == "noted"]
    assert any("model.safetensors" in note for note in notes)
    again = events(run("separate", song, *words).stderr)
    assert kinds(again) == ["found", "loading", "loaded", "started", "finished", "ended"]
    assert again[-2]["status"] == "skipped"


def test_an_unexpected_error_is_told_with_its_traceback_as_notes(run, words, song, monkeypatch):
    monkeypatch.setattr("htdemucs.batch.find_tracks", lambda *_: 1 / 0)
    result = run("separate", song, *words)
    assert result.exit_code == 1
    told = events(result.stderr)
    assert kinds(told) == ["noted", "failed", "ended"]
    assert told[0]["text"] == "Traceback (most recent call last):"
    assert "ZeroDivisionError" in told[-2]["error"]


def test_a_lack_of_memory_is_an_expected_error(run, words, song, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr("htdemucs.batch.find_tracks", fail)
    result = run("separate", song, *words)
    assert result.exit_code == 1
    told = events(result.stderr)
    assert kinds(told) == ["failed", "ended"]
    assert told[0]["error"].startswith("out of memory; close other programs")


def test_one_stem_to_standard_output(words, song, tmp_path):
    """The stem is there as ever, and its place is "-"."""
    flags = [word if word != str(tmp_path / "out") else "-" for word in words]
    process = subprocess.run(
        [*RUN, "separate", str(song), *flags, "--stems", "bass"], capture_output=True, check=True
    )
    assert process.stdout.startswith(b"RIFF")
    told = events(process.stderr.decode())
    assert [e["path"] for e in told if e["event"] == "written"] == ["-"]
    assert [e["files"] for e in told if e["event"] == "finished"] == [{"bass": "-"}]


def test_a_signal_ends_the_lines_with_its_exit_code(model_folder, tmp_path):
    song = tmp_path / "long.flac"
    with AudioWriter(song, 8000, 2, AudioEncoding("flac")) as writer:
        writer.write(0.1 * torch.randn(2, 8000 * 60, generator=torch.Generator().manual_seed(1)))
    words = ["-n", str(model_folder), "-o", str(tmp_path / "out"), "--progress", "json"]
    with subprocess.Popen(
        [*RUN, "separate", str(song), *words], stderr=subprocess.PIPE, text=True
    ) as process:
        told = []
        for line in process.stderr:
            told.append(json.loads(line))
            if len(told) == 6:
                assert told[-1]["event"] == "progress"
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    assert told[-1] == {"event": "ended", "exit_code": 130}
    assert not list(tmp_path.rglob("*.wav"))


def test_a_reader_that_leaves_stops_nothing(words, song, tmp_path):
    process = subprocess.Popen([*RUN, "separate", str(song), *words], stderr=subprocess.PIPE)
    process.stderr.close()
    assert process.wait() == 0
    assert len(list(Path(tmp_path / "out").rglob("*.wav"))) == 4
