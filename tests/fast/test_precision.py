import threading

import pytest
import torch
from torch import nn

from helpers import awake, snr
from htdemucs import Bag, HTDemucs, HTDemucsConfig, Separator
from htdemucs.errors import ConfigError
from htdemucs.fast import choose_precision, kernels, precision, prepare
from htdemucs.fast.network import FastHybrid
from htdemucs.fast.precision import AutocastHybrid, ExactNetwork, to_half_precision


def model(channels):
    fields = {"channels": channels, "depth": 2, "n_fft": 512, "bottom_channels": 32, "t_layers": 1}
    config = HTDemucsConfig(**fields, t_heads=2, segment=1, sample_rate=8000)
    return awake(HTDemucs(config)).eval()


@pytest.fixture
def small_model():
    return model(channels=16)


def pretend(monkeypatch, *, bf16, supported=True):
    monkeypatch.setattr(kernels, "has_bf16", lambda: bf16)
    monkeypatch.setattr(precision, "supports", lambda network: supported)


@pytest.mark.parametrize(
    ("channels", "bf16", "supported", "chosen"),
    [
        (48, True, True, "bf16"),
        (48, False, True, "fp32"),
        (48, True, False, "fp32"),
        (16, True, True, "fp32"),
    ],
)
def test_auto_on_a_cpu_is_bf16_if_that_is_fast(monkeypatch, channels, bf16, supported, chosen):
    pretend(monkeypatch, bf16=bf16, supported=supported)
    network = model(channels)
    assert choose_precision(network) == chosen
    assert choose_precision(Bag([network, network])) == chosen


@pytest.mark.parametrize(
    ("capability", "chosen"),
    [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp16"), ((6, 1), "fp32")],
)
def test_auto_on_cuda_goes_by_capability(monkeypatch, capability, chosen):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert precision.fastest([], torch.device("cuda")) == chosen


def test_auto_elsewhere_is_fp32():
    assert precision.fastest([], torch.device("mps")) == "fp32"


def test_an_unknown_precision_and_fp16_on_a_cpu_are_refused(small_model):
    with pytest.raises(ConfigError, match="auto, fp32, bf16, fp16"):
        choose_precision(small_model, "int8")
    with pytest.raises(ConfigError, match="bf16 or auto"):
        Separator(small_model, precision="fp16")


def test_prepare_returns_the_network_of_the_precision(monkeypatch, small_model):
    pretend(monkeypatch, bf16=False, supported=False)
    assert prepare(small_model, "fp32") is small_model
    assert isinstance(prepare(small_model, "bf16"), AutocastHybrid)
    pretend(monkeypatch, bf16=False)
    if kernels.library() is not None:
        assert isinstance(prepare(small_model, "fp32"), FastHybrid)
        assert isinstance(prepare(small_model, "bf16"), AutocastHybrid)


@pytest.mark.parametrize("convert", [lambda network, dtype: network, to_half_precision])
@pytest.mark.parametrize(("dtype", "least"), [(torch.bfloat16, 30), (torch.float16, 50)])
def test_autocast_is_near_the_reference(small_model, dtype, least, convert):
    mixture = torch.randn(2, 2, 5000)
    with torch.no_grad():
        expected = small_model(mixture)
    estimate = AutocastHybrid(convert(small_model, dtype), dtype)(mixture)
    assert estimate.dtype == torch.float32
    assert snr(expected, estimate) > least


def test_activations_beyond_float16_stay_finite(small_model):
    """The spectral branch's activations exceed 65504."""
    with torch.no_grad():
        small_model.spectral_encoder[0].conv.weight.mul_(1e5)
        small_model.spectral_encoder[0].rewrite.weight.mul_(1e-5)
    tone = torch.sin(torch.arange(8000) * 0.3).expand(1, 2, -1)
    with torch.no_grad():
        layer = small_model.spectral_encoder[0]
        assert layer.conv(small_model.spectrogram(tone)).abs().max() > 65504
        expected = small_model(tone)
    estimate = AutocastHybrid(to_half_precision(small_model, torch.float16), torch.float16)(tone)
    assert estimate.isfinite().all()
    assert snr(expected, estimate) > 40


def test_the_separator_uses_the_precision(small_model):
    waveform = 0.1 * torch.randn(2, 20000)
    exact = Separator(small_model, precision="fp32")
    half = Separator(small_model, precision="bf16")
    assert (exact.precision, half.precision) == ("fp32", "bf16")
    a, b = exact.separate(waveform, 8000), half.separate(waveform, 8000)
    for name in small_model.sources:
        assert 30 < snr(a[name], b[name]) < 90


cudnn = torch.backends.cudnn
NEW = hasattr(cudnn, "conv")  # torch 2.9 has new names for its settings


def tf32():
    """Return whether cuDNN may round the factors of convolutions and LSTMs in float32."""
    if not NEW:
        return cudnn.allow_tf32
    return "tf32" in (cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision)


def test_fp32_on_cuda_allows_no_products_of_fewer_bits(small_model):
    seen = []
    small_model.register_forward_hook(lambda *_: seen.append(tf32()))
    before, mixture = tf32(), torch.randn(1, 2, 800)
    answer = ExactNetwork(small_model)(mixture)
    with torch.no_grad():
        assert torch.equal(answer, small_model(mixture))
    assert seen == [False, before]
    assert before


def test_networks_in_two_threads_are_exact_until_both_are_done():
    """The first to end must neither switch TF32 on for the second nor leave it off."""
    before, seen = tf32(), []
    second_runs, first_is_done = threading.Event(), threading.Event()

    class Second(nn.Module):
        def forward(self, x):
            second_runs.set()
            first_is_done.wait(10)
            seen.append(tf32())
            return x

    second = threading.Thread(target=ExactNetwork(Second()), args=[torch.zeros(1)])

    class First(nn.Module):
        def forward(self, x):
            second.start()
            second_runs.wait(10)
            return x

    ExactNetwork(First())(torch.zeros(1))
    first_is_done.set()
    second.join()
    assert seen == [False]
    assert tf32() == before


@pytest.mark.skipif(not NEW, reason="this torch has no new names")
def test_a_program_may_use_torch_s_new_settings_of_precision():
    before = cudnn.conv.fp32_precision
    cudnn.conv.fp32_precision = "ieee"  # from now on torch refuses to tell `allow_tf32`
    try:
        mixture = torch.randn(1, 2, 8)
        assert torch.equal(ExactNetwork(nn.Identity())(mixture), mixture)
    finally:
        cudnn.conv.fp32_precision = before
