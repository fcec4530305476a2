"""Fixtures of every test."""

import pytest
import torch

from helpers import TINY, awake
from htdemucs import HTDemucs, HTDemucsConfig


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def tiny_config() -> HTDemucsConfig:
    return HTDemucsConfig(**TINY)


@pytest.fixture
def tiny_model(tiny_config) -> HTDemucs:
    return awake(HTDemucs(tiny_config)).eval()
