"""`htdemucs live` through a PulseAudio of this test's own: what is played is heard later.

Real time depends on the machine, so these run with `-m sound` only.
"""

import os
import pty
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

pytestmark = pytest.mark.sound
RATE = 44_100
TIMING = "1,0.5,0.1,0.03,0.5"  # 1.13 s, for machines that do something else too
FORMAT = ["--format=s16le", f"--rate={RATE}", "--channels=2", "--latency-msec=20"]
SINKS = [
    "module-native-protocol-unix",
    f"module-null-sink sink_name=music rate={RATE}",
    f"module-null-sink sink_name=mix rate={RATE}",
]


@pytest.fixture
def server(tmp_path):
    """Return the environment in which PulseAudio runs, and its process."""
    for program in ("pulseaudio", "pacat", "parec"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    pytest.importorskip("sounddevice", exc_type=OSError, reason="PortAudio is not installed")
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    sounds = {"PULSE_SOURCE": "music.monitor", "PULSE_SINK": "mix"}
    environment = os.environ | {"XDG_RUNTIME_DIR": str(runtime), "HOME": str(tmp_path)} | sounds
    words = ["--system=false", "--exit-idle-time=-1", "-n", "--daemonize=no"]
    process = subprocess.Popen(
        ["pulseaudio", *words, *(f"--load={sink}" for sink in SINKS)],
        env=environment, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for _ in range(100):
        if (runtime / "pulse" / "native").exists():
            break
        time.sleep(0.1)
    yield environment, process
    process.terminate()
    process.wait()


def live(environment, **streams):
    """Start the command, and wait until it plays."""
    process = subprocess.Popen(
        [sys.executable, "-m", "htdemucs", "live", "-n", "mini", "--timing", TIMING,
         "--input", "pulse", "--output", "pulse"],
        env=environment, stderr=subprocess.PIPE, **streams,
    )  # fmt: skip
    lines = []
    while b"later" not in (lines or [b""])[-1]:
        lines.append(process.stderr.readline())
        assert lines[-1], lines
    return process, lines[-1].decode()


def recorder(environment, sink, path):
    with path.open("wb") as file:
        words = ["parec", "-d", f"{sink}.monitor", *FORMAT]
        return subprocess.Popen(words, env=environment, stdout=file)


def heard(path):
    samples = np.fromfile(path, "<i2")
    return samples[: len(samples) // 2 * 2].reshape(-1, 2).mean(1)


def test_what_is_played_is_heard_after_the_delay_that_is_stated(server, tmp_path):
    environment, _ = server
    paths = [tmp_path / f"{sink}.raw" for sink in ("music", "mix")]
    recorders = [recorder(environment, path.stem, path) for path in paths]
    process, line = live(environment, stdin=subprocess.DEVNULL)
    time.sleep(1)
    noise = np.random.default_rng(1).uniform(-8000, 8000, (4 * RATE, 2)).astype("<i2")
    subprocess.run(["pacat", "-d", "music", *FORMAT], env=environment, input=noise.tobytes(),
                   check=True)  # fmt: skip
    time.sleep(1.5)
    process.send_signal(2)
    _, messages = process.communicate()
    for one in recorders:
        one.terminate()
        one.wait()
    given, mix = map(heard, paths)
    assert process.returncode == 130
    assert b"the network was late" in messages
    length = 2 * max(len(given), len(mix))
    product = np.conj(np.fft.rfft(given, length)) * np.fft.rfft(mix, length)
    delay = int(np.fft.irfft(product, length)[: length // 2].argmax()) / RATE
    stated = float(line.rsplit(" s later", 1)[0].rsplit(" ", 1)[1])
    assert 1.13 < delay < stated + 0.3, messages


def test_keys_of_a_terminal_and_the_end_of_the_devices(server):
    environment, pulse = server
    ours, theirs = pty.openpty()
    process, _ = live(environment, stdin=theirs)
    killer = threading.Timer(60, process.kill)  # only where it does not end
    killer.start()
    os.write(ours, b"4\x1b[D\x1b[B")  # mute the fourth, choose the one before, lower it
    time.sleep(2)
    pulse.terminate()
    _, messages = process.communicate()
    killer.cancel()
    text = messages.decode()
    assert ">4 vocals mute" in text
    assert ">3 other -2 dB   4 vocals mute" in text
    assert "error: the " in text
    assert "has gone" in text
    assert process.returncode == 1
