"""The small pieces of the loop: losses, averages, rates, checkpoints, logs, other sources."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from helpers import OLDER, TINY, awake, snr
from htdemucs import HTDemucs, HTDemucsConfig
from htdemucs.errors import CheckpointError, ConfigError
from htdemucs.model import build
from htdemucs.training import checkpoint, optim
from htdemucs.training.config import OptimConfig
from htdemucs.training.ema import ExponentialMovingAverage
from htdemucs.training.head_transfer import replace_sources
from htdemucs.training.log import LogEntry, TrainingLog
from htdemucs.training.losses import SourceLoss
from htdemucs.training.rng import generator, seed_torch


def test_the_loss_is_the_mean_absolute_error():
    estimates, sources = torch.randn(2, 4, 2, 999), torch.randn(2, 4, 2, 999)
    loss = SourceLoss(4)(estimates, sources)
    assert loss == pytest.approx(float((estimates - sources).abs().mean()), rel=1e-5)
    weighed = SourceLoss(4, source_weights=(0, 0, 1, 0))(estimates, sources)
    third = (estimates[:, 2] - sources[:, 2]).abs().mean()
    assert weighed == pytest.approx(float(third), rel=1e-5)


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


def test_an_average_forgets_its_start():
    model = nn.Linear(1, 1, bias=False)
    average = ExponentialMovingAverage(0.5)
    for value in (4.0, 8.0, 16.0):
        nn.init.constant_(model.weight, value)
        average.update(model)
    expected = (4 * 0.25 + 8 * 0.5 + 16) / 1.75
    assert average.parameters()["weight"].item() == pytest.approx(expected)
    again = ExponentialMovingAverage(0.5)
    again.load_state_dict(average.state_dict(), torch.device("cpu"))
    assert torch.equal(again.parameters()["weight"], average.parameters()["weight"])


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


def test_a_crash_while_saving_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, {"step": 1, "model": {"x": torch.ones(2)}})

    def torn(_state, path):
        path.write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, {"step": 2})
    assert checkpoint.load(tmp_path)["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_checkpoints_that_are_none(tmp_path):
    assert checkpoint.load(tmp_path) is None
    path = tmp_path / "checkpoint.pt"
    for content in (b"", b"nonsense", None):
        if content is None:
            torch.save({"weights": 1}, path)
        else:
            path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt is"):
            checkpoint.load(tmp_path)


def entry(step, **changes):
    return LogEntry(step, 0.5, 1.0, 1.0, 2.0, 0.0, **changes)


def test_the_log_goes_on_where_the_checkpoint_was(tmp_path):
    log = TrainingLog(tmp_path, 0, tensorboard=False)
    for step in (2, 4, 6):
        log.write(entry(step))
    log.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')  # cut off
    log = TrainingLog(tmp_path, 4, tensorboard=False)
    log.write(entry(5, valid={"raw": {"loss": 0.1}}))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 5]
    assert lines[-1]["valid"] == {"raw": {"loss": 0.1}}


def test_tensorboard_curves(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = TrainingLog(tmp_path, 0, tensorboard=True)
    log.write(entry(3, valid={"ema 0.9": {"nsdr": 7.0}}))
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(3, 0.5)]
    assert [e.value for e in events.Scalars("valid ema 0.9/nsdr")] == [7.0]


def test_draws_depend_on_seed_purpose_and_place():
    places = [(0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a", 1), (0, "a", 1, 0)]
    drawn = [generator(*place).random() for place in places]
    assert len(set(drawn)) == len(places)
    assert drawn == [generator(*place).random() for place in places]
    seed_torch(3, "x", 1)
    first = torch.rand(3)
    seed_torch(3, "x", 1)
    assert torch.equal(first, torch.rand(3))


@torch.no_grad()
def test_other_sources(tiny_model):
    x = 0.1 * torch.randn(1, 2, 8000)
    before = dict(zip(tiny_model.sources, tiny_model(x).unbind(1), strict=True))
    made = replace_sources(tiny_model, ("vocals", "guitar", "beat"), {"beat": "drums"})
    assert made.sources == ("vocals", "guitar", "beat")
    after = dict(zip(made.sources, made(x).unbind(1), strict=True))
    assert snr(before["vocals"], after["vocals"]) > 100
    assert snr(before["drums"], after["beat"]) > 100
    assert all(snr(stem, after["guitar"]) < 20 for stem in before.values())
    with pytest.raises(ConfigError, match="the model has no source piano; it has drums"):
        replace_sources(tiny_model, ("keys",), {"keys": "piano"})
    with pytest.raises(ConfigError, match="different names"):
        replace_sources(tiny_model, ("a", "a"))


@pytest.mark.parametrize("kind", [*OLDER, "bands"])
@torch.no_grad()
def test_other_sources_of_older_networks(kind):
    bands = dataclasses.replace(OLDER["HDemucs"], multi_freqs=(0.3,), multi_freqs_depth=2)
    model = awake(build(OLDER.get(kind, bands))).eval()
    made = replace_sources(model, ("vocals", "beat", "drums"), {"beat": "bass"}).eval()
    x = 0.1 * torch.randn(1, 2, 8000)
    before = dict(zip(model.sources, model(x).unbind(1), strict=True))
    after = dict(zip(made.sources, made(x).unbind(1), strict=True))
    for new, old in (("vocals", "vocals"), ("beat", "bass"), ("drums", "drums")):
        assert snr(before[old], after[new]) > 100


@torch.no_grad()
def test_other_sources_of_a_network_with_all_its_layers():
    model = awake(HTDemucs(HTDemucsConfig(**TINY | {"depth": 3, "n_fft": 1024})))
    made = replace_sources(model.eval(), tuple(reversed(model.sources))).eval()
    x = 0.1 * torch.randn(1, 2, 8000)
    assert snr(model(x), made(x).flip(1)) > 100
