import copy
import pickle

import pytest
import torch
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from torch import nn

from helpers import awake, snr
from htdemucs import (
    Bag,
    CheckpointError,
    ConfigError,
    Demucs,
    DemucsConfig,
    HDemucs,
    HDemucsConfig,
    HTDemucs,
    HTDemucsConfig,
    Separator,
)
from htdemucs.fast import kernels, prepare
from htdemucs.fast.network import FastHybrid, supports
from htdemucs.model.architectures import matches_config

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


property_test = settings(
    max_examples=settings.default.max_examples // 4,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
COMMON = {
    "sources": st.sampled_from([("a",), ("a", "b", "c"), tuple("abcdefg")]),
    "audio_channels": st.integers(1, 2),
    "sample_rate": st.just(1000),
    "segment": st.integers(1, 3),
    "channels": st.sampled_from([16, 32, 48, 24]),
    "growth": st.integers(1, 3),
    "dconv_mode": st.sampled_from([1, 3]),
    "dconv_depth": st.integers(0, 7),
    "dconv_comp": st.sampled_from([0.5, 1, 1.1, 3, 4, 5.5, 8, 16]),
    "freq_emb": st.sampled_from([0, 0.2]),
    "rescale": st.just(0),
}
TRANSFORMER = {
    "depth": st.integers(1, 3),
    "n_fft": st.integers(3, 160).map(lambda n: 8 * n),
    "t_layers": st.integers(0, 2),
    "bottom_channels": st.sampled_from([0, 16, 48, 80, 96]),
    "t_heads": st.integers(1, 3),
    "t_hidden_scale": st.sampled_from([0.01, 0.3, 1, 4]),
}
JOINT = {
    "depth": st.integers(2, 4),
    "n_fft": st.sampled_from([64, 256]),
    "norm_starts": st.integers(1, 4),
    "norm_groups": st.sampled_from([1, 4]),
    "dconv_lstm": st.integers(1, 4),
    "dconv_attn": st.integers(1, 4),
}


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@property_test
@given(st.data(), st.integers(1, 2), st.integers(1, 3000))
def test_any_configuration_equals_the_reference(each_build, data, batch, length):
    """Those that the kernels do not have are left to it."""
    network, kind, sizes = data.draw(
        st.sampled_from([(HTDemucs, HTDemucsConfig, TRANSFORMER), (HDemucs, HDemucsConfig, JOINT)])
    )
    try:
        config = kind(**data.draw(st.fixed_dictionaries(COMMON | sizes)))
    except ConfigError:
        reject()
    model = awake(network(config)).eval()
    prepared = prepare(model, "fp32")
    if not supports(model):
        assert prepared is model
        return
    mixture = torch.randn(batch, model.audio_channels, length)
    with torch.no_grad():
        expected = model(mixture)
    assert snr(expected, prepared(mixture)) > 70
    if each_build in kernels.WITH_BF16:
        assert FastHybrid(model, torch.bfloat16)(mixture).isfinite().all()


_cache = {}


@property_test
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


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize(
    "fields",
    [
        {"channels": 24},
        {"depth": 1, "n_fft": 1032},  # 516 bins
        {"t_heads": 8},  # of 8 channels
        {"t_hidden_scale": 0.01},  # a feed-forward block without hidden channels
        {"dconv_comp": 0.9},
        {"dconv_depth": 7},
    ],
    ids=str,
)
def test_sizes_that_the_kernels_do_not_have_are_left_to_the_reference(fields):
    model = HTDemucs(HTDemucsConfig(**SMALL | fields))
    assert prepare(model, "fp32") is model


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 9, 500), torch.float32),
        ((1, 1, 500), torch.float32),
        ((2, 500), torch.float32),
        ((1, 2, 500), torch.float64),
    ],
)
def test_a_mixture_of_another_kind_is_refused(shape, dtype):
    with pytest.raises(ValueError, match=r"must be \(B, 2, L\) in torch.float32, not \("):
        FastHybrid(network())(torch.zeros(shape, dtype=dtype))


def test_a_damaged_weight_never_gives_finite_stems():
    model = network(depth=1, dconv_depth=1, t_heads=1)
    mixture = torch.randn(1, 2, 600)  # several frames, so that every tap meets some
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            continue
        value = parameter.data.flatten()[-1].clone()
        parameter.data.view(-1)[-1] = torch.nan
        assert not FastHybrid(model)(mixture).isfinite().all(), name
        parameter.data.view(-1)[-1] = value


@pytest.mark.filterwarnings("ignore:a segment is not finite")
def test_the_engine_reports_a_damaged_weight():
    model = network()
    model.spectral_encoder[0].rewrite.weight.data[0, 0] = torch.nan
    with pytest.raises(CheckpointError, match="its weights are damaged"):
        Separator(model, precision="fp32").separate(torch.randn(2, 4000), 8000)


class OwnBottleneck(HTDemucs):
    def bottleneck(self, x, y):
        return x, y


class Adapter(nn.Module):
    """Wraps a layer, as adapters for fine-tuning do."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return 1.5 * self.layer(x)


def replace_method(model):
    forward = model.forward
    model.forward = lambda mixture: 0.5 * forward(mixture)


def halved(_module, _inputs, output):
    return 0.5 * output


CHANGES = {
    "class": lambda model: setattr(model, "__class__", OwnBottleneck),
    "method": replace_method,
    "method of a layer": lambda model: setattr(model.time_encoder[0].dconv, "forward", lambda x: x),
    "hook": lambda model: model.register_forward_hook(halved),
    "hook of a layer": lambda model: model.spectral_encoder[0].register_forward_hook(halved),
    "hook before a layer": lambda model: model.time_decoder[0].dconv.register_forward_pre_hook(
        lambda _module, inputs: (2 * inputs[0],)
    ),
    "adapter": lambda model: setattr(
        model.time_encoder[0], "conv", Adapter(model.time_encoder[0].conv)
    ),
    "activation": lambda model: setattr(model.time_decoder[0], "activation", nn.ReLU()),
    "no transformer": lambda model: setattr(model, "transformer", None),
    "a layer less": lambda model: model.time_encoder[0].dconv.pop(1),
    "heads": lambda model: setattr(model.transformer.time_layers[0].attention, "heads", 1),
    "gain": lambda model: setattr(model.frequency_embedding, "gain", 7.0),
    "epsilon": lambda model: setattr(model.transformer.time_norm, "eps", 0.1),
    "no bias": lambda model: setattr(model.time_encoder[0].conv, "bias", None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_network_that_its_config_does_not_describe_is_left_to_the_reference(change):
    model = network()
    CHANGES[change](model)
    mixture = torch.randn(2, 8000)
    assert not supports(model)
    with torch.no_grad():
        separator = Separator(model, shifts=0)
        assert torch.equal(separator.run_network(mixture), separator.model(mixture[None])[0])


def test_a_network_in_float64_is_left_to_the_reference():
    model = network().double()
    assert prepare(model, "fp32") is model


@pytest.mark.parametrize("kind", [HTDemucs, HDemucs])
def test_other_attributes_values_and_copies_keep_the_kernels(kind):
    model = network() if kind is HTDemucs else HDemucs(HDemucsConfig(**OLDER))
    model.note = "fine-tuned"
    model.train().requires_grad_(False)
    model.spectrogram.window.mul_(0.5)
    for same in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.double()):
        assert matches_config(same)


def test_without_kernels_nothing_is_supported(monkeypatch):
    monkeypatch.setattr(kernels, "library", lambda: None)
    assert not supports(HTDemucs(HTDemucsConfig(**SMALL)))


def test_a_bag_with_mapped_members_has_the_same_weights():
    members = [network(), network(sources=["drums", "bass", "other", "vocals"])]
    bag = Bag(members, [[1, 0, 0.5, 1], [0, 1, 0.5, 1]]).eval()
    mixture = torch.randn(1, 2, 4000)
    with torch.no_grad():
        expected = bag(mixture)
        assert snr(expected, bag.map_members(FastHybrid)(mixture)) > 100
    assert bag.members == members
