from typing import get_args, get_type_hints

import pytest
import torch

from htdemucs.training.config import OptimConfig
from htdemucs.training.losses import ERRORS, SourceLoss


def test_the_loss_is_the_mean_absolute_error():
    estimates, sources = torch.randn(2, 4, 2, 999), torch.randn(2, 4, 2, 999)
    loss = SourceLoss(4)(estimates, sources)
    assert loss == pytest.approx(float((estimates - sources).abs().mean()), rel=1e-5)
    weighed = SourceLoss(4, source_weights=(0, 0, 1, 0))(estimates, sources)
    third = (estimates[:, 2] - sources[:, 2]).abs().mean()
    assert weighed == pytest.approx(float(third), rel=1e-5)


def test_every_loss_of_the_configuration_has_an_error():
    assert get_args(get_type_hints(OptimConfig)["loss"]) == tuple(ERRORS)


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
