"""Tracks through Hybrid Demucs and Demucs equal those of the published engine."""

from fractions import Fraction

import demucs.apply
import pytest
import torch
from demucs.apply import BagOfModels, apply_model
from demucs.demucs import Demucs as PublishedDemucs
from demucs.hdemucs import HDemucs as PublishedHDemucs

from helpers import snr
from htdemucs import Bag, SegmentTooLongError, Separator, load_model

from .conftest import SMALL, SMALL_DEMUCS, SMALL_HDEMUCS, build, save_th

RATE = 2000  # Hz
KEYWORDS = {
    "HDemucs": SMALL_HDEMUCS | {"samplerate": RATE},
    "Demucs": SMALL_DEMUCS | {"samplerate": RATE, "normalize": True},
    "HTDemucs": SMALL | {"samplerate": RATE, "nfft": 512, "depth": 2},
}
CLASSES = {"HDemucs": PublishedHDemucs, "Demucs": PublishedDemucs}
WEIGHTS = [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 1, 1], [1, 0, 1, 0.25]]  # as mdx, nearly


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder of members: two Demucs, two Hybrid Demucs and an HTDemucs."""
    folder = tmp_path_factory.mktemp("members")
    for i, kind in enumerate(["Demucs", "Demucs", "HDemucs", "HDemucs"]):
        keywords = KEYWORDS[kind]
        save_th(build(keywords, i, CLASSES[kind]), keywords, folder / f"aaaaaaa{i}.th")
    save_th(build(KEYWORDS["HTDemucs"], 4), KEYWORDS["HTDemucs"], folder / "aaaaaaa4.th")
    return folder


def published(folder, *numbers):
    return [demucs.states.load_model(folder / f"aaaaaaa{i}.th").eval() for i in numbers]


def ours(folder, *numbers):
    return [load_model(folder / f"aaaaaaa{i}.th", device="cpu") for i in numbers]


def by_the_published_engine(model, waveform, shifts=0, **options):
    mono = waveform.mean(0)
    mean, std = mono.mean(), mono.std() + 1e-8
    level = ((waveform - mean) / std)[None]
    return apply_model(model, level, shifts=shifts, **options)[0] * std + mean


def agree(separator, expected, waveform, rate=RATE):
    stems = separator.separate(waveform, rate)
    for stem, reference in zip(stems.values(), expected, strict=True):
        assert snr(reference, stem) >= 100


def track(length):
    """Return noise that gets louder and has an offset, so that normalisation has an effect."""
    return torch.randn(2, length) * torch.linspace(0.01, 0.3, length) + 0.02


def replay(monkeypatch, offsets):
    """Make the published engine draw these lead-ins."""
    drawn = iter(offsets)
    monkeypatch.setattr(demucs.apply.random, "randint", lambda low, high: next(drawn))


@pytest.mark.parametrize("number", [0, 2], ids=["Demucs", "HDemucs"])
@pytest.mark.parametrize("segments", [0.001, 0.07, 1, 1.01, 3.4])
@pytest.mark.parametrize("shifts", [0, 2])
def test_tracks_of_any_length_agree(folder, number, segments, shifts, monkeypatch):
    separator = Separator(*ours(folder, number), shifts=shifts, seed=11, precision="fp32")
    replay(monkeypatch, separator.shift_offsets())
    waveform = track(int(segments * RATE))
    (model,) = published(folder, number)
    agree(separator, by_the_published_engine(model, waveform, shifts), waveform)


@pytest.mark.parametrize("number", [0, 2], ids=["Demucs", "HDemucs"])
@pytest.mark.parametrize(("segment", "overlap"), [(0.4, 0.25), (2.5, 0.5), (7, 0.1)])
def test_segments_may_be_shorter_and_longer(folder, number, segment, overlap):
    waveform = track(4 * RATE)
    (model,) = published(folder, number)
    expected = by_the_published_engine(model, waveform, segment=segment, overlap=overlap)
    separator = Separator(*ours(folder, number), segment=segment, overlap=overlap, shifts=0)
    agree(separator, expected, waveform)


@pytest.mark.parametrize(("weights", "batch_size"), [(None, 3), (WEIGHTS, 1)])
@pytest.mark.parametrize("segment", [None, 0.5, 2])
def test_bags_of_both_kinds_agree(folder, weights, segment, batch_size, monkeypatch):
    bag = Bag(ours(folder, 0, 1, 2, 3), weights, segment and Fraction(segment))
    separator = Separator(bag, shifts=1, seed=4, batch_size=batch_size, precision="fp32")
    replay(monkeypatch, separator.shift_offsets() * 4)
    waveform = track(int(2.6 * RATE))
    expected = BagOfModels(published(folder, 0, 1, 2, 3), weights, segment)
    agree(separator, by_the_published_engine(expected, waveform, 1), waveform)


def test_a_bag_of_all_three_kinds_agrees(folder):
    """HTDemucs keeps its own segment, which is the longest that it knows."""
    bag = Bag(ours(folder, 0, 2, 4), segment=Fraction(1))
    waveform = track(int(2.6 * RATE))
    expected = BagOfModels(published(folder, 0, 2, 4), None, 1)
    agree(
        Separator(bag, precision="fp32", shifts=0),
        by_the_published_engine(expected, waveform),
        waveform,
    )
    with pytest.raises(SegmentTooLongError):
        Separator(bag, segment=1.5, shifts=0)


def test_one_stem_of_a_bag_runs_only_its_members(folder):
    bag = Bag(ours(folder, 0, 1, 2, 3), WEIGHTS)
    waveform = track(2 * RATE)
    whole = Separator(bag, precision="fp32", shifts=0).separate(waveform, RATE)
    part = Separator(bag, stems=["vocals"], precision="fp32", shifts=0)
    assert len(part.model.members) == 2
    assert snr(whole["vocals"], part.separate(waveform, RATE)["vocals"]) >= 100


def test_a_yaml_with_repetitions_is_that_bag_with_each_member_once(folder):
    text = "models: ['aaaaaaa2', 'aaaaaaa0', 'aaaaaaa2']\nsegment: 2\n"
    (folder / "repeated.yaml").write_text(text)
    bag = load_model("repeated", repo=folder, device="cpu")
    assert [row.tolist() for row in bag.weights] == [[2.0] * 4, [1.0] * 4]
    waveform = track(3 * RATE)
    expected = BagOfModels(published(folder, 2, 0, 2), None, 2)
    agree(
        Separator(bag, precision="fp32", shifts=0),
        by_the_published_engine(expected, waveform),
        waveform,
    )


@pytest.mark.parametrize("numbers", [(0,), (2,), (0, 2, 4)], ids=["Demucs", "HDemucs", "all"])
@pytest.mark.parametrize("shifts", [0, 2])
def test_streaming_equals_separating_the_whole_to_the_bit(folder, numbers, shifts):
    separator = Separator(Bag(ours(folder, *numbers)), shifts=shifts, seed=3)
    waveform = track(int(3.3 * RATE))
    whole = separator.separate(waveform, RATE)
    for size, skip in ((444, 0), (7_500, 3_086)):
        pieces = list(separator.stream(list(waveform.split(size, dim=-1)), skip=skip))
        for name, stem in whole.items():
            assert torch.equal(torch.cat([p[name] for p in pieces], dim=-1), stem[:, skip:])
