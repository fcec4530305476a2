from fractions import Fraction

import pytest
import torch

from htdemucs import CheckpointError, HTDemucsConfig
from htdemucs.model.architectures import CONFIGS
from htdemucs.weights import build, demucs_format
from htdemucs.weights.demucs_format import KEYWORDS, config_from_arguments, keywords_from_config
from weights.checkpoints import as_json, assert_same, keywords, rewrite, save_th


def nested_twins(levels: int) -> list:
    """Return lists in lists: small in a file, but endless to compare or to print."""
    value: list = [0]
    for _ in range(levels):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("wiener_iters", 1),
        ("end_iters", 2),
        ("cac", False),
        ("rewrite", False),
        ("multi_freqs", [0.5]),
        ("norm_starts", 0),
        ("channels_time", 24),
        ("kernel_size", 6),
        ("stride", 2),
        ("context", 3),
        ("context_enc", 1),
        ("t_emb", "cape"),
        ("t_norm_in", False),
        ("t_group_norm", True),
        ("t_norm_first", False),
        ("t_norm_out", False),
        ("t_max_period", 500.0),
        ("t_layer_scale", False),
        ("t_gelu", False),
        ("t_weight_pos_embed", 0.5),
        ("t_sin_random_shift", 8),
        ("t_sparse_self_attn", True),
        ("t_sparse_cross_attn", True),
        ("t_cross_first", True),
        ("dconv_lstm", 2),
        ("made_up", "yes"),
        ("made_up", {"a": 1}),
        ("made_up", Fraction(1, 2)),
    ],
)
def test_unsupported_keywords_are_refused_by_name(name, value):
    words = f"sets {name}={value}" if isinstance(value, int | float | str) else f"sets {name}="
    with pytest.raises(CheckpointError) as caught:
        config_from_arguments("HTDemucs", [], keywords(HTDemucsConfig()) | {name: value})
    assert words in str(caught.value)
    assert "no released HTDemucs has" in str(caught.value)


def test_unsupported_keywords_are_refused_in_both_layouts(contents, model, st, tmp_path, refused):
    contents["kwargs"]["t_emb"] = "cape"
    refused(save_th(contents, tmp_path / "cape.th"), "sets t_emb=cape")
    kwargs = as_json(keywords(model.config) | {"t_emb": "cape"})
    refused(rewrite(st, kwargs=kwargs), "sets t_emb=cape")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("t_sparse_attn_window", 7),
        ("t_mask_type", "random"),
        ("multi_freqs", None),
        ("multi_freqs", []),
        ("multi_freqs", ()),
        ("norm_starts", 1),  # as deep as the tiny network: no layer has these norms
        ("norm_starts", 999),
        ("channels_time", 8),
        ("channels_time", 0),
        ("context_enc", None),
        ("t_group_norm", None),
        ("t_sin_random_shift", None),
        ("use_train_segment", False),
        ("growth", 2.0),
        ("t_lr", 1e-4),
        ("made_up", None),
        ("made_up", False),
        ("made_up", []),
        ("made_up", {}),
        ("made_up", 0),
    ],
)
def test_keywords_without_effect_are_accepted(name, value, model):
    kwargs = keywords(model.config)
    assert config_from_arguments("HTDemucs", [], kwargs | {name: value}) == config_from_arguments(
        "HTDemucs", [], kwargs
    )


def test_keywords_without_effect_are_accepted_in_both_layouts(contents, model, st, tmp_path):
    contents["kwargs"] |= {"made_up": (), "multi_freqs": (), "t_lr": 0.5}
    assert_same(model, demucs_format.read(save_th(contents, tmp_path / "inert.th")))
    kwargs = as_json(keywords(model.config) | {"made_up": {}, "t_mask_type": "random"})
    assert_same(model, demucs_format.read(rewrite(st, kwargs=kwargs)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("channels", -8),
        ("channels", 8.5),
        ("channels", True),
        ("channels", None),
        ("channels", "8"),
        ("channels", 10**400),
        ("channels", [8]),
        ("depth", 10**6),
        ("depth", 5),
        ("n_fft", 513),
        ("nfft", 513),
        ("dconv_mode", 2),
        ("dconv_comp", 0),
        ("audio_channels", 3),
        ("sources", []),
        ("sources", "vocals"),
        ("sources", 4),
        ("sources", ["vocals", "vocals"]),
        ("sources", [["vocals"]]),
        ("segment", 0),
        ("segment", -1),
        ("segment", float("nan")),
        ("segment", float("inf")),
        ("segment", "1e999999999"),
        ("segment", Fraction(1, 10**9)),
        ("t_heads", 3),
        ("t_dropout", 1.5),
        ("t_hidden_scale", float("inf")),
        ("freq_emb", "0.2"),
    ],
)
def test_impossible_values_are_refused_in_one_short_line(name, value):
    kwargs = {**KEYWORDS["HTDemucs"].defaults} | keywords(HTDemucsConfig()) | {name: value}
    with pytest.raises(CheckpointError) as caught:
        config_from_arguments("HTDemucs", [], kwargs)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [nested_twins(60), {"a": nested_twins(60)}, torch.ones(3)])
@pytest.mark.parametrize(
    "name", ["made_up", "wiener_iters", "sources", "segment", "channels", "norm_starts"]
)
def test_values_of_other_types_are_refused(name, value):
    with pytest.raises(CheckpointError, match=name):
        config_from_arguments("HTDemucs", [], keywords(HTDemucsConfig()) | {name: value})


def test_an_argument_passed_twice_is_refused():
    with pytest.raises(CheckpointError, match="sources twice"):
        config_from_arguments("HTDemucs", [["vocals"]], keywords(HTDemucsConfig()))


def test_a_network_larger_than_its_file_is_refused():
    config = config_from_arguments("HTDemucs", [], keywords(HTDemucsConfig()) | {"growth": 1 << 19})
    with pytest.raises(CheckpointError, match="too few"):
        build.build_network(config, {"encoder.0.conv.weight": torch.ones(9)}, str)


def test_two_values_that_are_endless_to_compare_are_not_compared():
    kwargs = {"channels": nested_twins(60), "channels_time": nested_twins(60)}
    with pytest.raises(CheckpointError, match="channels"):
        config_from_arguments("HTDemucs", [["vocals"]], kwargs)


def test_inert_keywords_may_have_any_value():
    for value in ("x", -1, nested_twins(60), torch.ones(2)):
        kwargs = keywords(HTDemucsConfig()) | dict.fromkeys(KEYWORDS["HTDemucs"].inert, value)
        assert config_from_arguments("HTDemucs", [], kwargs) == HTDemucsConfig(t_dropout=0.02)


def test_to_config_is_the_inverse_of_from_config():
    config = HTDemucsConfig(
        sources=("a", "b"), depth=3, channels=16, n_fft=2048, segment=Fraction(7, 3), t_heads=4
    )
    assert config_from_arguments("HTDemucs", [], keywords_from_config(config)) == config


@pytest.mark.parametrize("architecture", KEYWORDS)
def test_each_keyword_is_accounted_for(architecture):
    """Each is a field, inert, harmless when off, or refused unless at its default."""
    known = KEYWORDS[architecture]
    fields = set(known.fields)
    assert not fields & known.inert
    assert not (fields | known.inert) & set(known.harmless)
    assert fields | known.inert | set(known.harmless) <= set(known.defaults)
    assert set(known.fields.values()) == set(CONFIGS[architecture].__dataclass_fields__)
