"""Checkpoints of Music-Source-Separation-Training (MSST) and torchaudio equal their networks."""

import pytest
import torch
import yaml
from click.testing import CliRunner
from demucs.demucs import Demucs as PublishedDemucs
from demucs.hdemucs import HDemucs as PublishedHDemucs

from helpers import noise_song, snr
from htdemucs import CheckpointError, load_model
from htdemucs.cli.main import cli
from htdemucs.weights.load import reload_networks

from .conftest import SMALL, SMALL_DEMUCS, SMALL_HDEMUCS, PublishedHTDemucs, build

KINDS = {
    "htdemucs": (PublishedHTDemucs, SMALL),
    "hdemucs": (PublishedHDemucs, SMALL_HDEMUCS),
    "demucs": (PublishedDemucs, SMALL_DEMUCS),
}
TRAINING = {"instruments": ["vocals", "other"], "channels": 2, "samplerate": 44100, "segment": 1}
# As MSST's files are: with tuples of Python, empty values, and numbers without a point.
TEXT = """
audio:
  chunk_size: 44100 # samplerate * segment
training:
  instruments: ['vocals', 'other']
  target_instrument: null
  channels: 2
  samplerate: 44100
  segment: 1
  lr: 9.0e-05
augmentations:
  mixup_probs: !!python/tuple # 2 additional stems
    - 0.2
    - 0.02
inference:
  num_overlap: 2
model: {model}
{model}:
  channels_time:
  t_lr:
"""


def checkpoint(folder, model, wrapper=None, **changes):
    """Write a checkpoint and its yaml file; return the published network and the paths."""
    kind, small = KINDS[model]
    keywords = {k: v for k, v in small.items() if k not in ("sources", "audio_channels")}
    keywords = {k: v for k, v in keywords.items() if k not in ("samplerate", "segment")}
    keywords |= changes
    trained = {"sources": TRAINING["instruments"], "segment": 1}
    network = build(keywords | trained | {"audio_channels": 2, "samplerate": 44100}, kind=kind)
    written = keywords | ({"num_subbands": 1} if model == "htdemucs" else {})
    text = TEXT.replace("{model}", model).replace("  channels_time:\n  t_lr:\n", "")
    text += "".join(f"  {k}: {'' if v is None else v}\n" for k, v in written.items())
    text = text.replace("0.001", "1e-3")
    path = folder / f"model_{model}_sdr_8.78.ckpt"
    state = network.state_dict()
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, path)
    path.with_suffix(".yaml").write_text(text)
    return network, path, path.with_suffix(".yaml")


@pytest.mark.parametrize("wrapper", [None, "state_dict"])
@pytest.mark.parametrize("model", KINDS)
def test_outputs_agree(model, wrapper, tmp_path):
    changes = {"dconv_init": 1e-3} | ({"freq_emb": 0.3} if model != "demucs" else {})
    published, path, _ = checkpoint(tmp_path, model, wrapper, **changes)
    published.use_train_segment = False  # as in MSST
    ours = load_model(path, device="cpu")
    assert ours.sources == ("vocals", "other")
    assert ours.segment == 1
    for length in (2, 1024, 5_001):
        mixture = 0.1 * torch.randn(2, 2, length)
        with torch.no_grad():
            assert snr(published(mixture), ours(mixture)) >= 100, length


def test_the_yaml_file_may_be_anywhere_and_is_one_of_the_model_s_files(tmp_path):
    _, path, config = checkpoint(tmp_path, "htdemucs")
    elsewhere = config.rename(tmp_path / "config_vocals.yaml")
    with pytest.raises(
        CheckpointError, match=r"sdr_8\.78\.yaml, or give it as the configuration"
    ) as error:
        load_model(path, device="cpu")
    assert len(str(error.value).splitlines()) == 1
    model = load_model(path, config=elsewhere, device="cpu")
    assert model.origin.files == (path, elsewhere)
    [again] = reload_networks([model])
    assert again.config == model.config


def test_the_command_separates_with_it(tmp_path):
    _, path, config = checkpoint(tmp_path, "htdemucs")
    elsewhere = config.rename(tmp_path / "config_vocals.yaml")
    song, out = noise_song(tmp_path / "song.wav", seconds=1.5), tmp_path / "out"
    words = ["separate", song, "-n", path, "--config", elsewhere, "-o", out, "-d", "cpu"]
    result = CliRunner().invoke(cli, list(map(str, words)))
    assert result.exit_code == 0, result.output
    assert sorted(file.stem for file in out.rglob("*.wav")) == ["other", "vocals"]
    words = ["convert", path, tmp_path / "ours", "--config", elsewhere]
    assert CliRunner().invoke(cli, list(map(str, words))).exit_code == 0
    assert load_model(tmp_path / "ours", device="cpu").sources == ("vocals", "other")


def test_in_a_repo_it_is_found_by_its_name(tmp_path):
    _, path, _ = checkpoint(tmp_path, "hdemucs")
    assert load_model(path.stem, repo=tmp_path, device="cpu").sources == ("vocals", "other")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_subbands": 4}, "sets num_subbands=4"),
        ({"t_emb": "cape"}, "sets t_emb=cape"),
        ({"t_layers": 9}, "lacks parameters"),
    ],
)
def test_a_network_that_cannot_be_run_is_refused_in_one_line(changes, message, tmp_path):
    _, path, config = checkpoint(tmp_path, "htdemucs")
    fields = yaml.safe_load(config.read_text().replace("!!python/tuple", ""))
    fields["htdemucs"] |= changes
    config.write_text(yaml.safe_dump(fields))
    with pytest.raises(CheckpointError, match=message) as error:
        load_model(path, device="cpu")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("sizes", [{"channels": 16, "nfft": 1024, "depth": 5}, {"channels": 8}])
def test_torchaudio_s_outputs_agree(sizes, tmp_path):
    models = pytest.importorskip("torchaudio.models", reason="parity needs torchaudio")
    theirs = build({"sources": ["drums", "bass", "other", "vocals"]} | sizes, 0, models.HDemucs)
    torch.save(theirs.state_dict(), tmp_path / "hdemucs.pt")
    ours = load_model(tmp_path / "hdemucs.pt", device="cpu")
    for length in (1024, 40_001):
        mixture = 0.1 * torch.randn(1, 2, length)
        with torch.no_grad():
            assert snr(theirs(mixture), ours(mixture)) >= 100, length
