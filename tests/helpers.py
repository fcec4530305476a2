"""What tests share: small networks whose every parameter matters, and how to compare."""

from fractions import Fraction
from typing import TypeVar

import torch
from torch import Tensor, nn

from htdemucs import DemucsConfig, HDemucsConfig, HTDemucsConfig
from htdemucs.model import Network

TINY = {
    "channels": 8,
    "depth": 2,
    "n_fft": 512,
    "bottom_channels": 16,
    "t_layers": 2,
    "t_heads": 2,
    "segment": 1,
    "sample_rate": 8000,
}
_OLDER = {
    "channels": 8,
    "depth": 4,
    "norm_starts": 2,
    "dconv_lstm": 2,
    "dconv_attn": 2,
    "segment": 1,
    "sample_rate": 8000,
}
OLDER = {  # the innermost two layers have norms, LSTM and attention
    "HDemucs": HDemucsConfig(n_fft=256, **_OLDER),
    "Demucs": DemucsConfig(**_OLDER),
}
N = TypeVar("N", bound=Network)


def awake(model: N) -> N:
    """Lift the layer scales from their tiny initial values, so that no branch is negligible."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("scale"):
                parameter.uniform_(0.1, 0.5)
    return model


def snr(reference: Tensor, estimate: Tensor) -> float:
    """Decibels by which the reference exceeds the difference; infinite where there is none."""
    noise = (reference.double() - estimate.double()).square().mean()
    return float(10 * torch.log10(reference.double().square().mean() / noise))


class Identity(Network):
    """A model whose sources are the mixture, times 1 and times 2: the engine alone is tested."""

    def __init__(self) -> None:
        segment = Fraction(1, 10)
        super().__init__(HTDemucsConfig(("once", "twice"), sample_rate=1000, segment=segment))
        self.unused = nn.Parameter(torch.zeros(1))
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, mixture: Tensor) -> Tensor:
        self.shapes.append(tuple(mixture.shape))
        return torch.stack([mixture, 2 * mixture], dim=1)
