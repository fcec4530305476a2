import pytest
import torch

from helpers import snr
from htdemucs import HTDemucs, HTDemucsConfig, load_model
from htdemucs.fast import prepare
from htdemucs.weights import demucs_format
from htdemucs.weights.demucs_format import key_mapping

from .conftest import RELEASED, SMALL, PublishedHTDemucs, build, save_safetensors, save_th

CONFIGURATIONS = {
    "small": {},
    "six sources": {"sources": list("abcdef"), "bottom_channels": 0},
    "encoder dconv": {"dconv_mode": 1, "dconv_depth": 3, "dconv_comp": 4},
    "bottom as wide as the innermost layer": {"bottom_channels": 64},
    "mono, depth 3": {"audio_channels": 1, "depth": 3, "growth": 3, "nfft": 1024, "t_heads": 2},
    "no transformer": {"t_layers": 0, "bottom_channels": 0, "depth": 2},
    "no frequency embedding": {"freq_emb": 0, "depth": 1, "bottom_channels": 16},
    "features that are off": {"freq_emb": None, "rescale": None, "bottom_channels": None},
    "features that are False": {"freq_emb": False, "rescale": False, "multi_freqs": False},
    "projections without a transformer": {"t_layers": 0, "bottom_channels": 32},
    "whole numbers": {"dconv_init": 1.0, "freq_emb": 1, "emb_scale": 2.0, "dconv_comp": 4.0},
    "zero": {"dconv_init": 0, "t_hidden_scale": 2, "t_dropout": 0},
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_outputs_agree(name, tmp_path):
    keyword = SMALL | CONFIGURATIONS[name]
    published = build(keyword)
    published.use_train_segment = False  # else it pads to its training length
    ours = load_model(save_th(published, keyword, tmp_path / "model.th"), device="cpu")
    for length in (2, 1024, 5_001):
        mixture = 0.1 * torch.randn(2, keyword["audio_channels"], length)
        with torch.no_grad():
            assert snr(published(mixture), ours(mixture)) >= 100, length


@pytest.mark.parametrize("save", [save_th, save_safetensors])
def test_both_layouts_give_the_same_parameters(save, tmp_path):
    published = build(SMALL)
    suffix = ".th" if save is save_th else ".safetensors"
    ours = load_model(save(published, SMALL, tmp_path / f"model{suffix}"), device="cpu")
    theirs = published.state_dict()
    assert sum(v.numel() for v in ours.state_dict().values()) == sum(
        v.numel() for v in theirs.values()
    )
    assert ours.segment == 1


def test_the_published_package_reads_what_we_write(tmp_path):
    from demucs.hf import load_safetensors_model

    torch.manual_seed(0)
    config = HTDemucsConfig(
        channels=8, bottom_channels=32, t_heads=4, t_layers=3, dconv_mode=3, segment=1
    )
    ours = HTDemucs(config).eval()
    demucs_format.write(ours, tmp_path / "model.safetensors")
    published = load_safetensors_model(tmp_path / "model.safetensors").eval()
    published.use_train_segment = False
    ours = demucs_format.read(tmp_path / "model.safetensors")
    mixture = torch.randn(1, 2, 10_001)
    with torch.no_grad():
        assert snr(published(mixture), ours(mixture)) >= 100


def test_keywords_and_their_defaults_are_the_published_ones():
    import inspect

    parameters = inspect.signature(PublishedHTDemucs.__init__.__wrapped__).parameters
    published = {name: p.default for name, p in parameters.items() if name != "self"}
    assert list(published) == list(demucs_format.KEYWORDS["HTDemucs"].defaults)
    for name, default in demucs_format.KEYWORDS["HTDemucs"].defaults.items():
        if name != "sources":
            expected = published[name]
            assert default == (tuple(expected) if isinstance(expected, list) else expected), name


def test_initial_values_have_the_published_distribution():
    """Every parameter with many values has the same deviation."""
    keyword = SMALL | {"channels": 32, "bottom_channels": 128}
    torch.manual_seed(1)
    theirs = PublishedHTDemucs(**keyword).state_dict()
    torch.manual_seed(2)
    ours = HTDemucs(demucs_format.config_from_arguments("HTDemucs", (), keyword)).state_dict()
    compared = 0
    published_name = key_mapping(demucs_format.config_from_arguments("HTDemucs", (), keyword))
    for name, value in ours.items():
        published = theirs[published_name(name)]
        if value.numel() < 2000:
            assert (value.std() < 1e-6) == (published.std() < 1e-6), name
            continue
        compared += 1
        assert float(value.std()) == pytest.approx(float(published.std()), rel=0.1), name
        assert float(value.mean()) == pytest.approx(
            float(published.mean()), abs=0.1 * float(published.std())
        ), name
    assert compared > 40
    scales = [v for n, v in ours.items() if n.endswith("_scale.scale")]
    assert {round(float(v[0]), 6) for v in scales} == {1e-3, 1e-4}


@pytest.mark.slow
@pytest.mark.parametrize("name", RELEASED)
def test_released_sizes_agree_at_full_length(name, tmp_path):
    published = build(RELEASED[name])
    path = save_th(published, RELEASED[name], tmp_path / "model.th")
    ours = load_model(path, device="cpu")
    mixture = 0.1 * torch.randn(1, 2, 343_980)
    with torch.no_grad():
        expected = published(mixture)
        assert snr(expected, ours(mixture)) >= 100
        for precision, least in {"fp32": 100, "bf16": 40}.items():
            assert snr(expected, prepare(ours, precision)(mixture)) >= least
