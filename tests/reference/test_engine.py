"""The engine equals the published one on whole tracks with the same lead-ins."""

import demucs.apply
import pytest
import torch
from demucs.api import Separator as PublishedSeparator
from demucs.apply import BagOfModels, apply_model

from helpers import snr
from htdemucs import Bag, Separator, load_model

from .conftest import SMALL, build, save_safetensors, save_th

RATE = 2000  # Hz, and samples in a segment: the engine's arithmetic is the same as at 44.1 kHz
KEYWORDS = SMALL | {"samplerate": RATE, "nfft": 512, "depth": 2}
WEIGHTS = [[1, 0, 0, 0.5], [0, 1, 0, 0.5], [0, 0, 1, 2]]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("members")
    published = [build(KEYWORDS, seed) for seed in range(3)]
    ours = [
        load_model(save_th(network, KEYWORDS, folder / f"{i}.th"), device="cpu")
        for i, network in enumerate(published)
    ]
    return published, ours


def by_the_published_engine(model, waveform, shifts, overlap=0.25):
    mono = waveform.mean(0)
    mean, std = mono.mean(), mono.std() + 1e-8
    level = ((waveform - mean) / std)[None]
    return apply_model(model, level, shifts=shifts, overlap=overlap)[0] * std + mean


def track(length):
    """Return noise that gets louder and has an offset, so that normalisation has an effect."""
    return torch.randn(2, length) * torch.linspace(0.01, 0.3, length) + 0.02


def replay(monkeypatch, offsets):
    """Make the published engine draw these lead-ins."""
    drawn = iter(offsets)
    monkeypatch.setattr(demucs.apply.random, "randint", lambda low, high: next(drawn))


@pytest.mark.parametrize("segments", [0.07, 1, 1.01, 2.3, 10])
@pytest.mark.parametrize("shifts", [0, 1, 2])
def test_tracks_of_any_length_agree(networks, segments, shifts, monkeypatch):
    published, ours = networks[0][0], networks[1][0]
    separator = Separator(ours, shifts=shifts, seed=11, precision="fp32")
    replay(monkeypatch, separator.shift_offsets())
    waveform = track(int(segments * RATE))
    expected = by_the_published_engine(published, waveform, shifts)
    for stem, reference in zip(separator.separate(waveform, RATE).values(), expected, strict=True):
        assert snr(reference, stem) >= 100


@pytest.mark.parametrize("overlap", [0, 0.1, 0.5, 0.9])
def test_all_overlaps_agree(networks, overlap):
    waveform = track(int(1.7 * RATE))
    expected = by_the_published_engine(networks[0][0], waveform, 0, overlap)
    stems = Separator(networks[1][0], overlap=overlap, precision="fp32", shifts=0).separate(
        waveform, RATE
    )
    for stem, reference in zip(stems.values(), expected, strict=True):
        assert snr(reference, stem) >= 100


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_bags_agree(networks, weights, monkeypatch):
    published, ours = networks
    separator = Separator(Bag(ours, weights), shifts=1, seed=4, precision="fp32")
    replay(monkeypatch, separator.shift_offsets() * 3)
    waveform = track(int(2.3 * RATE))
    expected = by_the_published_engine(BagOfModels(published, weights), waveform, 1)
    for stem, reference in zip(separator.separate(waveform, RATE).values(), expected, strict=True):
        assert snr(reference, stem) >= 100


def test_both_packages_read_the_same_repository_folder(networks, tmp_path, monkeypatch):
    published, _ = networks
    for i, network in enumerate(published):
        save_th(network, KEYWORDS, tmp_path / f"aaaaaaa{i}.th")
    rows = "\n".join(f"  - {row}" for row in WEIGHTS)
    (tmp_path / "mine.yaml").write_text(
        f"models: ['aaaaaaa0', 'aaaaaaa1', 'aaaaaaa2']\nweights:\n{rows}\n"
    )
    theirs = PublishedSeparator(model="mine", repo=tmp_path, shifts=0, device="cpu")
    waveform = track(2 * RATE)
    _, expected = theirs.separate_tensor(waveform.clone(), RATE)
    model = load_model("mine", repo=tmp_path, device="cpu")
    stems = Separator(model, precision="fp32", shifts=0).separate(waveform, RATE)
    assert list(stems) == list(expected)
    for name, stem in stems.items():
        assert snr(expected[name], stem) >= 100


def test_hub_files_give_the_same_network(networks, tmp_path):
    published, ours = networks
    path = save_safetensors(published[0], KEYWORDS, tmp_path / "aaaaaaaa.safetensors")
    loaded = load_model(path, device="cpu")
    for name, value in ours[0].state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
