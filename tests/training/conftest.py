"""The data folder of the training tests, made once, and configurations for it."""

import pytest
import torch

import training_data
from htdemucs.training import read_config


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return training_data.musdb(tmp_path_factory.mktemp("musdb18hq"))


@pytest.fixture
def make_config(data, tmp_path):
    """Write a configuration with some fields changed; give it read."""

    def make(out="run", words=(), **changes):
        fields = training_data.fields(data, tmp_path / out, **changes)
        path = training_data.write_config(tmp_path / f"{out}.yaml", fields)
        return read_config(path, words)

    return make


@pytest.fixture(autouse=True)
def _one_thread():
    """Networks this small are slower with more; and bits depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
