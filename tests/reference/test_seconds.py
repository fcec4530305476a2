"""Wherever the published package turns seconds into samples, the numbers are the same here."""

import random
from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch
from demucs.apply import BagOfModels, apply_model
from demucs.demucs import Demucs as PublishedDemucs
from demucs.hdemucs import HDemucs as PublishedHDemucs
from demucs.htdemucs import HTDemucs as PublishedHTDemucs
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import nn

from helpers import snr
from htdemucs import (
    Bag,
    DemucsConfig,
    HDemucsConfig,
    HTDemucsConfig,
    Normalization,
    Separator,
    load_model,
)
from htdemucs.compat.demucs.apply import apply_model as compatible
from htdemucs.model import Network

from .conftest import SMALL, SMALL_DEMUCS, SMALL_HDEMUCS, build, save_safetensors, save_th

RATES = st.sampled_from([8000, 11_025, 22_050, 44_100, 48_000]) | st.integers(1000, 192_000)


def seconds(most):
    """Return a strategy: decimals, any floats, whole numbers and fractions."""
    return (
        st.decimals("0.01", str(most), places=2).map(float)
        | st.floats(0.01, most)
        | st.integers(1, max(1, most))
        | st.fractions(Fraction(1, 100), most, max_denominator=1000)
    )


@given(seconds(60), RATES)
@example(0.7, 44_100)
@example(1.13, 44_100)
@example(Fraction(39, 5), 44_100)
def test_a_training_segment(segment, rate):
    theirs = SimpleNamespace(use_train_segment=True, segment=segment, samplerate=rate)
    config = HTDemucsConfig(segment=segment, sample_rate=rate)
    assert config.segment_length == PublishedHTDemucs.valid_length(theirs, 0)
    again = HTDemucsConfig.from_dict(config.to_dict())
    assert again.segment_length == config.segment_length


@given(st.integers(1, 200_000), st.integers(1, 6))
def test_a_window_of_demucs(length, depth):
    theirs = SimpleNamespace(resample=True, depth=depth, kernel_size=8, stride=4)
    config = DemucsConfig(depth=depth, norm_starts=4)
    assert config.window_length(length, 0) == PublishedDemucs.valid_length(theirs, length)


class Theirs(nn.Module):
    """A network for the published engine that notes the lengths that it gets."""

    def __init__(self, segment, rate):
        super().__init__()
        self.segment, self.samplerate, self.seen = segment, rate, []
        self.sources, self.audio_channels = ["a", "b"], 2
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, mixture):
        self.seen.append(mixture.shape[-1])
        return torch.zeros(len(mixture), 2, 2, mixture.shape[-1])


class Ours(Network):
    """The same for ours."""

    def __init__(self, config, seen):
        super().__init__(config)
        self.unused = nn.Parameter(torch.zeros(1))
        self.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-1]))

    def forward(self, mixture):
        return torch.zeros(len(mixture), 2, 2, mixture.shape[-1])


@settings(max_examples=50)
@given(seconds(1), st.none() | seconds(1), st.integers(1000, 48_000), st.floats(0, 0.9))
@example(0.35, None, 44_100, 0.25)
@example(1, 0.57, 44_100, 0.25)
def test_segments_and_strides(own, segment, rate, overlap):
    theirs, seen, drawn = Theirs(own, rate), [], []
    ours = Ours(HDemucsConfig(("a", "b"), segment=own, sample_rate=rate), seen)
    separator = Separator(ours, segment=segment, overlap=overlap, shifts=0)
    assume(int((1 - overlap) * separator.segment_length) > 0)  # else the published one fails
    mixture = torch.zeros(2, int(2.1 * separator.segment_length))
    options = {"segment": segment, "overlap": overlap}
    starts = []
    apply_model(
        theirs,
        mixture[None],
        shifts=0,
        callback=lambda d: starts.append(d["segment_offset"]) if d["state"] == "start" else None,
        **options,
    )
    separator.separate(mixture, rate)
    assert seen == theirs.seen
    assert starts == list(range(0, mixture.shape[-1], separator.stride))
    seen.clear()
    compatible(ours, mixture[None], shifts=0, **options)
    assert seen == theirs.seen
    with pytest.MonkeyPatch.context() as patch:  # Python's generator, which both draw from
        patch.setattr(random, "randint", lambda low, high: drawn.append((low, high)) or low)
        apply_model(theirs, mixture[None, :, :10], shifts=1)
        compatible(ours, mixture[None, :, :10], shifts=1)
    assert drawn[0] == drawn[1]
    offset = Separator(ours, shifts=1)._first_starts()[0]
    assert -drawn[0][1] <= offset <= 0


@settings(max_examples=50)
@given(seconds(10), seconds(10), RATES)
@example(Fraction(7, 10), 0.7, 44_100)
@example(0.7, Fraction(7, 10), 44_100)
def test_a_segment_of_a_bag(own, segment, rate):
    theirs = PublishedHTDemucs.__new__(PublishedHTDemucs)
    nn.Module.__init__(theirs)
    theirs.segment, theirs.samplerate, theirs.use_train_segment = own, rate, True
    theirs.sources, theirs.audio_channels = ["a", "b"], 2
    BagOfModels([theirs], segment=segment)
    ours = Bag([Ours(HTDemucsConfig(("a", "b"), segment=own, sample_rate=rate), [])], None, segment)
    assert Separator(ours, shifts=0).segment_length == theirs.valid_length(0)


RATE = 5700  # Hz, at which a segment of each network is a sample longer as a fraction
NETWORKS = {
    "HTDemucs": (
        SMALL | {"nfft": 512, "depth": 2, "samplerate": RATE, "segment": 0.35},
        PublishedHTDemucs,
    ),
    "HDemucs": (SMALL_HDEMUCS | {"samplerate": RATE, "segment": 0.57}, PublishedHDemucs),
    "Demucs": (SMALL_DEMUCS | {"samplerate": RATE, "segment": 0.69}, PublishedDemucs),
}


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("segment", [None, 0.35])
def test_tracks_through_checkpoints_whose_segment_is_a_float_agree(kind, segment, tmp_path):
    keywords, published = NETWORKS[kind]
    theirs = build(keywords, 0, published)
    waveform = 0.1 * torch.randn(2, 5000)
    expected = apply_model(theirs, waveform[None], shifts=0, segment=segment)[0]
    for save, name in ((save_th, "0000000a.th"), (save_safetensors, "0000000a.safetensors")):
        ours = load_model(save(theirs, keywords, tmp_path / name), device="cpu")
        separator = Separator(ours, segment=segment, precision="fp32", shifts=0)
        blocks = separator.stream([waveform], Normalization(0.0, 1.0))
        stems = torch.cat([torch.stack(list(block.values())) for block in blocks], dim=-1)
        assert snr(expected, stems) > 100
        assert snr(expected, compatible(ours, waveform[None], shifts=0, segment=segment)[0]) > 100
