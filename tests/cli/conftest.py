import pytest
import torch
from click.testing import CliRunner

from helpers import TINY, awake
from htdemucs import AudioEncoding, HTDemucs, HTDemucsConfig, save_model
from htdemucs.audio import AudioWriter
from htdemucs.cli.main import cli


@pytest.fixture
def run():
    """Return a function that runs a command line and returns its result."""

    def invoke(*words):
        return CliRunner().invoke(cli, [str(word) for word in words])

    return invoke


@pytest.fixture
def model_folder(tmp_path):
    folder = tmp_path / "tiny"
    save_model(awake(HTDemucs(HTDemucsConfig(**TINY))), folder)
    return folder


@pytest.fixture
def song(tmp_path):
    path = tmp_path / "A song.flac"
    with AudioWriter(path, 8000, 2, AudioEncoding("flac")) as writer:
        writer.write(0.1 * torch.randn(2, 20_000, generator=torch.Generator().manual_seed(1)))
    return path
