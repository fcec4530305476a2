"""`htdemucs live`: what is playing, separated while it plays; here through pipes."""

import io
import json
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from htdemucs import AudioEncoding, LiveSeparator, Separator, Timing, load_model
from htdemucs.audio import AudioPipe, AudioWriter
from htdemucs.cli.live import press
from htdemucs.stems.mixer import Mixer

pytestmark = pytest.mark.usefixtures("forked")
RUN = [sys.executable, "-m", "htdemucs", "live", "-d", "cpu"]
RAW = ["--raw", "f32le,8000,2", "--format", "raw", "--bit-depth", "32"]
TIMING = "1,0.2,0.1,0.03,0.1"
DELAY = 3440  # samples at 8000 Hz


def noise(length):
    return 0.1 * torch.randn(2, length, generator=torch.Generator().manual_seed(5))


def raw(waveform):
    return waveform.numpy().T.astype("<f4").tobytes()


def waveform_of(data):
    return torch.from_numpy(np.frombuffer(data, "<f4").reshape(-1, 2).T.copy())


def start(model_folder, *words):
    return subprocess.Popen(
        [*RUN, "-n", str(model_folder), "--timing", TIMING, *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_the_mix_is_that_of_the_same_stream_in_python_to_the_bit(model_folder):
    waveform = noise(20_000)
    process = start(model_folder, *RAW, "--stems", "vocals=0,drums=0.5")
    output, messages = process.communicate(raw(waveform))
    assert process.returncode == 0, messages
    assert b"2 channels, 8000 Hz, 0.430 s later" in messages
    separator = Separator(load_model(model_folder, device="cpu"), segment=1, shifts=0)
    live = LiveSeparator(separator, Timing(0.2, 0.1, 0.03, 0.1))
    assert live.delay == DELAY
    mixer = Mixer(live.stems, {"vocals": 0, "drums": 0.5})
    expected = [mixer.mix(live.push(waveform)), mixer.mix(live.finish())]
    assert torch.equal(waveform_of(output), torch.cat(expected, dim=-1))


def test_a_wav_at_another_rate_on_a_machine_that_is_measured(model_folder, tmp_path):
    """What comes out is as long as the input and the delay; events say what happens."""
    path = tmp_path / "song.wav"
    with AudioWriter(path, 11_025, 2, AudioEncoding("wav")) as writer:
        writer.write(noise(20_001))
    words = ["--latency", "0.9", "--stems", "vocals,bass", "--progress", "json"]
    with path.open("rb") as file:
        done = subprocess.run(
            [*RUN, "-n", str(model_folder), *words], stdin=file, capture_output=True, check=False
        )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [e["event"] for e in events if e["event"] != "progress"] == [
        "loading", "loaded", "started", "written", "finished", "ended",
    ]  # fmt: skip
    pipe = AudioPipe(io.BytesIO(done.stdout), sample_rate=11_025, channels=2)
    length = sum(block.shape[1] for block in pipe)
    assert length == pytest.approx(20_001 + 0.9 * 11_025, abs=3)


def test_sound_comes_out_while_more_comes_in(model_folder):
    process = start(model_folder, *RAW)
    killer = threading.Timer(120, process.kill)  # only where nothing comes out
    killer.start()
    process.stdin.write(raw(noise(16_000)))
    process.stdin.flush()
    assert len(process.stdout.read(8 * 12_000)) == 8 * 12_000
    assert process.poll() is None
    process.send_signal(2)
    _, messages = process.communicate()
    killer.cancel()
    assert process.returncode == 130
    assert b"Traceback" not in messages


def test_fresh_sound_is_that_which_comes_when_the_network_is_ready(model_folder):
    """So a recorder's sound does not wait for it, and is not late for ever."""
    process = start(model_folder, *RAW, "--fresh")
    started = threading.Event()

    def record():
        while not started.is_set():
            process.stdin.write(raw(torch.ones(2, 160)))
            started.wait(0.02)
        process.stdin.write(raw(-torch.ones(2, 8000)))
        process.stdin.close()

    recorder = threading.Thread(target=record)
    recorder.start()
    heard = process.stdout.read(8 * DELAY)
    started.set()
    recorder.join()
    with process.stdout, process.stderr:
        heard += process.stdout.read()
        assert process.wait() == 0, process.stderr.read()
    assert not any(heard[: 8 * DELAY])  # silence goes first, as always
    written = len(heard) // 8 - DELAY - 8000
    assert 0 < written < 2 * 8000  # of what came while the network was loaded, nearly nothing


def test_fresh_sound_of_nothing_is_said(run, model_folder):
    result = run("live", "-n", model_folder, "-d", "cpu", "--fresh", "--timing", TIMING)
    assert result.stderr.strip() == "error: standard input is empty; send audio to it"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--latency", "soon"], "--latency must be auto or seconds up to 60, not soon"),
        (["--timing", "1,2"], "--timing must be five numbers"),
        (["--timing", "1,0.9,0.2,0.03,0"], "longer than the segment of 1 s"),
        (["--timing", "2,0.1,0.1,0.03,0"], "lower the segment"),
        (["--stems", "vocals=loud"], "--stems must be like"),
        (["--stems", "guitar=0"], "no stem guitar; this model has drums, bass, other, vocals"),
        (["--stems", "bass=9"], "the gain of bass must be from 0 to 3.98"),
        (["--latency", "0.0001"], "a latency of 0.0001 s is too short"),
    ],
)
def test_what_cannot_be_is_refused(run, model_folder, words, reason):
    result = run("live", "-n", model_folder, "-d", "cpu", *words)
    assert reason in result.stderr


def gains(mixer):
    return [round(gain, 3) for gain in mixer.gains()]


def test_keys_change_the_gains_as_on_the_page():
    mixer, selected = Mixer(["drums", "bass", "vocals"]), 0
    for key, expected in [
        ("2", [1, 0, 1]),
        ("@", [0, 1, 0]),  # Shift+2: a solo overrides a mute
        ("!", [1, 1, 0]),
        ("@", [1, 0, 0]),
        ("!", [1, 0, 1]),
        ("right", [1, 0, 1]),
        ("right", [1, 0, 1]),
        ("up", [1, 0, 1.259]),
        ("s", [0, 0, 1.259]),
        ("S", [1, 0, 1.259]),
        ("-", [1, 0, 1]),
        ("m", [1, 0, 0]),
        ("4", [1, 0, 0]),  # no such stem
        ("x", [1, 0, 0]),
        ("", [1, 0, 0]),
        ("left", [1, 0, 0]),
        ("m", [1, 1, 0]),
    ]:
        pressed = press(key, mixer, selected)
        selected = selected if pressed is None else pressed
        assert gains(mixer) == expected, key
    assert mixer.describe(2) == " 1 drums +0 dB   2 bass +0 dB  >3 vocals mute"


def test_a_volume_goes_down_to_silence_and_comes_back():
    mixer = Mixer(["drums"])
    for _ in range(31):
        mixer.adjust_gain(0, -1)
    assert mixer.gains() == [0.0]
    assert "-inf dB" in mixer.describe(0)
    mixer.adjust_gain(0, 1)
    assert 20 * np.log10(mixer.gains()[0]) == pytest.approx(-60)
    for _ in range(40):
        mixer.adjust_gain(0, 1)
    assert 20 * np.log10(mixer.gains()[0]) == pytest.approx(12)


def test_a_gain_that_changes_gets_there_within_a_block():
    mixer, stems = Mixer(["one", "two"]), {"one": torch.ones(2, 100), "two": torch.zeros(2, 100)}
    assert torch.equal(mixer.mix(stems), torch.ones(2, 100))
    mixer.mute(0)
    fading = mixer.mix(stems)
    assert fading[0, 0] == pytest.approx(0.99)
    assert fading.diff().abs().max() == pytest.approx(0.01, rel=1e-3)
    assert not mixer.mix(stems).any()


def test_the_devices_are_listed(run, portaudio):
    result = run("live", "--list-devices")
    assert result.exit_code == 0
    assert "Microphone, ALSA" in result.stdout
    assert "48000" in result.stdout


def test_no_such_device_is_said_before_the_model_is_looked_for(run, portaudio):
    result = run("live", "-n", "nothing", "--input", "Nothing")
    assert result.stderr.strip() == "error: no input device 'Nothing'; see the list of devices"


def test_from_a_card_to_a_card_until_it_goes(run, portaudio, model_folder, monkeypatch):
    """The keys are those of a terminal; this test presses them."""
    keys = iter([None, "", "1", "q"])
    monkeypatch.setattr("htdemucs.cli.keyboard.Keyboard.wait", lambda *_: next(keys))
    portaudio.rates = {8000}
    words = ("live", "-n", model_folder, "-d", "cpu", "--timing", TIMING)
    portaudio.infos[2]["default_samplerate"] = 8000.0
    result = run(*words, "--input", "Both", "--output", "Both")
    assert result.exit_code == 0, result.exception
    assert "Both -> Both, 8000 Hz, 0.53 s later" in result.stderr
    assert ">1 drums mute" in result.stderr
    assert "received" in result.stderr
    assert portaudio.closed == 2
