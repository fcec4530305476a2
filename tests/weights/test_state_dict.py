"""Files that hold parameters only: what is refused, and how."""

import os

import pytest
import torch
import yaml

from helpers import awake
from htdemucs import CheckpointError, HDemucs, HDemucsConfig, load_model
from htdemucs.weights.demucs_format import key_mapping
from weights.checkpoints import assert_same, one_line, published_state

TRAINING = {"instruments": ["a", "b"], "channels": 2, "samplerate": 8000, "segment": 1}


def save(state, path):
    torch.save(state, path)
    return path


def parameters(*names):
    return {name: torch.ones(1) for name in names}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("band_split.to_features.0.0.gamma", "a BS-RoFormer or Mel-Band RoFormer"),
        ("separation_net.dp_modules.0.weight", "an SCNet"),
        ("encoder_blocks.0.tfc_tdf.weight", "an MDX23C"),
        ("stg1_low_band_net.enc1.weight", "a VR network"),
    ],
)
def test_another_network_is_named_by_its_parameters(name, words, tmp_path):
    path = save(parameters(name, "final.bias"), tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError) as error:
        load_model(path, device="cpu")
    one_line(error, "x.ckpt", f"its network is {words}; only HTDemucs, HDemucs, Demucs")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"freqs_per_bands": [2, 2]}, "a BS-RoFormer"),
        ({"num_bands": 60, "dim": 192}, "a Mel-Band RoFormer"),
        ({"band_SR": [0.175]}, "an SCNet"),
        ({"bottleneck_factor": 4}, "an MDX23C"),
        ({"x": 1}, "of another kind"),
        ("resnet", "resnet"),
    ],
)
@pytest.mark.parametrize("loaded", ["x.ckpt", "x.yaml"])
def test_another_network_is_named_by_its_yaml_file(model, words, loaded, tmp_path):
    save(parameters("layer.weight"), tmp_path / "x.ckpt")
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"model": model, "training": TRAINING}))
    with pytest.raises(CheckpointError) as error:
        load_model(tmp_path / loaded, device="cpu")
    one_line(error, "x.yaml", f"its network is {words};")


def test_a_yaml_file_without_its_checkpoint_says_what_to_do(tmp_path):
    (tmp_path / "x.yaml").write_text("model: htdemucs\ntraining: " + str(TRAINING))
    with pytest.raises(CheckpointError) as error:
        load_model(tmp_path / "x.yaml", device="cpu")
    one_line(error, "x.yaml only describes a network", "configuration")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: htdemucs", "must have model and training"),
        ("model: htdemucs\ntraining: {channels: 2}", "its training lacks instruments"),
        ("model: htdemucs\ntraining: %s\nhtdemucs: 5", "must be a table of settings"),
        ("model: htdemucs\ntraining: %s\nhtdemucs: {depth: 99}", "its depth is 99"),
        ("model: !!python/object/apply:os.mkdir [owned]\ntraining: {}", "not a readable yaml"),
        ("a: [", "not a readable yaml file"),
    ],
)
def test_a_damaged_or_hostile_yaml_file_is_refused(text, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save(parameters("encoder.0.conv.weight"), tmp_path / "x.ckpt")
    (tmp_path / "x.yaml").write_text(text.replace("%s", str(TRAINING)))
    with pytest.raises(CheckpointError) as error:
        load_model(path, device="cpu")
    one_line(error, words)
    assert not (tmp_path / "owned").exists()


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("owned",)


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth"])
def test_nothing_in_a_file_is_executed(suffix, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save({"encoder.0.conv.weight": Hostile()}, tmp_path / f"x{suffix}")
    with pytest.raises(CheckpointError) as error:
        load_model(path, device="cpu")
    one_line(error, "refused", "mkdir")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", b"PK\x03\x04 no archive"])
def test_a_damaged_file_is_refused(content, tmp_path):
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        load_model(tmp_path / "x.ckpt", device="cpu")
    one_line(error, "x.ckpt", "damaged or incomplete")


@pytest.mark.parametrize("value", [[1], {}, {5: torch.ones(1)}, torch.ones(1)])
def test_a_file_without_a_state_dict_is_refused(value, tmp_path):
    with pytest.raises(CheckpointError) as error:
        load_model(save(value, tmp_path / "x.ckpt"), device="cpu")
    one_line(error, "no state dict")


def test_an_official_file_with_another_suffix_is_read(th, model):
    assert_same(load_model(th.rename(th.with_suffix(".ckpt")), device="cpu"), model)


def test_a_state_dict_named_th_says_what_to_do(model, tmp_path):
    path = save(published_state(model), tmp_path / "x.th")
    with pytest.raises(CheckpointError) as error:
        load_model(path, device="cpu")
    one_line(error, "not an official checkpoint", "configuration")


def test_a_config_for_a_model_that_needs_none_is_refused(tmp_path):
    with pytest.raises(CheckpointError) as error:
        load_model("mini", config=tmp_path / "x.yaml", device="cpu")
    one_line(error, "mini describes its networks itself")


def torchaudio_state(network):
    """Return the parameters by torchaudio's names, with the norm that it does not use."""
    published_name, state = key_mapping(network.config), {}
    for name, value in network.state_dict().items():
        first, dot, rest = published_name(name).partition(".")
        first = first if first == "freq_emb" else "freq_" + first
        state[first.replace("freq_t", "time_") + dot + rest] = value
    unused = f"time_encoder.{network.config.outer_depth}.norm1"
    return state | {f"{unused}.weight": torch.ones(3), f"{unused}.bias": torch.ones(3)}


def test_torchaudio_s_names_are_known(tmp_path):
    torch.manual_seed(0)
    network = awake(HDemucs(HDemucsConfig(channels=16, n_fft=1024, depth=5)))
    path = save(torchaudio_state(network), tmp_path / "hdemucs_low.pt")
    loaded = load_model(path, device="cpu")
    assert loaded.config == network.config
    assert_same(loaded, network)


def test_a_torchaudio_network_that_cannot_be_run_is_refused(tmp_path):
    network = HDemucs(HDemucsConfig(channels=16, n_fft=1024, depth=5))
    state = torchaudio_state(network)
    table = torch.ones(256, 16)  # torchaudio's hdemucs_medium has an n_fft of 2048
    path = save(state | {"freq_emb.embedding.weight": table}, tmp_path / "medium.pt")
    with pytest.raises(CheckpointError) as error:
        load_model(path, device="cpu")
    one_line(error, "medium.pt", "n_fft must be a power of 4")
    del state["freq_emb.embedding.weight"]
    with pytest.raises(CheckpointError) as error:
        load_model(save(state, tmp_path / "x.pt"), device="cpu")
    one_line(error, "not one of torchaudio's HDemucs")
