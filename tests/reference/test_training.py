"""Training against the published data loader and augmentation."""

import random
import sys
from collections import Counter
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

import training_data
from htdemucs.training.augment import draw_pitch_and_tempo
from htdemucs.training.config import AugmentConfig, DataConfig
from htdemucs.training.dataloader import ExcerptSampler, StemDataset, batches
from htdemucs.training.dataset import read_corpus
from htdemucs.training.rng import generator

pytest.importorskip("demucs", reason="parity needs the published package")
OFF = {
    "shift": 0, "flip_channels": False, "flip_sign": False, "scale_min": 1, "scale_max": 1,
    "repitch": 0, "remix_group": 2,
}  # fmt: skip
LENGTH = 4000


def _load(path, frame_offset=0, num_frames=-1):
    samples, rate = soundfile.read(path, num_frames, frame_offset, dtype="float32", always_2d=True)
    return torch.from_numpy(samples.T.copy()), rate


def _info(path):
    info = soundfile.info(path)
    return SimpleNamespace(num_frames=info.frames, sample_rate=info.samplerate)


def _save(path, audio, rate, encoding):
    assert encoding == "PCM_F"
    soundfile.write(path, audio.T.numpy(), rate, "FLOAT")


@pytest.fixture
def published(monkeypatch):
    """The published loader. What it imports but does not need here is not installed."""
    torchaudio = ModuleType("torchaudio")
    torchaudio.load, torchaudio.info, torchaudio.save = _load, _info, _save
    for module in (torchaudio, ModuleType("musdb"), ModuleType("demucs.distrib")):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in ("demucs.wav", "demucs.repitch"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import demucs

    monkeypatch.setattr(demucs, "distrib", sys.modules["demucs.distrib"], raising=False)
    from demucs import wav

    return wav


def test_pitch_and_tempo_have_the_published_distributions(published, monkeypatch):
    from demucs import repitch

    theirs = []
    monkeypatch.setattr(
        repitch, "repitch", lambda wav, pitch, tempo, voice: theirs.append((pitch, tempo)) or wav
    )
    random.seed(0)
    wrapped = repitch.RepitchedWrapper([torch.zeros(4, 2, 100)], proba=0.2)
    for _ in range(100_000):
        wrapped[0]
    theirs = [(pitch, 1 + tempo / 100) for pitch, tempo in theirs[::4]]  # one for each example
    drawn = [
        draw_pitch_and_tempo(AugmentConfig(), generator(0, "repitch", step, 0))
        for step in range(100_000)
    ]
    ours = [pair for pair in drawn if pair != (0, 1.0)]
    assert len(ours) == pytest.approx(20_000, rel=0.03)
    assert len(theirs) == pytest.approx(20_000, rel=0.03)
    for pairs in (ours, theirs):
        count = Counter(pitch for pitch, _ in pairs)
        assert sorted(count) == [-2, -1, 0, 1, 2]
        assert all(n / len(pairs) == pytest.approx(0.2, abs=0.01) for n in count.values())
    our_tempo, their_tempo = (np.array([tempo for _, tempo in pairs]) for pairs in (ours, theirs))
    points = np.linspace(0, 1, 41)
    difference = np.quantile(our_tempo, points) - np.quantile(their_tempo, points)
    assert np.abs(difference).max() < 0.004
    assert our_tempo.min() == pytest.approx(0.88)
    assert our_tempo.max() == pytest.approx(1.12)
    assert our_tempo.std() == pytest.approx(0.0493, abs=0.001)  # 0.05, less by the cut


@pytest.mark.parametrize("mixture", [True, False])
def test_a_batch_is_that_of_the_published_loader(published, tmp_path, mixture):
    """The same excerpts of the same seed, divided by the deviation of each track's mixture."""
    for i, scale in enumerate((1.0, 0.3, 0.05)):
        folder = training_data.track(tmp_path / "train" / f"song {i}", i, mixture=mixture)
        for path in folder.iterdir():
            samples, rate = soundfile.read(path)
            soundfile.write(path, scale * samples + 0.01, rate, "FLOAT")
    sources = list(training_data.SOURCES)
    corpus = read_corpus(
        DataConfig(musdb=tmp_path), sources, channels=2, sample_rate=training_data.RATE,
        cache=tmp_path / "cache",
    )  # fmt: skip
    lengths = [recording.length for recording in corpus.train]
    sampler = ExcerptSampler(lengths, [1.0] * 3, length=LENGTH, remix=1.0, remix_group=2, seed=7)
    dataset = StemDataset(
        corpus.train, sampler, AugmentConfig(**OFF), sources=sources, channels=2,
        sample_rate=training_data.RATE, length=LENGTH, batch_size=8, seed=7,
    )  # fmt: skip
    metadata = published.build_metadata(tmp_path / "train", sources)
    tracks = published.Wavset(
        tmp_path / "train", metadata, sources, samplerate=training_data.RATE, normalize=True
    )
    whole = dict(zip(metadata, (tracks[i] for i in range(3)), strict=True))
    (batch,) = batches(dataset, first=0, last=1)
    for example in range(8):
        for s in range(len(sources)):
            excerpt = sampler.excerpt(0, example, s)
            track = whole[corpus.train[excerpt.recording].name]
            expected = track[s, :, excerpt.start : excerpt.start + LENGTH]
            torch.testing.assert_close(batch[example, 1 + s], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(batch[:, 0], batch[:, 1:].sum(1))
    for recording in corpus.train:
        mean, std = metadata[recording.name]["mean"], metadata[recording.name]["std"]
        assert recording.mean == pytest.approx(mean, rel=1e-4)
        assert recording.std == pytest.approx(std, rel=1e-4)
