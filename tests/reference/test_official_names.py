"""Every official name: its table is the published one, and stand-in files separate with parity."""

from fractions import Fraction
from pathlib import Path

import demucs
import pytest
import torch
import yaml
from demucs.apply import BagOfModels
from demucs.demucs import Demucs as PublishedDemucs
from demucs.hdemucs import HDemucs as PublishedHDemucs
from demucs.hf import load_safetensors_model
from demucs.pretrained import _parse_remote_files

from htdemucs import Separator, load_model
from htdemucs.model.architectures import architecture
from htdemucs.weights.registry import legacy_url, official_config, official_models

from .conftest import SMALL, SMALL_DEMUCS, SMALL_HDEMUCS, PublishedHTDemucs, build, save_safetensors
from .test_older_engine import agree, by_the_published_engine, replay, track

REMOTE = Path(demucs.__file__).parent / "remote"
RATE = 250  # Hz: a segment of 44 s is small then
STAND_INS = {
    "HTDemucs": (PublishedHTDemucs, SMALL | {"nfft": 512, "depth": 2, "segment": Fraction(39, 5)}),
    "HDemucs": (PublishedHDemucs, SMALL_HDEMUCS | {"channels": 4, "dconv_comp": 1}),
    "Demucs": (PublishedDemucs, SMALL_DEMUCS | {"channels": 4, "dconv_comp": 1}),
}


def test_the_table_is_the_published_one():
    models = official_models()
    assert {path.stem for path in REMOTE.glob("*.yaml")} == set(models)
    for name, model in models.items():
        bag = yaml.safe_load((REMOTE / f"{name}.yaml").read_text())
        assert bag["models"] == list(model.members), name
        assert bag.get("weights") == model.weights, name
        assert bag.get("segment") == model.segment, name


def test_the_checksums_are_the_published_ones():
    urls = _parse_remote_files(REMOTE / "files.txt")
    for signature, url in urls.items():
        assert legacy_url(signature) == url
    assert set(urls) == {member for model in official_models().values() for member in model.members}


def save_quantised(network, keywords, path):
    pytest.importorskip("diffq", reason="the published package reads these files with diffq")
    from . import test_quantised

    klass = f"{type(network).__module__}.{type(network).__name__}"
    state = test_quantised.quantised_state(network, group_size=4, min_size=0.002)
    assert len(state["quantized"]) > 3
    test_quantised.save_safetensors(state, path, keywords, klass)


@pytest.mark.parametrize("name", official_models())
def test_a_name_separates_from_stand_in_files(name, tmp_path, monkeypatch):
    model = official_models()[name]
    monkeypatch.setenv("HTDEMUCS_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for seed, signature in enumerate(dict.fromkeys(model.members)):
        published_class, small = STAND_INS[architecture(official_config(signature))]
        changes = {"samplerate": RATE, "sources": list(model.sources)}
        if signature == "c511e2ab":  # as its documentation describes it
            changes |= {"cac": False, "hybrid_old": True, "norm_starts": 999}
        if signature == "7d865c68":
            changes |= {"multi_freqs": [0.25, 0.5], "multi_freqs_depth": 2}
        network = build(small | changes, seed, published_class)
        path = tmp_path / f"{signature}.safetensors"
        if model.quantised:
            save_quantised(network, small | changes, path)
        else:
            save_safetensors(network, small | changes, path)

    bag = yaml.safe_load((REMOTE / f"{name}.yaml").read_text())
    members = [load_safetensors_model(tmp_path / f"{s}.safetensors") for s in bag["models"]]
    published = BagOfModels(members, bag.get("weights"), bag.get("segment"))
    separator = Separator(load_model(name, device="cpu"), shifts=1, precision="fp32")
    assert separator.model.origin.name == name
    waveform = track(int(float(separator.model.segment) * 1.6 * RATE))
    replay(monkeypatch, separator.shift_offsets() * len(members))
    with torch.no_grad():
        expected = by_the_published_engine(published.eval(), waveform, 1)
    agree(separator, expected, waveform, RATE)
