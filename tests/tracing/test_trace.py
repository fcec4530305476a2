"""Sizes, formulas and operations against real runs."""

import re
from fractions import Fraction
from functools import cache
from math import ceil, floor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from helpers import TINY, awake
from htdemucs import (
    ConfigError,
    DemucsConfig,
    HDemucsConfig,
    HTDemucs,
    HTDemucsConfig,
    SeparationError,
    Separator,
    trace,
)
from htdemucs.model.architectures import network_class
from htdemucs.model.bag import Bag
from htdemucs.tracing import stages_of

SMALL = {"channels": 4, "sources": ["drums", "rest"]}
CONFIGS = {
    "HTDemucs": HTDemucsConfig(**TINY),
    "no transformer": HTDemucsConfig(**TINY | {"t_layers": 0, "bottom_channels": 0}),
    "own width": HTDemucsConfig(**TINY | {"bottom_channels": 0, "dconv_mode": 1}),
    "mono": HTDemucsConfig(**TINY | {"audio_channels": 1, "freq_emb": 0.0}),
    "HDemucs": HDemucsConfig(**SMALL),
    "magnitudes": HDemucsConfig(**SMALL, cac=False, hybrid_old=True),
    "bands": HDemucsConfig(**SMALL, multi_freqs=(0.3, 0.6), multi_freqs_depth=2),
    "Demucs": DemucsConfig(**SMALL, depth=4),
}
WORDS = {"×": "*", "−": "-", "⌈": "ceil(", "⌉": ")", "⌊": "floor(", "⌋": ")"}


def network(config):
    return awake(network_class(config)(config)).eval()


def value(formula):
    """Evaluate a formula, with exact fractions."""
    text = re.sub("|".join(WORDS), lambda match: WORDS[match[0]], formula)
    text = re.sub(r"\d+", lambda match: f"Fraction({match[0]})", text)
    return eval(text, {"ceil": ceil, "floor": floor, "Fraction": Fraction})


@cache
def empty(name):
    return network_class(CONFIGS[name]).empty(CONFIGS[name])


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    return network(CONFIGS[request.param])


LENGTHS = st.integers(1, 30_000) | st.integers(1, 20_000_000)


@pytest.mark.parametrize("name", CONFIGS)
@given(data=st.data())
@settings(max_examples=100)
def test_every_formula_gives_its_size(name, data):
    """An axis without a formula is that of the stage before, or is explained by a word."""
    samples, before = data.draw(LENGTHS), {"batch": {1}}
    for stage in stages_of(empty(name), samples, 2):
        for size in stage.sizes:
            if size.formula:
                assert value(size.formula) == size.value, (stage.number, size)
            elif not size.meaning:
                assert size.value in before.get(size.axis, ()), (stage.number, stage.key, size)
            before.setdefault(size.axis, set()).add(size.value)


@pytest.mark.parametrize("samples", [1, 1023, 3001, 10_000])
def test_sizes_and_tensors_are_those_of_a_run(model, samples):
    mixture = torch.randn(model.audio_channels, samples)
    stages = trace(model, mixture, depth=2)
    assert [stage.shape for stage in stages] == [tuple(stage.tensor.shape) for stage in stages]
    last = stages[-1] if stages[-1].depth == 1 else None
    with torch.no_grad():
        torch.testing.assert_close(last.tensor, model(mixture[None]), rtol=1e-4, atol=1e-5)
    assert stages == trace(model.config, samples=samples, depth=2)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("samples", [3001, 20_000])
def test_operations_are_those_that_torch_counts(model, samples):
    """FFTs are not counted by PyTorch."""
    mixture = torch.empty(1, model.audio_channels, samples, device="meta")
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network_class(model.config).empty(model.config).eval().to("meta")(mixture)
    stages = trace(model.config, samples=samples)
    counted = sum(s.flop for s in stages if s.key not in ("spectrogram", "spectral_output"))
    assert counted == counter.get_total_flops()


def test_parts_sum_to_their_stage_and_stages_to_the_network(model):
    stages = trace(model.config, samples=3001, depth=2)
    whole = [stage for stage in stages if stage.depth == 1]
    assert whole == trace(model.config, samples=3001)
    total = sum(p.numel() for p in model.parameters())
    assert sum(stage.parameters for stage in whole) == total
    for stage in whole:
        parts = [s for s in stages if s.number.startswith(f"{stage.number}.")]
        assert not parts or sum(part.parameters for part in parts) == stage.parameters
    for stage in stages:
        if stage.module:
            model.get_submodule(stage.module)


def test_tensors_that_code_before_the_layers_gives():
    """The skip connection, the gates and the normalised inputs, computed here by hand."""
    model, mixture = network(CONFIGS["HTDemucs"]), torch.randn(2, 3001)
    stages = {stage.number: stage for stage in trace(model, mixture, depth=2)}
    by_label = {stage.label(): stage for stage in stages.values() if stage.depth == 1}
    time_input = by_label["time input, normalised"].tensor
    expected = (mixture - mixture.mean()) / (1e-5 + mixture.std())
    torch.testing.assert_close(time_input[0], expected)
    decoder = by_label["time decoder 1"]
    encoder = stages[decoder.skip]
    assert encoder.label() == f"time encoder {len(model.time_encoder)}"
    added = stages[f"{decoder.number}.1"]
    before = by_label["cross-domain transformer, time"].tensor
    torch.testing.assert_close(added.tensor, before + encoder.tensor)
    gates = stages[f"{encoder.number}.{sum(n.startswith(f'{encoder.number}.') for n in stages)}"]
    torch.testing.assert_close(gates.tensor, encoder.tensor)


def test_a_separator_and_the_bag_of_one_are_traced_by_their_network(tiny_model):
    mixture = torch.randn(2, 2000)
    expected = trace(tiny_model, mixture)[-1].tensor
    for model in (Separator(tiny_model), Bag([tiny_model])):
        torch.testing.assert_close(trace(model, mixture)[-1].tensor, expected)
    with pytest.raises(ConfigError, match=r"2 networks; .* bag.members\[0\]"):
        trace(Bag([tiny_model, network(CONFIGS["HTDemucs"])]), mixture)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"samples": 0}, SeparationError, "samples"),
        ({"samples": 2.5}, SeparationError, "samples"),
        ({"waveform": "song.mp3"}, SeparationError, "not str"),
        ({"depth": 3}, ConfigError, "depth must be 1 or 2"),
        ({"waveform": torch.zeros(3, 10)}, SeparationError, r"\(2, L\), not \(3, 10\)"),
        ({"waveform": torch.zeros(2, 0)}, SeparationError, r"\(2, L\)"),
    ],
)
def test_impossible_traces_are_refused(tiny_model, arguments, error, match):
    with pytest.raises(error, match=match):
        trace(tiny_model, **arguments)
    with pytest.raises(ConfigError, match="not HTDemucsConfig"):
        trace(tiny_model.config, torch.zeros(2, 10))


def test_every_module_keeps_its_mode(tiny_config):
    model = HTDemucs(tiny_config).train()
    model.transformer.eval()
    trace(model, torch.zeros(2, 1000))
    assert model.training
    assert not any(module.training for module in model.transformer.modules())


def test_double_precision_is_kept(tiny_model):
    stages = trace(tiny_model.double(), torch.randn(2, 1000, dtype=torch.float64))
    assert stages[-1].tensor.dtype == torch.float64


def test_a_bag_of_different_networks_must_be_named(tmp_path):
    with pytest.raises(ConfigError, match="4 networks that differ"):
        trace("mdx")
    assert trace("htdemucs_ft") == trace("htdemucs")
