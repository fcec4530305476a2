"""Hybrid Demucs and Demucs, without the published package."""

import dataclasses

import pytest
import torch

from helpers import OLDER, awake, snr
from htdemucs import Bag, DemucsConfig, HDemucs, HDemucsConfig
from htdemucs.model import build
from htdemucs.model.demucs import Downsample, Upsample
from htdemucs.model.lstm_attention import CHUNK, ChunkedLSTM, LocalAttention
from htdemucs.model.network import Network
from htdemucs.model.spectrogram import Spectrogram, Spectrogram2021
from htdemucs.tracing import trace


def test_the_stages_of_hybrid_demucs():
    stages = {stage.label(): stage.shape for stage in trace(HDemucsConfig(), samples=258_602)}
    assert stages["spectral encoder 4"] == (1, 384, 8, 253)
    assert stages["time encoder 4"] == (1, 384, 1011)
    assert stages["merge: encoder 5 of both branches"] == (1, 768, 253)
    assert stages["joint encoder 6"] == (1, 1536, 127)
    assert stages["joint decoder 1"] == (1, 768, 253)
    assert stages["split: spectral decoder 2"] == (1, 384, 8, 253)
    assert stages["split: time decoder 2"] == (1, 384, 1011)
    assert stages["spectral decoder 6"] == (1, 16, 2048, 253)


def test_the_stages_of_demucs():
    stages = {stage.label(): stage.shape for stage in trace(DemucsConfig(), samples=258_602)}
    assert stages["input at twice the sample rate"] == (1, 2, 517_460)
    assert stages["encoder 6"] == (1, 2048, 125)
    assert stages["output"] == (1, 4, 2, 258_602)


@pytest.mark.parametrize("kind", OLDER)
def test_an_empty_network_draws_no_values(kind):
    before = torch.get_rng_state()
    empty = type(build(OLDER[kind])).empty(OLDER[kind])
    network = build(OLDER[kind])
    torch.set_rng_state(before)
    assert torch.equal(torch.get_rng_state(), before)
    assert empty.config == OLDER[kind]
    assert {n: p.shape for n, p in empty.state_dict().items()} == {
        n: p.shape for n, p in network.state_dict().items()
    }


@pytest.mark.parametrize("kind", OLDER)
def test_every_parameter_matters_and_items_of_a_batch_do_not_mix(kind):
    network: Network = awake(build(OLDER[kind]))
    mixture = 0.1 * torch.randn(2, 2, 5000)
    network(mixture).square().sum().backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent
    with torch.no_grad():
        both = network.eval()(mixture)
        assert snr(both[1:], network(mixture[1:])) > 100


def test_bands_with_the_same_parameters_are_one_layer():
    """Only the context across bins, which bands lack, makes a difference."""
    config = dataclasses.replace(OLDER["HDemucs"], norm_starts=9)
    whole = awake(HDemucs(config)).eval()
    banded = HDemucs(dataclasses.replace(config, multi_freqs=(0.2, 0.55), multi_freqs_depth=2))
    with torch.no_grad():
        for layer in whole.spectral_decoder:
            layer.rewrite.weight[:, :, [0, 2]] = 0
        ours, theirs = banded.state_dict(), whole.state_dict()
        for name, value in ours.items():
            parts = name.split(".")
            if "layers" in parts:
                del parts[parts.index("layers") : parts.index("layers") + 2]
            source = theirs[".".join(parts)]
            value.copy_(source[:, :, 1:2] if value.shape != source.shape else source)
        mixture = torch.randn(1, 2, 4000)
        assert snr(whole(mixture), banded.eval()(mixture)) > 100


def test_the_spectrogram_of_2021_is_late_by_its_edge():
    early, late = Spectrogram(256), Spectrogram2021(256)
    waveform = torch.randn(1, 2, 5000)
    spectrum = early(waveform)
    inside = late.inverse(spectrum, 5000)[..., late.edge :]
    assert torch.allclose(inside, early.inverse(spectrum, 5000 - late.edge), atol=1e-6)
    middle = slice(2, -3)  # frames that see no end of the track
    assert torch.allclose(late(waveform)[..., middle], spectrum[..., middle], atol=1e-6)


def test_long_inputs_of_the_lstm_are_split_into_chunks():
    lstm = ChunkedLSTM(4).eval()
    x = torch.randn(2, 4, 2 * CHUNK + 17)
    with torch.no_grad():
        y = lstm(x)
        first = lstm(x[..., :CHUNK])
    quarter = CHUNK // 4
    assert y.shape == x.shape
    assert torch.allclose(y[..., : CHUNK - quarter], first[..., : CHUNK - quarter], atol=1e-6)
    assert not torch.allclose(y[..., :CHUNK], first, atol=1e-6)


def test_local_attention_is_to_nearby_steps_but_not_to_itself():
    attention = LocalAttention(8).eval()
    with torch.no_grad():
        attention.query.weight.zero_()
        attention.query.bias.zero_()
        attention.fading.bias.fill_(20)
        attention.content.weight.copy_(torch.eye(8)[..., None])
        attention.content.bias.zero_()
        attention.output.weight.copy_(torch.eye(8)[..., None])
        attention.output.bias.zero_()
        x = torch.zeros(1, 8, 40)
        x[..., 20] = 1
        heard = attention(x) - x
    assert heard[0, 0].argmax() in (19, 21)
    assert heard[0, 0, 20] < 1e-6
    assert heard[0, 0, 19] > 5 * heard[0, 0, 18] > 0


def test_resampling_keeps_a_low_tone():
    tone = torch.sin(torch.arange(3000) * 0.2).expand(1, 2, -1)
    up = Upsample()(tone)
    assert up.shape[-1] == 6000
    assert snr(torch.sin(torch.arange(200, 5800) * 0.1).expand(1, 2, -1), up[..., 200:5800]) > 60
    assert snr(tone[..., 100:2900], Downsample()(up)[..., 100:2900]) > 60


def test_windows_are_lengths_without_padding():
    config = OLDER["Demucs"]
    longest = 0
    for length in (*range(1, 700), 8000):
        window = config.window_length(length, 8000)
        assert window >= length
        assert config.window_length(window, 8000) == window
        longest = max(longest, window - length)
    assert (longest + 1) // 2 <= config.margin(8000)


def test_a_bag_may_lengthen_segments_of_networks_without_a_longest(tiny_model):
    older = [build(config) for config in OLDER.values()]
    bag = Bag(older, segment=5)
    assert (bag.segment, bag.max_segment) == (5, None)
    with_attention = Bag([*older, tiny_model], segment=5)
    assert (with_attention.segment, with_attention.max_segment) == (1, 1)
