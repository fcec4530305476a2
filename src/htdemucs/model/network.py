"""The base class of all networks, their normalisation and their initial values."""

import dataclasses
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from htdemucs.environment import CheckpointFiles
from htdemucs.model.config import NetworkConfig, Seconds
from htdemucs.model.hub_mixin import Pretrained

EPSILON = 1e-5  # keeps silence finite when inputs are normalised


class Network(Pretrained, nn.Module):
    """A network that separates: (B, C, L) -> (B, S, C, L), for any L of at least 1.

    The parameters are initialised for training from scratch, from torch's global generator.

    Attributes:
        config: every size of the network.
        origin: the files that the parameters were read from; None if they were not read from files.
    """

    config: NetworkConfig
    origin: CheckpointFiles | None = None

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def empty(cls, config: NetworkConfig) -> Self:
        """Return a network with uninitialised parameters, to load a checkpoint into.

        Drawing initial values takes longer than reading a checkpoint. Torch's global generator does
        not change.
        """
        with torch.random.fork_rng(devices=[]), _NoInitialValues():
            network = cls(dataclasses.replace(config, rescale=0))
        network.config = config
        return network

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return self.config.sources

    @property
    def audio_channels(self) -> int:
        """Channels of mixture and sources."""
        return self.config.audio_channels

    @property
    def sample_rate(self) -> int:
        """Sample rate of mixture and sources, in Hz."""
        return self.config.sample_rate

    @property
    def segment(self) -> Seconds:
        """Seconds of a segment by default."""
        return self.config.segment

    @property
    def max_segment(self) -> Seconds | None:
        """Seconds of the longest segment that the network can separate well; None: any length."""
        return self.config.max_segment


class Denormalizer:
    """Undoes a normalisation, in the same way for every source."""

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.mean, self.std = mean.unsqueeze(1), std.unsqueeze(1)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, S, ...) -> (B, S, ...)"""
        return x * self.std + self.mean


def normalize(x: Tensor) -> tuple[Tensor, Denormalizer]:
    """Return x with zero mean and unit deviation in each item, and the function that undoes it."""
    dims = tuple(range(1, x.dim()))
    correction = int(x[0].numel() > 1)  # one value has a deviation of 0, not of 0 / 0
    std, mean = torch.std_mean(x, dim=dims, keepdim=True, correction=correction)
    return (x - mean) / (EPSILON + std), Denormalizer(mean, std)


@torch.no_grad()
def rescale_convolutions(module: nn.Module, reference: float) -> None:
    """Bring each convolution's initial deviation halfway, in decibels, to `reference`."""
    if not reference:
        return
    types = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
    for conv in (m for m in module.modules() if isinstance(m, types)):
        gain = (reference / conv.weight.std()).sqrt()
        conv.weight.mul_(gain)
        if conv.bias is not None:
            conv.bias.mul_(gain)


class _NoInitialValues(TorchFunctionMode):
    """Skips the functions that give the parameters of torch's layers random values."""

    DRAWS = frozenset(
        {nn.init.kaiming_uniform_, nn.init.xavier_uniform_, Tensor.uniform_, Tensor.normal_}
    )

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in self.DRAWS:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)
