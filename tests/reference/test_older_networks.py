"""Hybrid Demucs and Demucs equal the published networks."""

import inspect
from functools import cache

import pytest
import torch
from demucs.demucs import Demucs as PublishedDemucs
from demucs.hdemucs import HDemucs as PublishedHDemucs

from helpers import snr
from htdemucs import CheckpointError, load_model
from htdemucs.fast import prepare
from htdemucs.model import build as build_ours
from htdemucs.weights import demucs_format
from htdemucs.weights.demucs_format import key_mapping

from .conftest import (
    SMALL_DEMUCS,
    SMALL_HDEMUCS,
    build,
    save_safetensors,
    save_th,
)

KINDS = {"HDemucs": (PublishedHDemucs, SMALL_HDEMUCS), "Demucs": (PublishedDemucs, SMALL_DEMUCS)}
CONFIGURATIONS = {
    "HDemucs": {
        "hdemucs_mmi": {},
        "amplitude, of 2021": {"cac": False, "hybrid_old": True, "norm_starts": 999},
        "complex, of 2021": {"hybrid_old": True},
        "bands": {"multi_freqs": [0.25, 0.5], "norm_starts": 999},
        "bands, amplitude": {"cac": False, "multi_freqs": [0.21, 0.6], "multi_freqs_depth": 1},
        "mono, decoder dconv": {"audio_channels": 1, "dconv_mode": 3},
        "no layer after the merge": {"depth": 3, "sources": list("abcde")},
        "deep, no attention": {"depth": 5, "dconv_lstm": 3, "dconv_attn": 9, "growth": 3},
        "LSTM everywhere": {"dconv_lstm": 0, "dconv_attn": 1, "freq_emb": 0},
    },
    "Demucs": {
        "mdx": {},
        "repro_mdx_a": {"normalize": True},
        "mono, decoder dconv": {"audio_channels": 1, "dconv_mode": 3, "norm_starts": 9},
        "shallow": {"depth": 2, "dconv_lstm": 1, "dconv_attn": 9, "sources": list("abcde")},
    },
}
ALL = [(kind, name) for kind, names in CONFIGURATIONS.items() for name in names]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Return a function: a published network and ours, loaded from its file."""

    @cache
    def make(kind, name):
        published_class, small = KINDS[kind]
        keyword = small | CONFIGURATIONS[kind][name]
        published = build(keyword, kind=published_class)
        path = save_th(published, keyword, tmp_path_factory.mktemp("pair") / "model.th")
        return published, load_model(path, device="cpu")

    return make


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_outputs_agree(kind, name, pair):
    published, ours = pair(kind, name)
    # The published networks divide by the deviation of a single value, where there is one only.
    shortest = 2 if ours.audio_channels == 1 or getattr(ours.config, "normalize", False) else 1
    for length in (shortest, 63, 1024, 8_001):
        mixture = 0.1 * torch.randn(2, ours.audio_channels, length) + 0.01
        with torch.no_grad():
            assert snr(published(mixture), ours(mixture)) >= 100, length


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_a_single_sample_and_silence_give_numbers(kind, name, pair):
    _, ours = pair(kind, name)
    with torch.no_grad():
        assert ours(torch.ones(1, ours.audio_channels, 1)).isfinite().all()
        assert ours(torch.zeros(1, ours.audio_channels, 3000)).isfinite().all()


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_the_published_package_reads_what_we_write(kind, name, pair, tmp_path):
    from demucs.hf import load_safetensors_model

    published, ours = pair(kind, name)
    demucs_format.write(ours, tmp_path / "model.safetensors")
    again = load_safetensors_model(tmp_path / "model.safetensors")
    for key, value in published.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


@pytest.mark.parametrize("kind", KINDS)
def test_hub_files_give_the_same_network(kind, pair, tmp_path):
    _, small = KINDS[kind]
    published, ours = pair(kind, next(iter(CONFIGURATIONS[kind])))
    loaded = demucs_format.read(save_safetensors(published, small, tmp_path / "model.safetensors"))
    assert loaded.config == ours.config
    for name, value in ours.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


@pytest.mark.parametrize("kind", KINDS)
def test_keywords_and_their_defaults_are_the_published_ones(kind):
    parameters = inspect.signature(KINDS[kind][0].__init__.__wrapped__).parameters
    published = {name: p.default for name, p in parameters.items() if name != "self"}
    known = demucs_format.KEYWORDS[kind].defaults
    assert list(published) == list(known)
    assert {k: v for k, v in published.items() if k != "sources"} == {
        k: v for k, v in known.items() if k != "sources"
    }


@pytest.mark.parametrize("kind", KINDS)
def test_initial_values_have_the_published_distribution(kind):
    """Every parameter with many values has the same deviation and mean."""
    published_class, small = KINDS[kind]
    keyword = small | {"channels": 32, "dconv_attn": 1}
    torch.manual_seed(1)
    theirs = published_class(**keyword).state_dict()
    torch.manual_seed(2)
    config = demucs_format.config_from_arguments(kind, (), keyword)
    ours, published_name = build_ours(config).state_dict(), key_mapping(config)
    ours.pop("frequency_embedding.table", None)  # of few, smooth vectors
    compared = 0
    for name, value in ours.items():
        published = theirs[published_name(name)]
        mean, deviation = float(published.mean()), float(published.std())
        if value.numel() > 1000:
            compared += 1
            assert float(value.std()) == pytest.approx(deviation, rel=0.1), name
        if value.numel() > 1000 or name.endswith(("fading.bias", "scale")):
            assert float(value.mean()) == pytest.approx(mean, abs=0.02, rel=0.1), name
    assert compared > 20


REFUSED = {
    "HDemucs": {
        "wiener_iters": 2,
        "hybrid": False,
        "rewrite": False,
        "kernel_size": 6,
        "stride": 2,
        "time_stride": 4,
        "context": 3,
        "context_enc": 1,
        "channels_time": 16,
        "made_up": "yes",
    },
    "Demucs": {
        "lstm_layers": 2,
        "gelu": False,
        "glu": False,
        "rewrite": False,
        "resample": False,
        "kernel_size": 6,
        "context": 3,
    },
}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in REFUSED.items() for name in names]
)
def test_what_no_official_file_uses_is_refused_by_name(kind, name):
    keyword = KINDS[kind][1] | {"cac": False} if kind == "HDemucs" else KINDS[kind][1]
    with pytest.raises(CheckpointError, match=f"sets {name}={REFUSED[kind][name]}, which no"):
        demucs_format.config_from_arguments(kind, (), keyword | {name: REFUSED[kind][name]})


@pytest.mark.parametrize(
    ("kind", "keyword", "match"),
    [
        ("HDemucs", {"nfft": 512}, "power of 4"),
        ("HDemucs", {"depth": 2}, "depth must be at least 3"),
        ("HDemucs", {"norm_starts": 1}, "norm_starts must be at least 2"),
        ("HDemucs", {"multi_freqs": [0.5, 0.25]}, "must rise"),
        ("HDemucs", {"multi_freqs": [0.001]}, "must rise"),
        ("HDemucs", {"multi_freqs": [0.5], "multi_freqs_depth": 3}, "multi_freqs_depth"),
        ("HDemucs", {"multi_freqs": ["low"]}, "multi_freqs cannot be"),
        ("HDemucs", {"cac": 1}, "cac cannot be 1"),
        ("HDemucs", {"norm_groups": 5}, "norm_groups 5 must divide"),
        ("HDemucs", {"dconv_mode": 2}, "dconv_mode"),
        ("HDemucs", {"dconv_depth": -2}, "dconv_depth"),
        ("Demucs", {"norm_starts": 0}, "norm_starts"),
        ("Demucs", {"growth": 1.5}, "growth"),
        ("Demucs", {"dconv_attn": 0}, "local attention needs a multiple of 4"),
    ],
)
def test_impossible_values_are_refused_in_one_line(kind, keyword, match):
    with pytest.raises(CheckpointError, match=match) as caught:
        demucs_format.config_from_arguments(kind, (), KINDS[kind][1] | keyword)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_prepared_networks_agree(kind, precision, pair):
    _, ours = pair(kind, next(iter(CONFIGURATIONS[kind])))
    mixture = 0.1 * torch.randn(2, 2, 8_001)
    with torch.no_grad():
        expected = ours(mixture)
        assert snr(expected, prepare(ours, precision)(mixture)) >= (
            100 if precision == "fp32" else 25
        )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_released_sizes_agree_at_eleven_seconds(kind, tmp_path):
    keyword = {"sources": list("abcd"), "segment": 44}
    published = build(keyword, kind=KINDS[kind][0])
    ours = load_model(save_th(published, keyword, tmp_path / "model.th"), device="cpu")
    mixture = 0.1 * torch.randn(1, 2, 11 * 44_100)
    with torch.no_grad():
        expected = published(mixture)
        assert snr(expected, ours(mixture)) >= 100
        assert snr(expected, prepare(ours, "fp32")(mixture)) >= 100
