"""Small official models, as both packages find them in the hub's cache without a network."""

import hashlib

import pytest
import torch

pytest.importorskip("demucs", reason="compatibility needs the published package")

from htdemucs import AudioEncoding
from htdemucs.audio import AudioWriter
from htdemucs.weights.registry import official_models
from reference.conftest import SMALL, SOURCES, build, save_safetensors, save_th

RATE = 11_025  # Hz: a second of the networks takes a third of the time that it takes at 44.1 kHz
SIZES = SMALL | {"samplerate": RATE}


def _stand_in(model, hub, seed):
    """Write a repository of the hub's cache with random networks."""
    sources = [*SOURCES, "guitar", "piano"] if model.name == "htdemucs_6s" else SOURCES
    keywords = SIZES | {"sources": sources}
    repository = hub / f"models--{model.repository.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    members = ", ".join(f"'{member}'" for member in model.members)
    weights = f"weights: {model.weights}\n" if model.weights else ""
    (snapshot / f"{model.name}.yaml").write_text(f"models: [{members}]\n{weights}")
    for number, member in enumerate(model.members):
        network = build(keywords, seed + number)
        save_safetensors(network, keywords, snapshot / f"{member}.safetensors")


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    for seed, name in enumerate(("htdemucs", "htdemucs_ft", "htdemucs_6s")):
        _stand_in(official_models()[name], folder, 10 * seed)
    return folder


@pytest.fixture(autouse=True)
def _offline(hub, tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(hub))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def repo(tmp_path_factory):
    """A folder for `repo`: two networks, one with its checksum, and their bag."""
    folder = tmp_path_factory.mktemp("repo")
    save_th(build(SIZES, 0), SIZES, folder / "aaaaaaa0.th")
    path = save_th(build(SIZES, 1), SIZES, folder / "bbbbbbb1.th")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.rename(folder / f"bbbbbbb1-{digest[:8]}.th")
    (folder / "mine.yaml").write_text(
        "models: ['aaaaaaa0', 'bbbbbbb1']\nweights: [[1, 0, 1, 1], [1, 1, 0, 2]]\nsegment: 0.8\n"
    )
    return folder


def noise(seconds, channels=2):
    """Return noise that gets louder and has an offset, so that normalisation has an effect."""
    length = int(seconds * RATE)
    generator = torch.Generator().manual_seed(length)
    waveform = torch.randn(channels, length, generator=generator)
    return waveform * torch.linspace(0.01, 0.2, length) + 0.02


@pytest.fixture(scope="session")
def song(tmp_path_factory):
    path = tmp_path_factory.mktemp("songs") / "a song.wav"
    with AudioWriter(path, RATE, 2, AudioEncoding("wav", 32)) as writer:
        writer.write(noise(2.3))
    return path
