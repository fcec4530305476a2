"""A widened network separates as the narrow one does, and its copies can grow apart."""

import pytest
import torch

from helpers import TINY, awake
from htdemucs import HTDemucs, HTDemucsConfig, load_model, save_model
from recipes.mini import widen


def narrow(bottom_channels=0):
    torch.manual_seed(3)
    fields = TINY | {"bottom_channels": bottom_channels, "dconv_mode": 1}
    return awake(HTDemucs(HTDemucsConfig(**fields))).eval()


def decibels(error, reference):
    return float(10 * torch.log10(error.square().mean() / reference.square().mean()))


@pytest.mark.parametrize("bottom_channels", [0, 8])
def test_the_output_is_the_same(bottom_channels):
    network = narrow(bottom_channels)
    wide = widen.widen(network, 2 * network.config.t_hidden_scale, dconv_mode=1).eval()
    mixture = torch.randn(1, 2, 20_000)
    with torch.no_grad():
        before, after = network(mixture), wide(mixture)
    assert decibels(after - before, before) < -100
    assert wide.config.channels == 2 * network.config.channels
    assert wide.config.transformer_channels == network.config.transformer_channels


def test_new_dconvs_change_little():
    network = narrow()
    wide = widen.widen(network, network.config.t_hidden_scale, dconv_mode=3).eval()
    mixture = torch.randn(1, 2, 20_000)
    with torch.no_grad():
        before, after = network(mixture), wide(mixture)
    assert decibels(after - before, before) < -40


def test_copies_of_a_channel_have_gradients_of_their_own():
    network = narrow()
    wide = widen.widen(network, network.config.t_hidden_scale, dconv_mode=1)
    wide(torch.randn(1, 2, 20_000)).square().mean().backward()
    gradient = wide.spectral_encoder[1].conv.weight.grad
    assert not torch.allclose(gradient[0], gradient[1], rtol=0.01)


def test_the_command_writes_a_model(tmp_path, capsys):
    save_model(narrow(), tmp_path / "narrow")
    assert widen.main([str(tmp_path / "narrow"), str(tmp_path / "wide")]) == 0
    assert "M parameters" in capsys.readouterr().out
    assert load_model(tmp_path / "wide").config.dconv_mode == 3
    assert widen.main([str(tmp_path / "none"), str(tmp_path / "wide")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
