"""The model that comes with the package."""

import os
import subprocess
import sys

import torch

from htdemucs import load_model
from htdemucs.weights import registry
from htdemucs.weights.loading import known_config


def test_it_is_small_and_has_the_four_sources():
    model = load_model("mini", device="cpu")
    assert model.sources == ("drums", "bass", "other", "vocals")
    assert (model.sample_rate, model.audio_channels) == (44_100, 2)
    assert sum(p.numel() for p in model.parameters()) <= 6_000_000
    assert (registry.shipped_folder() / "model.safetensors").stat().st_size <= 12_000_000
    assert all(torch.equal(p, p.half().float()) for p in model.parameters())
    assert known_config("mini") == model.config


def test_it_needs_no_network(tmp_path):
    """In a process in which every connection fails and nothing is cached."""
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


def test_it_separates_what_it_has_learnt():
    """Pure examples of each source go to their stem: the loudest of four, by far or a little."""
    model = load_model("mini", device="cpu").eval()
    rate = model.sample_rate
    time = torch.arange(4 * rate) / rate
    bass = 0.3 * torch.sin(2 * torch.pi * 55 * time) * (1 - (time % 0.5)).square()
    clicks = 0.5 * torch.randn(len(time)) * torch.exp(-40 * (time % 0.25))
    for name, sound in (("bass", bass), ("drums", clicks)):
        with torch.no_grad():
            stems = model(sound.expand(1, 2, -1))[0]
        energy = dict(zip(model.sources, stems.square().mean((1, 2)).tolist(), strict=True))
        assert max(energy, key=energy.__getitem__) == name
