"""One command makes the shipped model; nothing is run here but `make -n`."""

import shlex
import subprocess
from pathlib import Path

import pytest

from htdemucs.training import read_config
from recipes.mini import build, evaluate, ship

ROOT = Path(__file__).parents[2]
RECIPE = "recipes/mini/Makefile"


@pytest.fixture(scope="module")
def commands():
    """Return the words of every command from nothing to the card."""
    done = subprocess.run(
        ["make", "-nB", "--no-print-directory", "-f", RECIPE, "REAL=recordings"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [shlex.split(line) for line in done.stdout.replace("\\\n", " ").splitlines()]


def test_each_run_begins_with_the_best_model_of_the_one_before(commands, monkeypatch):
    monkeypatch.chdir(ROOT)
    runs = [read_config(Path(words[4]), words[5:]) for words in commands if words[3] == "train"]
    assert [run.out.name for run in runs] == ["run1", "run2", "run3", "run4", "run5"]
    starts = [None, *(str(run.out / "best") for run in runs[:-1])]
    assert [run.init_from for run in runs] == starts
    assert sum(run.steps for run in runs) == 25_767
    assert {run.optim.loss for run in runs[:4]} == {"l1"}
    assert runs[4].optim.loss == "rms"


def test_the_last_run_is_shipped_and_scored(commands):
    *_, shipped, scored = commands
    assert shipped[2:] == [ship.__name__, "recipes/mini/run5/best"]
    assert scored[2:4] == [evaluate.__name__, "--data"]
    assert {build.__name__} == {words[2] for words in commands if "--hours" in words}
