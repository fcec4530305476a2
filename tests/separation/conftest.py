from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn


class Identity(nn.Module):
    """A model whose sources are the mixture, times 1 and times 2: the engine alone is tested."""

    sources = ("once", "twice")
    audio_channels = 2
    sample_rate = 1000
    segment = Fraction(1, 10)

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, mixture: Tensor) -> Tensor:
        self.shapes.append(tuple(mixture.shape))
        return torch.stack([mixture, 2 * mixture], dim=1)


@pytest.fixture
def identity() -> Identity:
    return Identity()
