"""The published package reads and runs what `htdemucs convert` writes for it."""

import hashlib
from fractions import Fraction

import pytest
import torch
from click.testing import CliRunner
from demucs.apply import BagOfModels, apply_model
from demucs.pretrained import get_model

from helpers import OLDER, TINY, awake, snr
from htdemucs import Bag, CheckpointError, HTDemucs, HTDemucsConfig, load_model, save_model
from htdemucs.cli.main import cli
from htdemucs.model import build
from htdemucs.weights import demucs_format

CONFIGS = {
    "HTDemucs": HTDemucsConfig(**TINY),
    "without a transformer": HTDemucsConfig(**TINY | {"t_layers": 0, "bottom_channels": 0}),
    **OLDER,
}
CONFIGS["HTDemucs, seven layers"] = HTDemucsConfig(
    **TINY | {"segment": Fraction(39, 5), "freq_emb": 0, "t_layers": 7, "dconv_mode": 1}
)


def network(name, seed=0):
    """Return a network whose parameters are not exact in float16, as a trained one's."""
    torch.manual_seed(seed)
    return awake(build(CONFIGS[name])).eval()


def convert(*words):
    result = CliRunner().invoke(cli, ["convert", *map(str, words)])
    assert result.exit_code == 0, result.output


def separated(model, mixture):
    """(B, C, L) -> (B, S, C, L), by the published engine"""
    return apply_model(model, mixture, shifts=0, split=False, device="cpu")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_network_runs_in_the_published_package(name, tmp_path):
    save_model(network(name), tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "repo" / "out.th")
    published = get_model("out", tmp_path / "repo")
    ours = load_model(tmp_path / "repo" / "out.th", device="cpu")
    assert published.segment == ours.segment
    assert published.sources == list(ours.sources)
    published.use_train_segment = False  # else it pads to its training length
    mixture = 0.1 * torch.randn(2, 2, 5_001)
    with torch.no_grad():
        assert snr(published(mixture), ours(mixture)) >= 100
        assert snr(network(name)(mixture), ours(mixture)) >= 40  # rounded to float16


def test_a_bag_runs_in_the_published_package(tmp_path):
    members = [network("HTDemucs", seed) for seed in (1, 2)]
    bag = Bag(members, [[1, 0, 0.5, 1], [0, 2, 0.25, 1]], Fraction(1, 2)).eval()
    save_model(bag, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "repo" / "two-of-mine.yaml")
    files = list((tmp_path / "repo").glob("*.th"))
    assert len(files) == 2
    for file in files:
        _, checksum = file.stem.split("-")
        assert hashlib.sha256(file.read_bytes()).hexdigest().startswith(checksum)
    published = get_model("two-of-mine", tmp_path / "repo")
    ours = load_model("two-of-mine", repo=tmp_path / "repo", device="cpu")
    assert torch.equal(ours.weights, bag.weights)
    assert [float(member.segment) for member in published.models] == [0.5, 0.5]
    assert ours.segment == 0.5
    mixture = 0.1 * torch.randn(1, 2, 4_000)  # one segment
    with torch.no_grad():
        assert snr(separated(published, mixture), ours(mixture)) >= 100


def test_a_network_becomes_a_bag_of_one(tmp_path):
    save_model(network("HDemucs"), tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "repo" / "mine.yaml")
    published = get_model("mine", tmp_path / "repo")
    assert isinstance(published, BagOfModels)
    again = load_model("mine", repo=tmp_path / "repo", device="cpu")
    assert again.config == network("HDemucs").config
    convert("mine", tmp_path / "repo" / "mine.yaml", "--repo", tmp_path / "repo")
    assert len(list((tmp_path / "repo").glob("*.th"))) == 1  # the same contents, the same name


def test_what_the_published_class_cannot_express_is_refused(tmp_path):
    changed = HTDemucs(HTDemucsConfig(**TINY)).eval()
    changed.transformer.register_forward_hook(lambda module, args, output: output)
    with pytest.raises(CheckpointError, match="published class cannot express that"):
        demucs_format.write(changed, tmp_path / "changed.th")
    limited = Bag([network("HTDemucs")], sources=["vocals"])
    with pytest.raises(CheckpointError, match="save the whole bag"):
        demucs_format.write_bag(limited, tmp_path / "limited.yaml")
    assert not list(tmp_path.iterdir())
