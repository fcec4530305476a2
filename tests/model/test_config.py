import dataclasses
import json
from fractions import Fraction

import pytest
import torch

from htdemucs import ConfigError, DemucsConfig, HDemucsConfig, HTDemucs, HTDemucsConfig


def test_defaults_are_the_released_htdemucs():
    config = HTDemucsConfig()
    assert config.layer_channels == (48, 96, 192, 384)
    assert config.segment_length == 343_980
    assert config.hop_length == 1024
    assert config.transformer_channels == 512


def test_without_bottom_channels_the_transformer_has_the_innermost_width():
    assert HTDemucsConfig(bottom_channels=0).transformer_channels == 384


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"sources": []}, "sources"),
        ({"sources": "vocals"}, "sources"),
        ({"sources": ["a", "a"]}, "sources"),
        ({"audio_channels": 3}, "audio_channels"),
        ({"channels": 0}, "channels"),
        ({"channels": 2.5}, "channels"),
        ({"channels": True}, "channels"),
        ({"growth": 0}, "growth"),
        ({"depth": 0}, "depth"),
        ({"depth": 5}, "depth"),
        ({"n_fft": 1000}, "n_fft"),
        ({"segment": 0}, "segment"),
        ({"segment": "soon"}, "segment"),
        ({"segment": float("inf")}, "segment"),
        ({"dconv_mode": 2}, "dconv_mode"),
        ({"dconv_comp": 100}, "dconv_comp"),
        ({"t_heads": 7}, "t_heads"),
        ({"t_dropout": 1.0}, "t_dropout"),
        ({"bottom_channels": 6, "t_heads": 1}, "width"),
        ({"freq_emb": float("nan")}, "freq_emb"),
    ],
)
def test_impossible_values_are_refused_by_name(fields, named):
    with pytest.raises(ConfigError, match=named):
        HTDemucsConfig(**fields)


@pytest.mark.parametrize(
    ("segment", "length"),
    [(7.8, 343_980), ("7.8", 343_980), (0.7, 30_869), ("0.7", 30_870), (Fraction(7, 10), 30_870)],
)
def test_a_float_of_seconds_is_multiplied_as_a_float_and_a_fraction_exactly(segment, length):
    assert HTDemucsConfig(segment=segment).segment_length == length


def test_from_dict_is_the_inverse_of_to_dict():
    config = HTDemucsConfig(sources=("a", "b"), segment=Fraction(39, 5), channels=16)
    assert HTDemucsConfig.from_dict(config.to_dict()) == config


def test_unknown_fields_are_refused_by_name():
    with pytest.raises(ConfigError, match="chanels"):
        HTDemucsConfig.from_dict({"chanels": 48})


def test_whole_numbers_and_fractions_become_floats_where_a_field_is_one():
    config = HTDemucsConfig(
        dconv_init=1, rescale=Fraction(1, 10), emb_scale=Fraction(21, 2), freq_emb=1, dconv_comp=4
    )
    assert config == HTDemucsConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert type(config.dconv_init) is type(config.rescale) is type(config.dconv_comp) is float
    small = dataclasses.replace(
        config, channels=8, depth=2, n_fft=512, t_layers=0, bottom_channels=0
    )
    assert all(parameter.dtype == torch.float32 for parameter in HTDemucs(small).parameters())


@pytest.mark.parametrize("off", [None, False])
def test_none_and_false_turn_a_feature_off(off):
    config = HTDemucsConfig(freq_emb=off, rescale=off, bottom_channels=off)
    assert config == HTDemucsConfig(freq_emb=0, rescale=0, bottom_channels=0)
    older = HDemucsConfig(freq_emb=off, rescale=off, multi_freqs=off, hybrid_old=off)
    assert older == HDemucsConfig(freq_emb=0, rescale=0, multi_freqs=(), hybrid_old=False)
    assert DemucsConfig(normalize=off) == DemucsConfig(normalize=False)
    assert HTDemucsConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("off", [0, None, False])
def test_without_a_transformer_its_width_does_not_matter(off):
    config = HTDemucsConfig(t_layers=off, bottom_channels=512)
    assert (config.t_layers, config.bottom_channels) == (0, 0)
    assert config == HTDemucsConfig(t_layers=0, bottom_channels=0)
