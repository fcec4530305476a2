"""`htdemucs live` through a PulseAudio of this test's own: what is played is heard later.

Real time depends on the machine, so these run with `-m sound` only.
"""

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

pytestmark = pytest.mark.sound
RATE = 44_100
LIVE = [sys.executable, "-m", "htdemucs", "live", "--input", "pulse", "--output", "pulse"]
TIMING = "1,0.5,0.1,0.03,0.5"  # 1.13 s, for machines that do something else too
FORMAT = ["--format=s16le", f"--rate={RATE}", "--channels=2", "--latency-msec=20"]
MODULES = [  # with these numbers, from 0
    "module-native-protocol-unix",
    f"module-null-sink sink_name=music rate={RATE}",
    "module-null-sink sink_name=mix rate=48000",
]


@pytest.fixture
def server(tmp_path):
    """Return the environment in which PulseAudio runs, and its process."""
    for program in ("pulseaudio", "pacat", "parec", "pactl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    pytest.importorskip("sounddevice", exc_type=OSError, reason="PortAudio is not installed")
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    sounds = {"PULSE_SOURCE": "music.monitor", "PULSE_SINK": "mix"}
    environment = os.environ | {"XDG_RUNTIME_DIR": str(runtime), "HOME": str(tmp_path)} | sounds
    words = ["--system=false", "--exit-idle-time=-1", "-n", "--daemonize=no"]
    process = subprocess.Popen(
        ["pulseaudio", *words, *(f"--load={module}" for module in MODULES)],
        env=environment, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for _ in range(100):
        if (runtime / "pulse" / "native").exists():
            break
        time.sleep(0.1)
    yield environment, process
    process.send_signal(signal.SIGCONT)
    process.terminate()
    process.wait()


def live(environment, *, until=b"later", **streams):
    """Start the command, wait until it plays, and return it with what it said."""
    words = [*LIVE, "-n", "mini", "--timing", TIMING]
    process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, **streams)
    lines = []
    while until not in (lines or [b""])[-1]:
        lines.append(process.stderr.readline())
        assert lines[-1], lines
    return process, b"".join(lines).decode()


def ended(process):
    """Wait for the end of the command, and return its exit code and what it said."""
    killer = threading.Timer(60, process.kill)  # only where it does not end
    killer.start()
    _, messages = process.communicate()
    killer.cancel()
    return process.returncode, messages.decode()


def recorder(environment, sink, path):
    """Record what a sink plays. Without a recorder a null sink may play up to 2 s late."""
    with path.open("wb") as file:
        words = ["parec", "-d", f"{sink}.monitor", *FORMAT]
        return subprocess.Popen(words, env=environment, stdout=file, stderr=subprocess.DEVNULL)


@pytest.fixture
def recorders(server, tmp_path):
    """Record both sinks; return the paths."""
    paths = [tmp_path / f"{sink}.raw" for sink in ("music", "mix")]
    processes = [recorder(server[0], path.stem, path) for path in paths]
    yield paths
    for process in processes:
        process.terminate()
        process.wait()


def heard(path):
    samples = np.fromfile(path, "<i2")
    return samples[: len(samples) // 4 * 4].reshape(-1, 2).mean(1)


def test_what_is_played_is_heard_after_the_delay_that_is_stated(server, recorders):
    environment, _ = server
    process, said = live(environment, stdin=subprocess.DEVNULL)
    time.sleep(1)
    noise = np.random.default_rng(1).uniform(-8000, 8000, (4 * RATE, 2)).astype("<i2")
    subprocess.run(["pacat", "-d", "music", *FORMAT], env=environment, input=noise.tobytes(),
                   check=True)  # fmt: skip
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    code, messages = ended(process)
    given, mix = map(heard, recorders)
    assert code == 130
    assert "the network was late" in messages
    length = 2 * max(len(given), len(mix))
    product = np.conj(np.fft.rfft(given, length)) * np.fft.rfft(mix, length)
    delay = int(np.fft.irfft(product, length)[: length // 2].argmax()) / RATE
    assert "pulse (music.monitor) -> pulse (mix)" in said
    stated = float(said.rsplit(" s later", 1)[0].rsplit(" ", 1)[1])
    assert 1.13 < delay < stated + 0.3, messages


def test_keys_of_a_terminal_and_the_end_of_the_devices(server):
    environment, pulse = server
    ours, theirs = pty.openpty()
    process, _ = live(environment, stdin=theirs, until=b"keys: ")
    os.write(ours, b"4\x1b[D\x1b[B")  # mute the fourth, choose the one before, lower it
    time.sleep(2)
    pulse.terminate()
    code, messages = ended(process)
    assert ">4 vocals mute" in messages
    assert ">3 other -2 dB   4 vocals mute" in messages
    assert re.search(r"^error: the (input|output) pulse \(.*has gone", messages, re.MULTILINE)
    assert code == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("suspend-sink mix 1", r"pulse (mix) has taken no sound for 5 s: it has gone or is susp"),
        ("suspend-sink music 1", "no sound has come from pulse (music.monitor) for 5 s: it has "),
        ("unload-module 1", "the input music.monitor has gone; start again when it is back"),
        ("unload-module 2", "the output mix has gone; start again when it is back"),
        ("set-default-source mix.monitor", "the input mix.monitor is the monitor of the output mi"),
        (None, "for 5 s: it has gone"),
    ],
)
def test_a_device_that_ends_or_would_be_heard_again_is_said(server, recorders, words, line):
    """With the documented exit code, and not with a signal; None: the server stands still."""
    environment, pulse = server
    process, _ = live(environment, stdin=subprocess.DEVNULL)
    time.sleep(2)
    if words:
        subprocess.run(["pactl", *words.split()], env=environment, check=True)
    else:
        pulse.send_signal(signal.SIGSTOP)
    code, messages = ended(process)
    assert line in messages.splitlines()[-1]
    assert code == 1, messages


def test_an_input_that_is_the_output_is_refused(server):
    environment = server[0] | {"PULSE_SOURCE": "mix.monitor"}
    done = subprocess.run(
        [*LIVE, "-n", "none"], env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, check=False, text=True,
    )  # fmt: skip
    assert "error: the input mix.monitor is the monitor of the output mix" in done.stderr
    assert done.returncode == 1


def test_a_dropout_is_not_followed_by_others(server, recorders):
    """Each pause empties the output. On a machine with other work there may be some more."""
    environment, _ = server
    process, _ = live(environment, stdin=subprocess.DEVNULL)
    for _ in range(3):
        time.sleep(2)
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.3)
        process.send_signal(signal.SIGCONT)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    code, messages = ended(process)
    assert code == 130
    assert 3 <= int(re.search(r"(\d+) dropouts", messages)[1]) <= 9, messages
