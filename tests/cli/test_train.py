import errno
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import torch

import training_data
from htdemucs.training.checkpoint import load


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return training_data.musdb(tmp_path_factory.mktemp("musdb18hq"), tracks=2)


@pytest.fixture(autouse=True)
def _one_thread(forked):
    """Use one thread, as the started processes do: the last bits depend on the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def config(tmp_path, data):
    def make(out="run", **changes):
        fields = training_data.fields(data, tmp_path / out, **changes)
        return training_data.write_config(tmp_path / f"{out}.yaml", fields)

    return make


def start(*words):
    """Start the command in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # for the processes that it starts
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, words)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_step(folder, step):
    """Wait until the log has `step`."""
    path = folder / "log.jsonl"
    for _ in range(1200):
        if path.exists() and any(
            json.loads(line)["step"] >= step
            for line in path.read_text().splitlines(keepends=True)
            if line.endswith("\n")
        ):
            return
        time.sleep(0.1)
    raise AssertionError(f"{folder} never came to step {step}")


def same_model(first, second):
    ours, theirs = load(first), load(second)
    assert ours["step"] == theirs["step"]
    pairs = [(ours["model"][name], theirs["model"][name]) for name in ours["model"]]
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_run_trains_validates_and_saves_a_model(run, config, tmp_path, song):
    path = config()
    result = run("train", path, "steps=4", "optim.lr=1e-2", "pre_valid=true", "keep=2")
    assert "step 0/4\n  valid raw: loss" in result.stderr
    assert result.exit_code == 0, result.output
    assert "2 tracks" in result.stderr
    assert "1 for validation" in result.stderr
    assert "step 4/4" in result.stderr
    assert "valid ema 0.9" in result.stderr
    folder = tmp_path / "run" / "best"
    assert f"htdemucs separate -n {folder}" in result.stderr
    result = run("separate", "-n", folder, song, "-o", tmp_path / "stems")
    assert result.exit_code == 0, result.output
    again = run("train", path, "steps=4", "optim.lr=1e-2", "pre_valid=true", "keep=2")
    assert "resuming after step 4 of 4" in again.stderr
    assert "note" not in again.stderr
    assert again.exit_code == 0
    changed = run("train", path, "steps=5", "optim.loss=mse")
    assert "note: steps was 4 and is now 5" in changed.stderr
    assert "note: optim.loss was l1 and is now mse" in changed.stderr
    assert "note: the best model is scored again, because optim.loss changed" in changed.stderr


def test_a_dry_run_prints_the_cost_of_a_step_and_writes_no_model(run, config, tmp_path):
    result = run("train", config(), "--dry-run")
    assert result.exit_code == 0, result.output
    for words in ("M parameters for drums", "one step of 4 examples", "peak memory", "all 6 steps"):
        assert words in result.stderr
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"cache"}


def test_mistakes_are_one_line(run, config, tmp_path):
    for words, message in (
        (("train", tmp_path / "none.yaml"), "cannot read"),
        (("train", config(), "speed=3"), "unknown key speed"),
        (("train", config(), "data.musdb=/nowhere"), "cannot read /nowhere/train"),
    ):
        result = run(*words)
        assert result.exit_code == 2
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_notes_keep_the_brackets_of_names(run, config, tmp_path):
    music = tmp_path / "[live] takes [24 bit]"
    training_data.track(music / "good", 1)
    (training_data.track(music / "[bad]", 2) / "bass.wav").write_bytes(b"nonsense")
    data = {"train": [str(music)], "workers": 0, "segment": 0.5}
    result = run("train", config("[out]", data=data), "--dry-run")
    assert result.exit_code == 0, result.output
    assert f"note: {music / '[bad]'} is left out: cannot read the sources" in result.stderr


def test_a_stem_of_six_channels_beside_a_stereo_mixture_is_one_line(run, config, tmp_path):
    folder = training_data.track(tmp_path / "music" / "song", 1)
    soundfile.write(folder / "bass.wav", np.zeros((24_000, 6)), training_data.RATE)
    data = {"train": [str(tmp_path / "music")], "workers": 0, "segment": 0.5}
    result = run("train", config(data=data), "--dry-run")
    assert result.stderr.strip() == "error: " + (
        f"{tmp_path / 'music'} has no usable track; "
        "song: a source has 6 channels, the model 2; mix it down"
    )


@pytest.mark.parametrize(
    ("module", "instead"),
    [
        ("accelerate", ""),
        ("tensorboard", ", or set tensorboard=false"),
        ("python_stretch", ", or set augment.repitch=0"),
    ],
)
def test_a_missing_extra_is_named(run, config, monkeypatch, module, instead):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == module else find(name)
    )
    result = run("train", config(tensorboard=True))
    package = module.replace("_", "-")
    assert result.stderr.strip() == "error: " + (
        f"training needs {package}; in the repository, run: pip install '.[train]'{instead}"
    )


def test_after_kill_9_the_same_command_resumes_to_the_same_model(config, tmp_path, run):
    changes = {"steps": 9, "save_every": 2, "log_every": 1, "valid_every": 100}
    process = start("htdemucs", "train", config("cut", **changes | {"steps": 100_000}))
    wait_for_step(tmp_path / "cut", 5)
    process.kill()
    process.communicate()
    reached = load(tmp_path / "cut")["step"]
    assert reached >= 4
    (tmp_path / "cut" / ".5f.partial").touch()  # as a kill in the midst of a write leaves it
    changes["steps"] = reached + 3
    assert run("train", config("cut", **changes)).exit_code == 0
    assert run("train", config("whole", **changes)).exit_code == 0
    assert same_model(tmp_path / "cut", tmp_path / "whole")
    assert not list((tmp_path / "cut").glob(".*.partial"))


def test_a_signal_ends_a_run_with_a_checkpoint(config, tmp_path):
    path = config(steps=100_000, log_every=1, save_every=100_000, valid_every=100_000)
    reached = 0
    for number in (signal.SIGINT, signal.SIGTERM):
        process = start("htdemucs", "train", path, "data.workers=1")
        wait_for_step(tmp_path / "run", reached + 2)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 128 + number
        assert "stopping after this step; press Ctrl-C again to stop now" in errors
        assert "run the same command to resume" in errors
        assert "Traceback" not in errors
        before, reached = reached, load(tmp_path / "run")["step"]
        assert reached >= before + 2


def test_a_second_signal_ends_a_run_at_once(config, tmp_path):
    """Also in a step that does not end."""
    path = config(steps=100_000, log_every=1)
    code = (
        "import sys, threading; from htdemucs.cli.main import main; "
        "from htdemucs.training.trainer import Trainer; "
        "wait = lambda *_: (print('waiting', flush=True), threading.Event().wait()); "
        "Trainer._train_step = wait; "
        f"sys.argv = ['htdemucs', 'train', {str(path)!r}]; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    line = ""
    while not line.startswith("stopping after this step"):
        line = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 128 + signal.SIGINT
    process.communicate()


def test_a_full_disk_is_one_line(run, config, tmp_path, monkeypatch):
    def full(_state, _file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", full)
    result = run("train", config(steps=2, save_every=1))
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        f"error: cannot write to {tmp_path / 'run'}: No space left on device; free some space "
        "there, then run again to resume from the last checkpoint"
    )


def test_two_processes_train_the_same_model_as_one(config, tmp_path, run):
    """`accelerate launch` starts two CPU processes: the batches and steps are the same."""
    changes = {"steps": 4, "valid_every": 2, "optim": {"lr": 1e-3, "ema": [0.9], "clip": 1.0}}
    launcher = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
                "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
                "-m", "htdemucs")  # fmt: skip
    process = start(*launcher, "train", config("two", **changes))
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert errors.count("M parameters for") == 1
    assert "processes: 2" in errors
    assert run("train", config("one", **changes)).exit_code == 0
    ours, theirs = load(tmp_path / "one"), load(tmp_path / "two")
    assert ours["step"] == theirs["step"] == 4
    for name, value in ours["model"].items():
        assert torch.allclose(value, theirs["model"][name], atol=2e-5), name
    one, two = (
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    for first, second in zip(one, two, strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=1e-4)
        assert first["valid"].keys() == second["valid"].keys()
    assert one[-1]["best"]["loss"] == pytest.approx(two[-1]["best"]["loss"], rel=1e-4)
