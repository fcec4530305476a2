"""Quantised checkpoints give the parameters that diffq gives, to the bit."""

import json

import pytest
import torch
from demucs import hf, states
from demucs.demucs import Demucs as PublishedDemucs
from demucs.hdemucs import HDemucs as PublishedHDemucs
from safetensors.torch import save_file

from helpers import snr
from htdemucs import Separator, load_model
from htdemucs.weights import demucs_format
from htdemucs.weights.demucs_format import key_mapping
from htdemucs.weights.diffq import published_order

from .conftest import (
    RELEASED,
    SMALL,
    SMALL_DEMUCS,
    SMALL_HDEMUCS,
    SOURCES,
    PublishedHTDemucs,
    build,
)
from .test_engine import by_the_published_engine, track

diffq = pytest.importorskip(
    "diffq", reason="parity needs the published quantisers: pip install diffq"
)

KEYWORDS = SMALL | {"samplerate": 8000, "nfft": 512, "depth": 2}
UNIFORM = [{"bits": bits, "min_size": size} for bits in (2, 8, 11, 15) for size in (0.01, 0.001)]
DIFFERENTIABLE = [
    {"group_size": group, "min_size": size, **more}
    for group, size, more in [
        (8, 0.01, {}),
        (4, 0.002, {}),
        (1, 0.01, {"min_bits": 3, "max_bits": 9}),
        (16, 0.005, {"float16": True}),
        (8, 0.015, {}),
        (8, 1e6, {}),
    ]
]


def quantised_state(network, **settings):
    """Return the state that the published package saves, with as many numbers of bits as can be."""
    if "group_size" not in settings:
        quantiser = diffq.UniformQuantizer(network, **settings)
    else:
        quantiser = diffq.DiffQuantizer(network, **settings)
        for parameter in quantiser._qparams:
            with torch.no_grad():
                parameter.logit.uniform_(-4, 3)
    state = states.get_state(network, quantiser)
    quantiser.detach()
    return state


def save_th(state, path, keywords=KEYWORDS, kind=PublishedHTDemucs):
    torch.save({"klass": kind, "args": (), "kwargs": keywords, "state": state}, path)
    return path


def save_safetensors(state, path, keywords=KEYWORDS, klass="demucs.htdemucs.HTDemucs"):
    """Write the hub's layout: tensors by number, and the structure that holds them as JSON."""
    tensors = {}

    def node(value):
        if isinstance(value, torch.Tensor):
            name = f"t{len(tensors)}"
            tensors[name] = value.contiguous()
            return {"_tensor": name}
        if isinstance(value, dict):
            return {"_dict": [[key, node(item)] for key, item in value.items()]}
        if isinstance(value, list | tuple):
            return {f"_{type(value).__name__}": [node(item) for item in value]}
        if isinstance(value, type):
            return {"_class": f"{value.__module__}.{value.__name__}"}
        return value

    numerator, denominator = keywords["segment"].as_integer_ratio()
    segment = {"_type": "fraction", "numerator": numerator, "denominator": denominator}
    metadata = {
        "klass": klass,
        "args": "[]",
        "kwargs": json.dumps(keywords | {"segment": segment}),
        "structure": json.dumps(node(state)),
    }
    save_file(tensors, path, metadata)
    return path


@pytest.mark.parametrize(
    ("kind", "keywords"),
    [
        (PublishedHDemucs, SMALL_HDEMUCS),
        (PublishedHDemucs, SMALL_HDEMUCS | {"cac": False, "multi_freqs": [0.3]}),
        (PublishedDemucs, SMALL_DEMUCS),
    ],
    ids=["HDemucs", "bands", "Demucs"],
)
@pytest.mark.parametrize("settings", [UNIFORM[3], DIFFERENTIABLE[1]], ids=str)
def test_parameters_of_older_networks_are_equal_to_the_bit(kind, keywords, settings, tmp_path):
    state = quantised_state(build(keywords, kind=kind), **settings)
    path = save_th(state, tmp_path / "q.th", keywords, kind)
    expected, network = states.load_model(path).state_dict(), demucs_format.read(path)
    rename = key_mapping(network.config)
    ours = {rename(name): value for name, value in network.state_dict().items()}
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(ours[name], value), name


@pytest.mark.parametrize("settings", [*UNIFORM, *DIFFERENTIABLE], ids=str)
def test_parameters_are_equal_to_the_bit(settings, tmp_path):
    state = quantised_state(build(KEYWORDS), **settings)
    for path, published in (
        (save_th(state, tmp_path / "q.th"), states.load_model),
        (save_safetensors(state, tmp_path / "q.safetensors"), hf.load_safetensors_model),
    ):
        expected = published(path).state_dict()
        network = demucs_format.read(path)
        published_name = key_mapping(network.config)
        ours = {published_name(name): value for name, value in network.state_dict().items()}
        assert ours.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(ours[name], value.view_as(ours[name])), name


def test_the_settings_above_leave_no_case_out():
    """Otherwise the test before would compare less than it seems to."""
    numbers = [len(quantised_state(build(KEYWORDS), **s)["quantized"]) for s in DIFFERENTIABLE]
    assert numbers[-1] == 0 < numbers[-2] < numbers[0] < numbers[1]
    codes = quantised_state(build(KEYWORDS), **DIFFERENTIABLE[0])["quantized"]
    used = {
        i + 1 for packed, _, _ in codes for i, levels in enumerate(packed) if levels is not None
    }
    assert len(used) > 8


@pytest.mark.parametrize("settings", [UNIFORM[2], DIFFERENTIABLE[0]], ids=str)
def test_quantised_models_separate_as_the_published_one(settings, tmp_path):
    path = save_th(quantised_state(build(KEYWORDS), **settings), tmp_path / "q.th")
    waveform = track(20_000)
    expected = by_the_published_engine(states.load_model(path).eval(), waveform, shifts=0)
    separator = Separator(load_model(path, device="cpu"), shifts=0, precision="fp32")
    for stem, reference in zip(separator.separate(waveform, 8000).values(), expected, strict=True):
        assert snr(reference, stem) >= 100


NETWORKS = {
    "HTDemucs": lambda: build(KEYWORDS),
    "HTDemucs, as released": lambda: build(RELEASED["htdemucs"]),
    "HTDemucs, six sources": lambda: build(RELEASED["htdemucs_6s"]),
    "HDemucs": lambda: PublishedHDemucs(SOURCES, channels=8),
    "HDemucs, MDX": lambda: PublishedHDemucs(
        SOURCES, channels=8, dconv_mode=3, norm_starts=0, hybrid_old=True
    ),
    "HDemucs, bands": lambda: PublishedHDemucs(SOURCES, channels=8, multi_freqs=[0.3]),
    "Demucs": lambda: PublishedDemucs(SOURCES, channels=8),
    "Demucs, LSTM": lambda: PublishedDemucs(
        SOURCES, channels=8, depth=5, lstm_layers=2, dconv_mode=3, norm_starts=0
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_are_in_thepublished_order(name):
    names = [name for name, _ in NETWORKS[name]().named_parameters()]
    assert sorted(sorted(names), key=published_order) == names
