"""`htdemucs stream`: standard input to standard output, while it comes in."""

import io
import json
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from htdemucs import AudioEncoding, Normalization, Separator, load_model
from htdemucs.audio import AudioPipe, AudioWriter

pytestmark = pytest.mark.usefixtures("forked")
RUN = [sys.executable, "-m", "htdemucs", "stream", "-d", "cpu"]
RAW = ["--raw", "f32le,8000,2", "--format", "raw", "--bit-depth", "32"]
STEMS = ["drums", "bass", "other", "vocals"]


def noise(length):
    return 0.1 * torch.randn(2, length, generator=torch.Generator().manual_seed(5))


def raw(waveform):
    return waveform.numpy().T.astype("<f4").tobytes()


def waveforms(data):
    """Return the stems (S, C, L) of raw floats."""
    return torch.from_numpy(np.frombuffer(data, "<f4").reshape(-1, 8).T.copy()).unflatten(0, (4, 2))


def joined(stream):
    blocks = list(stream)
    return torch.stack([torch.cat([b[name] for b in blocks], 1) for name in STEMS])


def start(model_folder, *words, stdout=subprocess.PIPE):
    return subprocess.Popen(
        [*RUN, "-n", str(model_folder), *words],
        stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize("level", ["0.01,0.2", "running"])
def test_stems_are_those_of_the_same_stream_in_python_to_the_bit(model_folder, level):
    waveform = noise(20_000)
    process = start(model_folder, *RAW, "--normalization", level)
    output, messages = process.communicate(raw(waveform))
    assert process.returncode == 0, messages
    separator = Separator(load_model(model_folder, device="cpu"), shifts=1)
    given = level if level == "running" else Normalization(0.01, 0.2)
    assert torch.equal(waveforms(output), joined(separator.stream([waveform], given)))


def test_a_wav_at_another_rate_is_as_long_as_it_was(model_folder, tmp_path):
    path = tmp_path / "song.wav"
    with AudioWriter(path, 11_025, 2, AudioEncoding("wav")) as writer:
        writer.write(noise(20_001))
    process = start(model_folder, "--stems", "vocals,bass")
    output, messages = process.communicate(path.read_bytes())
    assert process.returncode == 0, messages
    assert b"vocals, bass: 4 channels in all, 11025 Hz" in messages
    pipe = AudioPipe(io.BytesIO(output), sample_rate=11_025, channels=2)
    assert sum(block.shape[1] for block in pipe) == 20_001


def test_stems_come_out_while_the_track_still_comes_in(model_folder):
    """The delay is a segment, here 1 s, and what FFmpeg and the blocks hold."""
    process = start(model_folder, *RAW)
    killer = threading.Timer(120, process.kill)  # only where nothing comes out
    killer.start()
    process.stdin.write(raw(noise(24_000)))
    process.stdin.flush()
    assert len(process.stdout.read(8 * 4 * 8000)) == 8 * 4 * 8000  # a second of 8 channels
    assert process.poll() is None
    process.communicate()
    killer.cancel()
    assert process.returncode == 0


def test_a_reader_that_leaves_ends_an_endless_stream(model_folder):
    with open("/dev/zero", "rb") as endless:  # noqa: PTH123
        process = subprocess.Popen(
            [*RUN, "-n", str(model_folder), *RAW, "--progress", "json"],
            stdin=endless, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout.read(1_000_000) == bytes(1_000_000)  # some segments
        process.stdout.close()
        told = [json.loads(line) for line in process.stderr]
        process.stderr.close()
    assert process.wait() == 141
    assert told[-1] == {"event": "ended", "exit_code": 141}
    progress = [event for event in told if event["event"] == "progress"]
    assert {(event["track"], event["total"]) for event in progress} == {("-", None)}


@pytest.mark.parametrize("sent", [0, 8 * 16_000])
def test_a_signal_ends_a_stream_that_waits(model_folder, sent):
    """Before its first byte too."""
    process = start(model_folder, *RAW, "--progress", "json", stdout=subprocess.DEVNULL)
    process.stdin.write(bytes(sent))
    process.stdin.flush()
    wanted = b"progress" if sent else b"loaded"
    while wanted not in (line := process.stderr.readline()):
        assert line
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert b"Traceback" not in process.stderr.read()
    process.stdin.close()
    process.stderr.close()


def test_a_signal_ends_a_stream_that_nobody_reads(model_folder):
    """The first stems are more than a pipe holds, so the rest of them waits."""
    process = start(model_folder, *RAW)
    process.stdin.write(bytes(8 * 16_000))
    process.stdin.flush()
    assert process.stdout.read(1) == bytes(1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    _, messages = process.communicate()
    assert b"Traceback" not in messages


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--raw", "s16le"], "--raw must be like"),
        (["--raw", "s16,44100,2"], "no raw samples"),
        (["--normalization", "loud"], "MEAN,STD"),
        (["--normalization", "0,0"], "STD must be above 0"),
        (["--stems", "kazoo"], "kazoo"),
    ],
    ids=" ".join,
)
def test_impossible_requests_end_with_one_line(run, model_folder, words, match):
    result = run("stream", "-d", "cpu", "-n", model_folder, *words)
    assert (result.exit_code, result.stdout) == (1 if "s16,44100,2" in words else 2, "")
    [line] = result.stderr.splitlines()
    assert match in line


def test_silence_and_nothing(model_folder):
    process = start(model_folder)
    _, messages = process.communicate(b"")
    assert process.returncode == 1
    assert b"standard input is empty" in messages
