import numpy as np
import pytest
import torch
from scipy import signal

import training_data
from helpers import awake
from htdemucs import HTDemucs, HTDemucsConfig
from htdemucs.training.config import LOSSES
from htdemucs.training.losses import ERRORS, SourceLoss, ear_sensitivity, log_wmse, waveform_error


def test_the_loss_is_the_mean_absolute_error():
    estimates, sources = torch.randn(2, 4, 2, 999), torch.randn(2, 4, 2, 999)
    loss = SourceLoss(4)(estimates, sources)
    assert loss == pytest.approx(float((estimates - sources).abs().mean()), rel=1e-5)
    weighed = SourceLoss(4, source_weights=(0, 0, 1, 0))(estimates, sources)
    third = (estimates[:, 2] - sources[:, 2]).abs().mean()
    assert weighed == pytest.approx(float(third), rel=1e-5)


def test_every_loss_of_the_configuration_has_an_error():
    assert tuple(ERRORS) == LOSSES


@pytest.mark.parametrize("kind", ["mse", "rms"])
def test_squared_losses(kind):
    quiet, loud = torch.full((1, 2, 2, 99), 0.1), torch.full((1, 2, 2, 99), -0.3)
    errors = torch.cat([quiet, loud]).requires_grad_()
    loss = SourceLoss(2, kind)(errors, torch.zeros(2, 2, 2, 99))
    expected = {"mse": (0.01 + 0.09) / 2, "rms": (0.1 + 0.3) / 2}[kind]
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    silent = torch.zeros(1, 2, 2, 99, requires_grad=True)
    SourceLoss(2, kind)(silent, torch.zeros(1, 2, 2, 99)).backward()
    assert silent.grad is not None
    assert silent.grad.abs().max() == 0


def test_the_spectral_loss_sees_magnitudes_only():
    sources = torch.randn(1, 2, 2, 8000)
    plain, both = SourceLoss(2), SourceLoss(2, stft_weight=0.5)
    assert both(-sources, sources) == pytest.approx(float(plain(-sources, sources)), rel=1e-4)
    spectral = both(1.1 * sources, sources) - plain(1.1 * sources, sources)
    assert spectral == pytest.approx(0.05, rel=1e-3)  # a tenth too loud, times its weight
    one = SourceLoss(2, source_weights=(1, 0), stft_weight=1.0)
    wrong = torch.stack([sources[:, 0], 5 * sources[:, 1]], 1)
    assert one(wrong, sources) == pytest.approx(0, abs=1e-5)  # what weighs nothing counts nothing


def test_only_the_region_counts():
    """From 40 to 10 samples before the end, in the value and in the gradient."""
    estimates, sources = torch.randn(2, 2, 2, 100, requires_grad=True), torch.randn(2, 2, 2, 100)
    loss = SourceLoss(2, region=(40, 10))(estimates, sources)
    part = slice(60, 90)
    expected = (estimates[..., part] - sources[..., part]).abs().mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    assert estimates.grad[..., part].abs().min() > 0
    assert not estimates.grad[..., :60].any()
    assert not estimates.grad[..., 90:].any()
    to_the_end = SourceLoss(2, region=(40, 0))(estimates, sources)
    expected = (estimates[..., 60:] - sources[..., 60:]).abs().mean()
    assert to_the_end.item() == pytest.approx(expected.item(), rel=1e-5)


def signals(length=3000):
    """Estimates and sources (2, 3, 2, L) of different levels, with different errors."""
    draw = torch.Generator().manual_seed(1)
    levels = torch.tensor([1.0, 0.1, 0.02])[:, None, None]
    sources = levels * torch.randn(2, 3, 2, length, generator=draw)
    errors = levels * torch.randn(2, 3, 2, length, generator=draw)
    return sources + torch.tensor([0.5, 1.0, 0.1])[:, None, None] * errors, sources


def l1_snr(estimate, source):
    return 10 * np.log10((np.abs(estimate - source).mean() + 1e-3) / (np.abs(source).mean() + 1e-3))


def l1_snr_db(estimate, source):
    estimated, true = (10 * np.log10(np.mean(x**2) + 1e-8) for x in (estimate, source))
    weight = 0.1
    if true > max(estimated, -60):
        weight += 0.9 * min(1, (true - estimated) / (true + 60))
    return l1_snr(estimate, source) + weight * abs(estimated - true)


def l1_snr_stft(estimate, source):
    window = signal.windows.hann(2048, sym=False)
    estimated, true = (
        signal.ShortTimeFFT(window / np.sqrt(np.sum(window**2)), 512, 1).stft(
            x, p0=0, p1=1 + x.shape[-1] // 512
        )
        for x in (estimate, source)
    )
    return l1_snr(estimated.real, true.real) + l1_snr(estimated.imag, true.imag)


def si_sdr(estimate, source):
    projection = np.vdot(estimate, source) / np.vdot(source, source) * source
    return 10 * np.log10(np.mean((estimate - projection) ** 2) / np.mean(projection**2))


@pytest.mark.parametrize("reference", [l1_snr, l1_snr_db, l1_snr_stft, si_sdr])
def test_an_error_is_that_of_its_paper(reference):
    estimates, sources = signals()
    estimates[0, 0] *= 0.2  # far too quiet, which "l1_snr_db" weighs
    made = ERRORS[reference.__name__](estimates, sources)
    for index in np.ndindex(2, 3):
        expected = reference(*(x[index].double().numpy() for x in (estimates, sources)))
        assert float(made[index]) == pytest.approx(expected, abs=0.02)


def test_si_sdr_does_not_depend_on_the_scale():
    estimates, sources = signals()
    assert ERRORS["si_sdr"](3 * estimates, sources).numpy() == pytest.approx(
        ERRORS["si_sdr"](estimates, sources).numpy(), abs=0.01
    )


def test_the_ears_sensitivity_is_the_published_one():
    """In dB, from the impulse response in log-wmse-audio-quality 0.2.0, which is truncated."""
    published = {
        50: -15.389, 100: -4.755, 250: 0.489, 500: 2.534, 1000: 1.493, 3150: 4.226,
        8000: 1.195, 12_500: -4.672, 18_000: -19.18,
    }  # fmt: skip
    gains = 10 * torch.log10(ear_sensitivity(torch.tensor([float(f) for f in published])))
    assert gains.numpy() == pytest.approx(list(published.values()), abs=0.1)
    assert ear_sensitivity(torch.tensor([22_050.0, 24_000.0])).max() < 1e-12


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_log_wmse_weighs_the_error_by_the_ears_sensitivity(rate):
    """An error at 100 Hz counts 9 dB less than one at 3150 Hz; the mixture's level counts out."""
    time = torch.arange(rate) / rate
    tone = {hertz: torch.sin(2 * torch.pi * hertz * time) for hertz in (100, 1000, 3150)}
    sources = torch.stack([tone[1000], torch.zeros(rate)])[None, :, None]  # the second is silent
    for hertz, decibels in ((100, -4.755), (3150, 4.226)):
        estimates = sources + 0.1 * tone[hertz]
        ratio = 0.01 * 10 ** ((decibels - 1.493) / 10)
        for scale in (1, 20):
            made = log_wmse(scale * estimates, scale * sources, rate)
            assert made[0].numpy() == pytest.approx(4 * np.log(ratio + 1e-8), abs=0.04)


@pytest.mark.parametrize("name", LOSSES)
def test_silence_gives_finite_values_and_gradients(name):
    """A silent source, a silent estimate, both, a perfect estimate, and a silent example."""
    noise = torch.randn(2, 900, generator=torch.Generator().manual_seed(2))
    silence = torch.zeros(2, 900)
    sources = torch.stack([silence, noise, silence, noise])
    estimates = torch.stack([0.3 * noise, silence, silence, noise])
    sources = torch.stack([sources, torch.zeros(4, 2, 900)])
    estimates = torch.stack([estimates, estimates]).requires_grad_()
    made = ERRORS[name](estimates, sources)
    assert made.isfinite().all()
    made.sum().backward()
    assert estimates.grad.isfinite().all()
    # Whatever is estimated where there is nothing becomes quieter.
    assert (estimates.grad[0, 0] * noise).sum() > 0


@pytest.mark.parametrize("name", ["l1_snr", "l1_snr_db", "l1_snr_stft", "si_sdr", "log_wmse"])
def test_gradients_are_those_of_finite_differences(name):
    estimates, sources = (x[:1, :, :, :300].double() for x in signals())
    estimates.requires_grad_()
    error = waveform_error(name, 44_100)
    if name == "l1_snr_db":  # its weight is a constant to the gradient
        estimates = (estimates.detach() * 1.5).requires_grad_()  # too loud: the weight is 0.1
    error(estimates, sources).sum().backward()
    draw = torch.Generator().manual_seed(3)
    direction = torch.randn(estimates.shape, generator=draw, dtype=torch.float64)
    with torch.no_grad():
        ahead, behind = (
            error(estimates + step * direction, sources).sum() for step in (1e-6, -1e-6)
        )
    expected = float(ahead - behind) / 2e-6
    assert float((estimates.grad * direction).sum()) == pytest.approx(expected, rel=1e-3)


def test_errors_are_weighted_and_summed():
    estimates, sources = signals()
    loss = SourceLoss(3, {"si_sdr": 0.1, "l1": 2})(estimates, sources)
    expected = 0.1 * SourceLoss(3, "si_sdr")(estimates, sources)
    expected += 2 * SourceLoss(3, "l1")(estimates, sources)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_network_learns_with_every_loss(name):
    torch.manual_seed(0)
    network = awake(HTDemucs(HTDemucsConfig(**training_data.MODEL)))
    mixed = 0.5 * torch.randn(1, 4, 2, 1500)
    mixed[:, 3] = 0  # a silent source
    loss = SourceLoss(4, name, sample_rate=network.sample_rate)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    values = []
    for _ in range(5):
        value = loss(network(mixed.sum(1)), mixed)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0] - 0.02 * abs(values[0])
