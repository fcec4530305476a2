"""Files of more than two channels, as programs write them."""

import struct
import subprocess
import sys

import av
import numpy as np
import pytest
import scipy.io.wavfile
import soundfile
import torch

from htdemucs.audio import AudioFile
from htdemucs.audio.convert import mixing_matrix

RATE = 48_000


def stereo(path):
    audio = AudioFile(path, channels=2)
    return torch.cat(list(audio), dim=1), audio.warnings


def mixed(waveform, layout):
    names = [channel.name for channel in av.AudioLayout(layout).channels]
    return mixing_matrix(names, 2) @ waveform


def check(path, waveform, layout, said):
    read, notes = stereo(path)
    assert torch.allclose(read, mixed(waveform, layout), atol=1e-3)
    assert len(notes) == 1
    assert said in notes[0]


@pytest.mark.parametrize("format_", ["WAV", "AIFF", "CAF", "W64", "AU"])
def test_soundfile_writes_no_layout(tmp_path, noise, format_):
    waveform, path = noise(4_000, channels=6), tmp_path / "a"
    soundfile.write(path, waveform.T.numpy(), RATE, format=format_, subtype="PCM_24")
    check(path, waveform, "5.1", "5.1 was assumed")


@pytest.mark.parametrize(
    ("count", "layout"), [(3, "2.1"), (4, "quad"), (5, "5.0"), (8, "7.1"), (10, "5.1.4")]
)
def test_scipy_writes_no_layout(tmp_path, noise, count, layout):
    waveform, path = noise(4_000, channels=count), tmp_path / "a.wav"
    scipy.io.wavfile.write(path, RATE, waveform.T.numpy())
    check(path, waveform, layout, f"{layout} was assumed")


@pytest.mark.parametrize("format_", ["WAV", "OGG"])
def test_nine_channels_give_the_first_two(tmp_path, noise, format_):
    waveform, path = noise(20_000, channels=9), tmp_path / "a"
    soundfile.write(path, waveform.T.numpy(), RATE, format=format_)
    read, notes = stereo(path)
    assert (read - waveform[:2]).square().mean() < 0.02 * waveform[:2].square().mean()
    assert "first two" in notes[0]


def test_matroska_stores_no_layout(tmp_path, noise, make_media):
    waveform = noise(4_000, channels=8)
    path = make_media(tmp_path / "a.mkv", "pcm_f32le", [waveform], layout="7.1", sample_rate=RATE)
    check(path, waveform, "7.1", "7.1 was assumed")


@pytest.mark.parametrize(
    ("layout", "family", "taken_for", "said"),
    [
        ("6 channels", 255, "5.1", "5.1 was assumed"),
        ("3 channels", 255, "2.1", "2.1 was assumed"),
        ("ambisonic 1", 2, "ambisonic 1", "ambisonic"),
    ],
)
def test_opus_without_places(tmp_path, noise, make_media, layout, family, taken_for, said):
    waveform = noise(20_000, channels=av.AudioLayout(layout).nb_channels)
    path = make_media(
        *(tmp_path / "a.opus", "libopus", [waveform], layout, RATE),
        options={"mapping_family": str(family)},
        bit_rate=510_000,
    )
    read, notes = stereo(path)
    expected = mixed(waveform, taken_for)
    assert (read - expected).square().mean() < 0.1 * expected.square().mean()
    assert said in notes[0]


def test_a_stated_layout_needs_no_word(tmp_path, noise):
    waveform, path = noise(4_000, channels=4), tmp_path / "a.wav"
    soundfile.write(path, waveform.T.numpy(), RATE, format="WAVEX", subtype="FLOAT")
    read, notes = stereo(path)
    assert torch.allclose(read, mixed(waveform, "quad"), atol=1e-6)
    assert notes == ()


def test_channels_that_are_not_mixed_need_no_word(tmp_path, noise):
    path = tmp_path / "a.wav"
    scipy.io.wavfile.write(path, RATE, noise(4_000, channels=6).T.numpy())
    audio = AudioFile(path)
    assert torch.cat(list(audio), dim=1).shape == (6, 4_000)
    assert audio.warnings == ()


def test_other_orders_of_channels_are_followed(tmp_path, noise, make_media, forked):
    """As Logic and Pro Tools write them; they made PyAV 18 free memory twice."""
    orders = {0x7B0006: "FL FC FR SL SR LFE", 0x7C0006: "FC FL FR SL SR LFE"}  # MPEG 5.1 C and D
    waveform = noise(4_000, channels=6)
    for tag, order in orders.items():
        path = make_media(tmp_path / f"{tag}.mov", "pcm_f32le", [waveform], layout="5.1(side)")
        data = bytearray(path.read_bytes())
        struct.pack_into(">III", data, data.index(b"chan") + 8, tag, 0, 0)
        path.write_bytes(data)
        expected = mixing_matrix(order.split(), 2) @ waveform
        np.save(path.with_suffix(".npy"), expected.numpy())
    script = (
        "import sys, numpy, torch; from pathlib import Path; from htdemucs.audio import AudioFile\n"
        "for path in Path(sys.argv[1]).glob('*.mov'):\n"
        "    for _ in range(5):\n"
        "        audio = AudioFile(path, channels=2)\n"
        "        read = torch.cat(list(audio), dim=1)\n"
        "    assert numpy.allclose(read, numpy.load(path.with_suffix('.npy')), atol=1e-6)\n"
        "    assert audio.warnings == ()\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=120)
