import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import awake, snr
from htdemucs import Bag, Demucs, DemucsConfig, HDemucs, HDemucsConfig, HTDemucs, HTDemucsConfig
from htdemucs.fast import kernels
from htdemucs.fast.network import FastHybrid, supports

SMALL = {
    "channels": 16,
    "depth": 2,
    "n_fft": 512,
    "bottom_channels": 64,
    "t_layers": 2,
    "t_heads": 2,
    "segment": 1,
    "sample_rate": 8000,
}
VARIANTS = [
    {},
    {"audio_channels": 1},
    {"sources": ["vocals"]},
    {"sources": list("abcdef"), "bottom_channels": 0, "t_heads": 1},
    {"depth": 1, "t_heads": 4},
    {"depth": 3, "growth": 3, "n_fft": 1024},
    {"channels": 48},
    {"dconv_mode": 1},
    {"dconv_depth": 0},
    {"dconv_depth": 3, "dconv_comp": 4},
    {"dconv_comp": 3},
    {"dconv_depth": 6},
    {"t_layers": 0, "bottom_channels": 0},
    {"t_layers": 5},
    {"freq_emb": 0},
]


def network(**fields):
    torch.manual_seed(0)
    model = awake(HTDemucs(HTDemucsConfig(**SMALL | fields))).eval()
    if not supports(model):
        pytest.skip("no kernels for this machine")
    return model


@pytest.mark.parametrize("fields", VARIANTS, ids=str)
def test_every_variant_equals_the_reference(each_build, fields):
    model = network(**fields)
    mixture = torch.randn(2, model.audio_channels, 3001)
    with torch.no_grad():
        expected = model(mixture)
    assert snr(expected, FastHybrid(model)(mixture)) > 100
    if each_build in kernels.WITH_BF16:
        assert snr(expected, FastHybrid(model, torch.bfloat16)(mixture)) > 33


OLDER = {"channels": 16, "depth": 4, "n_fft": 256, "segment": 1, "sample_rate": 8000}
OLDER |= {"norm_starts": 2, "dconv_lstm": 2, "dconv_attn": 2}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"audio_channels": 1, "dconv_mode": 3},
        {"sources": list("abcde"), "depth": 3, "channels": 48},
        {"n_fft": 1024, "depth": 5, "norm_starts": 4, "dconv_lstm": 3, "dconv_attn": 4},
        {"freq_emb": 0, "norm_starts": 9, "growth": 3},
    ],
    ids=str,
)
def test_hybrid_demucs_equals_the_reference(each_build, fields):
    torch.manual_seed(0)
    model = awake(HDemucs(HDemucsConfig(**OLDER | fields))).eval()
    if not supports(model):
        pytest.skip("no kernels for this machine")
    fast = FastHybrid(model)
    for length in (1, 1023, 30_001):
        mixture = torch.randn(2, model.audio_channels, length)
        with torch.no_grad():
            expected = model(mixture)
        assert snr(expected, fast(mixture)) > 100
    if each_build in kernels.WITH_BF16:
        assert snr(expected, FastHybrid(model, torch.bfloat16)(mixture)) > 33


@pytest.mark.parametrize(
    "fields",
    [
        {"cac": False},
        {"hybrid_old": True},
        {"multi_freqs": (0.3,), "multi_freqs_depth": 2},
        {"dconv_lstm": 1},
        {"channels": 24},
    ],
    ids=str,
)
def test_other_hybrid_demucs_are_left_to_the_reference(fields):
    assert not supports(HDemucs(HDemucsConfig(**OLDER | fields)))
    assert not supports(Demucs(DemucsConfig(channels=16)))


_cache = {}


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(length=st.integers(1, 3000), level=st.floats(-6, 3))
def test_any_length_and_level_equals_the_reference(length, level):
    if not _cache:
        _cache["model"] = model = network()
        _cache["fast"] = FastHybrid(model)
    mixture = 10**level * torch.randn(1, 2, length)
    with torch.no_grad():
        expected = _cache["model"](mixture)
    assert snr(expected, _cache["fast"](mixture)) > 90


def test_silence_stays_finite():
    fast = FastHybrid(network())
    assert fast(torch.zeros(1, 2, 4000)).isfinite().all()


def test_the_same_input_gives_the_same_output():
    fast = FastHybrid(network())
    mixture = torch.randn(1, 2, 4000)
    assert torch.equal(fast(mixture), fast(mixture))


def test_a_batch_equals_its_items_one_by_one():
    fast = FastHybrid(network())
    mixture = torch.randn(3, 2, 4000)
    each = torch.cat([fast(item[None]) for item in mixture])
    assert snr(each, fast(mixture)) > 110


def test_the_model_is_not_changed():
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    FastHybrid(model)(torch.randn(1, 2, 4000))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_widths_that_are_no_multiple_of_the_lanes_are_not_supported():
    assert not supports(HTDemucs(HTDemucsConfig(**SMALL | {"channels": 24})))


def test_dilations_beyond_the_kernels_are_not_supported():
    network(dconv_depth=6)
    assert not supports(HTDemucs(HTDemucsConfig(**SMALL | {"dconv_depth": 7})))


def test_without_kernels_nothing_is_supported(monkeypatch):
    monkeypatch.setattr(kernels, "library", lambda: None)
    assert not supports(HTDemucs(HTDemucsConfig(**SMALL)))


def test_a_mapped_bag_weighs_as_before():
    members = [network(), network(sources=["drums", "bass", "other", "vocals"])]
    bag = Bag(members, [[1, 0, 0.5, 1], [0, 1, 0.5, 1]]).eval()
    mixture = torch.randn(1, 2, 4000)
    with torch.no_grad():
        expected = bag(mixture)
        assert snr(expected, bag.mapped(FastHybrid)(mixture)) > 100
    assert bag.members == members
