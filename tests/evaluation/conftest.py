"""A data folder of two short tracks, and estimates of them."""

import pytest
import torch

from evaluation_data import LENGTHS, STEMS, noise, write, write_track
from helpers import TINY, awake
from htdemucs import HTDemucs, HTDemucsConfig, save_model


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    for i, (name, length) in enumerate(LENGTHS.items()):
        write_track(folder / name, 10 * i, length)
    return folder


@pytest.fixture
def truth(data):
    """The tracks' stems, as they were written."""
    return {
        name: torch.stack([noise(10 * i + j, length) for j in range(len(STEMS))])
        for i, (name, length) in enumerate(LENGTHS.items())
    }


@pytest.fixture
def estimates(tmp_path, truth):
    """Stems with a tenth of noise."""
    folder = tmp_path / "estimates"
    for name, stems in truth.items():
        for i, stem in enumerate(STEMS):
            spoiled = stems[i] + 0.1 * noise(99 + i, stems.shape[-1])
            write(folder / name / f"{stem}.wav", spoiled)
    return folder


@pytest.fixture
def model_folder(tmp_path):
    folder = tmp_path / "tiny"
    save_model(awake(HTDemucs(HTDemucsConfig(**TINY))), folder)
    return folder
