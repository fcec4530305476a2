"""The model that comes with the package."""

import os
import subprocess
import sys

import torch

import song as example
from htdemucs import Separator, load_model
from htdemucs.evaluation import nsdr
from htdemucs.weights import registry
from htdemucs.weights.load import known_config


def test_it_is_small_and_has_the_four_sources():
    model = load_model("mini", device="cpu")
    assert model.sources == ("drums", "bass", "other", "vocals")
    assert (model.sample_rate, model.audio_channels) == (44_100, 2)
    assert sum(p.numel() for p in model.parameters()) <= 6_000_000
    assert (registry.bundled_folder() / "model.safetensors").stat().st_size <= 12_000_000
    assert all(torch.equal(p, p.half().float()) for p in model.parameters())
    assert known_config("mini") == model.config


def test_it_needs_no_network(tmp_path):
    """The process has empty caches, and every connection fails."""
    code = (
        "import socket\n"
        "def refuse(*_): raise AssertionError('a connection was tried')\n"
        "socket.socket.connect = refuse\n"
        "from htdemucs import load_model\n"
        "load_model('mini', device='cpu')\n"
    )
    environment = os.environ | {"HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "hf").exists()


def test_drums_and_bass_of_the_example_are_nearer_than_the_song():
    """The first weights improved nsdr by 7 and 11 dB; silence would improve it by 4 and 8."""
    model = load_model("mini", device="cpu")
    stems = example.stems()
    mixture = torch.stack(list(stems.values())).sum(0)
    estimates = Separator(model).separate(mixture, example.SAMPLE_RATE)
    for name in ("drums", "bass"):
        assert nsdr(stems[name], estimates[name]) > nsdr(stems[name], mixture) + 5
        assert nsdr(stems[name], estimates[name]) > 2  # silence has 0
