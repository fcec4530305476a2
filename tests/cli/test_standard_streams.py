"""Standard streams that are closed, full or left by their reader."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
COMMAND = f"'{sys.executable}' -m htdemucs"


def shell(command, **settings):
    """Return the result of a command line of the shell, with `htdemucs` for the program."""
    command = command.replace("htdemucs", COMMAND, 1)
    return subprocess.run(command, shell=True, check=False, capture_output=True, **settings)


def separate(song, model_folder, *words):
    return f"htdemucs separate '{song}' -n '{model_folder}' -d cpu {' '.join(words)}"


def test_closed_streams_are_like_the_null_device(song, model_folder, tmp_path):
    done = shell(separate(song, model_folder, "-o out", "<&- >&- 2>&-"), cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert len(list(tmp_path.glob("out/tiny/*/*.wav"))) == 4


@pytest.mark.parametrize("progress", ["bar", "json"])
def test_messages_that_cannot_be_written_stop_nothing(song, model_folder, tmp_path, progress):
    words = ("-o out --json --progress", progress, "2>/dev/full")
    done = shell(separate(song, model_folder, *words), cwd=tmp_path)
    assert json.loads(done.stdout)["separated"] == 1
    assert done.returncode == 0


@pytest.mark.parametrize("words", ["--help", "separate --help", "models", "models --json"])
def test_a_result_that_cannot_be_written_is_one_line(words):
    done = shell(f"htdemucs {words} > /dev/full")
    assert done.returncode == 1
    assert done.stderr == b"error: standard output: No space left on device\n"
    assert shell(f"htdemucs {words} > /dev/full 2>&1").returncode == 1
    assert shell(f"htdemucs {words} >&-").returncode == 0


def test_stems_on_a_full_standard_output_are_one_line(song, model_folder, tmp_path):
    for command in (
        separate(song, model_folder, "-q -o - --stems vocals > /dev/full"),
        f"htdemucs stream -q -n '{model_folder}' -d cpu < '{song}' > /dev/full",
    ):
        done = shell(command, cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr == b"error: standard output: No space left on device\n"


def test_a_reader_that_leaves_is_no_error_message():
    done = shell("htdemucs models | head -c 1; exit ${PIPESTATUS[0]}", executable="/bin/bash")
    assert (done.returncode, done.stderr) in ((141, b""), (0, b""))  # it may have been quicker
