"""Programs as people write them for `demucs` write the same files with this package."""

import io
import json
import os
import random
import runpy
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path
from types import SimpleNamespace

import demucs.separate as published_separate
import pytest
import torch

from helpers import snr
from htdemucs import ConfigError
from htdemucs.audio import AudioFile
from htdemucs.compat import install
from htdemucs.compat.__main__ import SUBPROCESS_PATH
from htdemucs.weights import demucs_format, load_model

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))
ROUNDING = 2**-21  # of full scale: a step of 24 bits, and the other way to round


@pytest.fixture
def modules():
    """Restore the modules named `demucs`, and who finds them."""

    def named():
        return {name: module for name, module in sys.modules.items() if name[:6] == "demucs"}

    saved, finders = named(), list(sys.meta_path)
    yield
    sys.meta_path[:] = finders
    for name in named():
        del sys.modules[name]
    sys.modules.update(saved)


def run(program, words, monkeypatch):
    """Run a program in this process."""
    with monkeypatch.context() as patch:
        patch.setattr(random, "randint", random.Random(3).randint)
        patch.setenv("PATH", os.defpath)  # the published package looks for ffmpeg and ffprobe
        patch.setattr(sys, "argv", [str(program), *map(str, words)])
        patch.setattr("tqdm.tqdm", sys.modules["tqdm"].tqdm)  # some replace it
        runpy.run_path(str(program), run_name="__main__")


def without_a_process(words, **_):
    """Run the published command, `python -m demucs` with words."""
    shown = io.StringIO()
    with redirect_stderr(shown):
        published_separate.main(words[3:])
    return SimpleNamespace(stderr=shown.getvalue())


def assert_same_files(expected, actual):
    names = sorted(path.relative_to(expected) for path in expected.rglob("*.*"))
    assert names
    assert sorted(path.relative_to(actual) for path in actual.rglob("*.*")) == names
    for name in names:
        if name.suffix == ".json":
            assert json.loads((actual / name).read_text()) == json.loads(
                (expected / name).read_text()
            )
        elif name.name != "text.wav":
            theirs, ours = AudioFile(expected / name), AudioFile(actual / name)
            assert (ours.codec, ours.sample_rate) == (theirs.codec, theirs.sample_rate)
            wanted, got = (torch.cat(list(reader), dim=-1) for reader in (theirs, ours))
            if theirs.bit_depth == 32:
                assert snr(wanted, got) >= 100, name
            else:
                assert (got - wanted).abs().max() <= ROUNDING


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_programs_write_the_same_files(program, song, repo, tmp_path, modules, monkeypatch):
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()
    if program.stem == "safe_globals":
        network = load_model(repo / "aaaaaaa0.th", device="cpu")
        demucs_format.write(network, tmp_path / "safe.th")
    if program.stem == "subprocesses":  # in which no module can be exchanged; theirs need none
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "run", without_a_process)
            run(program, [song, tmp_path / "theirs"], monkeypatch)
        ours = [sys.executable, "-m", "htdemucs.compat", "--replace", program, song]
        subprocess.run([*ours, tmp_path / "ours"], check=True)
    else:
        run(program, [song, tmp_path / "theirs", repo], monkeypatch)
        install(replace=True)
        run(program, [song, tmp_path / "ours", repo], monkeypatch)
    assert_same_files(tmp_path / "theirs", tmp_path / "ours")


def test_an_installed_demucs_is_not_hidden_by_accident(modules):
    with pytest.raises(ConfigError, match=r"another demucs is installed at .*demucs/__init__\.py"):
        install()
    import demucs

    import htdemucs.compat

    assert not Path(demucs.__file__).is_relative_to(Path(htdemucs.compat.__file__).parent)


def test_a_program_may_start_programs_that_need_it(modules, monkeypatch):
    """As by the script named `demucs`, which runs the command in a process of the program."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "demucs"]:
        del sys.modules[name]
    monkeypatch.syspath_prepend(SUBPROCESS_PATH)
    install()
    import demucs

    assert demucs is sys.modules["htdemucs.compat.demucs"]


def test_installing_gives_the_modules_themselves(modules):
    install(replace=True)
    install()  # again: there is no other one now
    import demucs.api
    from demucs.apply import BagOfModels

    import htdemucs.compat.demucs.api
    import htdemucs.compat.networks

    assert demucs.api is htdemucs.compat.demucs.api
    assert BagOfModels is htdemucs.compat.networks.BagOfModels
    assert demucs.api.__spec__.name == "htdemucs.compat.demucs.api"
    with pytest.raises(ModuleNotFoundError, match=r"demucs\.solver"):
        import demucs.solver


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "specify a program"),
        (["--replace", "nothing.py"], "error: there is no program nothing.py"),
        (["--replace", "-m", "nothing.at.all"], "error: there is no module nothing.at.all"),
        (["--replace", "-c"], "specify a program"),
        (["--replace", "-m", "demucs.api"], "no tracks given"),
        (["program.py"], "pass --replace"),
        (["--replace", "-m", "demucs", "--nonsense"], "unrecognized arguments"),
        (["--replace", "-m", "demucs.separate"], "no tracks given"),
    ],
)
def test_what_cannot_be_run_says_why(words, message, forked):
    command = [sys.executable, "-m", "htdemucs.compat", *words]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_code_on_the_command_line_is_run(forked):
    code = "import sys, demucs.utils; print(demucs.utils.__name__, sys.argv, __name__)"
    command = [sys.executable, "-m", "htdemucs.compat", "--replace", "-c", code, "--option"]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    assert ended.stdout == "htdemucs.compat.demucs.utils ['-c', '--option'] __main__\n"


def test_processes_without_this_package_find_their_own_demucs(tmp_path):
    """As a program does that starts the Python of another environment."""
    (tmp_path / "demucs.py").write_text("print('their own')")
    paths = [str(SUBPROCESS_PATH), str(tmp_path)]
    code = f"import sys; sys.path[:0] = {paths!r}; import demucs"
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "their own\n"
