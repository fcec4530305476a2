import pytest
import torch

from helpers import TINY
from htdemucs import HTDemucs, HTDemucsConfig
from htdemucs.errors import ConfigError
from htdemucs.training import optim
from htdemucs.training.config import OptimConfig


def test_the_transformer_has_a_group_of_its_own():
    model = HTDemucs(HTDemucsConfig(**TINY))
    config = OptimConfig(
        kind="adamw", lr=1e-3, transformer_lr=1e-4, transformer_weight_decay=0.1, warmup=4
    )
    made = optim.build_optimizer(model, config)
    assert isinstance(made, torch.optim.AdamW)
    optim.apply_schedule(made, config, step=1, steps=10)
    rest, transformer = made.param_groups
    assert sum(len(group["params"]) for group in made.param_groups) == len(list(model.parameters()))
    assert {id(p) for p in transformer["params"]} == {id(p) for p in model.transformer.parameters()}
    assert (rest["lr"], transformer["lr"]) == pytest.approx((5e-4, 5e-5))
    assert (rest["weight_decay"], transformer["weight_decay"]) == (0, 0.1)
    without = HTDemucs(HTDemucsConfig(**TINY | {"t_layers": 0, "bottom_channels": 0}))
    assert len(optim.build_optimizer(without, config).param_groups) == 1


def test_an_orthogonal_matrix_has_singular_values_near_one():
    generator = torch.Generator().manual_seed(0)
    for shape in ((8, 40), (40, 8), (16, 16), (1, 5)):
        values = torch.linalg.svdvals(optim.newton_schulz(torch.randn(shape, generator=generator)))
        assert 0.5 < values.min() <= values.max() < 1.3


def test_muon_takes_the_weights_and_adamw_the_rest():
    model = HTDemucs(HTDemucsConfig(**TINY))
    config = OptimConfig(kind="muon", lr=1e-2, transformer_lr=1e-3)
    made = optim.build_optimizer(model, config)
    optim.apply_schedule(made, config, step=0, steps=1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model(torch.randn(1, 2, 2000)).square().sum().backward()
    made.step()
    muon = {id(p) for group in made.param_groups if group["orthogonal"] for p in group["params"]}
    for name, parameter in model.named_parameters():
        is_weight = name.endswith("weight") and parameter.dim() > 1
        assert (id(parameter) in muon) == is_weight, name
        size = (parameter - before[name]).square().mean().sqrt()
        lr = 1e-3 if name.startswith("transformer.") else 1e-2
        if is_weight:
            assert 0 < size < 0.26 * lr, name
        elif size:  # the first step of AdamW
            assert size < 1.01 * lr, name


def test_the_rate_rises_and_falls():
    config = OptimConfig(warmup=4, decay="cosine", final_lr=0.1)
    rates = [optim.learning_rate_fraction(config, step, 104) for step in range(104)]
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates[54] == pytest.approx(0.55)
    assert rates == sorted(rates[:4]) + sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)
    assert {optim.learning_rate_fraction(OptimConfig(), step, 9) for step in range(9)} == {1.0}


def test_frozen_parameters_are_in_no_group():
    model = HTDemucs(HTDemucsConfig(**TINY))
    optim.freeze(model, ["transformer", "time_encoder.0"])
    made = optim.build_optimizer(model, OptimConfig())
    trained = {id(p) for group in made.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        frozen = name.startswith(("transformer.", "time_encoder.0."))
        assert (id(parameter) in trained) == (not frozen), name
    with pytest.raises(
        ConfigError, match=r"optim\.freeze: no parameter begins with 'time'; the netw"
    ):
        optim.freeze(model, ["time"])
    everything = {name.partition(".")[0] for name, _ in model.named_parameters()}
    with pytest.raises(ConfigError, match="leaves nothing to train"):
        optim.freeze(model, sorted(everything))


@pytest.mark.parametrize("kind", ["adam", "muon"])
def test_learning_rates_of_groups(kind):
    model = HTDemucs(HTDemucsConfig(**TINY))
    config = OptimConfig(
        kind=kind, lr=1e-2, transformer_lr=1e-3,
        lr_factors={"time_encoder": 0.1, "time_encoder.0": 0.5, "transformer": 2},
    )  # fmt: skip
    made = optim.build_optimizer(model, config)
    optim.apply_schedule(made, config, step=0, steps=1)
    rates = {id(p): group["lr"] for group in made.param_groups for p in group["params"]}
    expected = {"time_encoder.0.": 5e-3, "time_encoder.": 1e-3, "transformer.": 2e-3, "": 1e-2}
    for name, parameter in model.named_parameters():
        rate = next(value for prefix, value in expected.items() if name.startswith(prefix))
        assert rates[id(parameter)] == pytest.approx(rate), name
    with pytest.raises(ConfigError, match=r"optim\.lr_factors: no parameter begins with 'bass'"):
        optim.build_optimizer(model, OptimConfig(lr_factors={"bass": 1}))
