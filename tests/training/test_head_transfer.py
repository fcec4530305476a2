import dataclasses

import pytest
import torch

from helpers import OLDER, TINY, awake, snr
from htdemucs import HTDemucs, HTDemucsConfig
from htdemucs.errors import ConfigError
from htdemucs.model import build
from htdemucs.training.head_transfer import replace_sources


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


@pytest.mark.parametrize("kind", ["HTDemucs", *OLDER])
@torch.no_grad()
def test_a_source_may_begin_as_the_sum_of_several(kind):
    model = awake(build(OLDER.get(kind, HTDemucsConfig(**TINY)))).eval()
    parts = ["drums", "bass", "other"]
    made = replace_sources(model, ("vocals", "instrumental"), {"instrumental": parts}).eval()
    x = 0.1 * torch.randn(1, 2, 8000)
    before = dict(zip(model.sources, model(x).unbind(1), strict=True))
    after = dict(zip(made.sources, made(x).unbind(1), strict=True))
    assert snr(before["vocals"], after["vocals"]) > 100
    expected = sum(before[part] for part in parts)
    centred = [y - y.mean() for y in (expected, after["instrumental"])]  # the mean is added once
    assert snr(*centred) > 60
    for renamed, message in (
        ({"instrumental": []}, "renamed.instrumental must be a source or a list"),
        ({"instrumental": ["drums", "piano"]}, "the model has no source piano"),
        ({"drumms": "drums"}, "renamed.drumms is not in sources"),
    ):
        with pytest.raises(ConfigError, match=message):
            replace_sources(model, ("vocals", "instrumental"), renamed)
