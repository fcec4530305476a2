"""The same network with its products in half precision, for GPUs."""

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from htdemucs.model import Network
from htdemucs.model.hybrid import HybridNetwork

PRODUCTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
SPECTRAL = ("spectral_encoder", "spectral_decoder", "frequency_embedding", "merge", "split")
TIME = ("time_encoder", "time_decoder")
N = TypeVar("N", bound=Network)


def in_half(network: N, dtype: torch.dtype) -> N:
    """Return a copy of the network to be run under autocast, with weights already cast.

    Outer layers, whose tensors are the largest, ignore autocast: on a GPU it would have their norms
    in float32, and so would move as many bytes as float32 does. Torch's norms add up in float32
    anyhow. With float16 the spectral layers are in float32: some of their values exceed the range
    of float16 (a pure tone is thousands of deviations loud in its bin).
    """
    twin = copy.deepcopy(network)
    for module in twin.modules():
        if isinstance(module, PRODUCTS):
            module.to(dtype)
    if isinstance(network, HybridNetwork):
        spectral_dtype = torch.float32 if dtype == torch.float16 else dtype
        for names, own_dtype in ((SPECTRAL, spectral_dtype), (TIME, dtype)):
            for name in filter(network._modules.__contains__, names):
                setattr(twin, name, _all_in(getattr(network, name), own_dtype))
    return twin


def _all_in(part: nn.Module, dtype: torch.dtype) -> nn.Module:
    if isinstance(part, nn.ModuleList):
        return nn.ModuleList(_Layer(copy.deepcopy(layer).to(dtype), dtype) for layer in part)
    return _Layer(copy.deepcopy(part).to(dtype), dtype)


class _Layer(nn.Module):
    """A layer that ignores autocast."""

    def __init__(self, layer: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self._layer, self._dtype = layer, dtype

    def forward(self, *inputs: Any) -> Any:
        with torch.autocast(inputs[0].device.type, enabled=False):
            return self._layer(*(x.to(self._dtype) if isinstance(x, Tensor) else x for x in inputs))
