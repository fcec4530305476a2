"""Demucs in the time domain, with the residual branches of its version 3 (arXiv 2111.03600).

Shapes: B batch, S source, C channel, L sample.
"""

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from htdemucs.errors import ConfigError
from htdemucs.model.config import KERNEL_SIZE, STRIDE, ContextConfig
from htdemucs.model.layers import DConv, Kernel, NormedDecoderLayer, NormedEncoderLayer
from htdemucs.model.lstm_attention import make_context
from htdemucs.model.network import EPSILON, Denormalizer, Network, rescale_convolutions

OVERSAMPLING = 2  # the network works at twice the track's sample rate
KERNEL = Kernel(KERNEL_SIZE, STRIDE, edge=0)
ZERO_CROSSINGS = 24  # of a resampling filter, on each side
ROLLOFF = 0.945  # the filter's edge, relative to half the lower rate


@dataclass(frozen=True)
class DemucsConfig(ContextConfig):
    """One time-domain Demucs, as published. The defaults are those of the published class.

    Attributes:
        normalize: bring each mixture to zero mean and unit deviation, and its sources back.
    """

    channels: int = 64
    dconv_init: float = 1e-4
    normalize: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm_starts < 1:
            raise ConfigError("norm_starts must be at least 1: the outermost layer has no norm")

    def window_length(self, length: int, segment_length: int) -> int:  # noqa: ARG002
        """Return the next length that no layer has to pad."""
        steps = OVERSAMPLING * length
        for _ in range(self.depth):
            steps = max(1, math.ceil((steps - KERNEL_SIZE) / STRIDE) + 1)
        for _ in range(self.depth):
            steps = (steps - 1) * STRIDE + KERNEL_SIZE
        return steps // OVERSAMPLING

    def margin(self, segment_length: int) -> int:
        """Return half the shortest window: longer windows exceed their segments by less."""
        return self.window_length(1, segment_length) // 2

    def activation_size(self, length: int) -> int:
        """Return how many values the outermost layer computes for `length` samples."""
        return 2 * self.channels * OVERSAMPLING * length // STRIDE


class Demucs(Network):
    """A U-Net on the waveform, at twice its sample rate.

    Args:
        config: every size of the network; the default is that of the published class.
    """

    config: DemucsConfig

    def __init__(self, config: DemucsConfig | None = None) -> None:
        config = config or DemucsConfig()
        super().__init__(config)
        self.upsample, self.downsample = Upsample(), Downsample()
        self.encoder, self.decoder = _layers(config)
        rescale_convolutions(self, config.rescale)

    def forward(self, mixture: Tensor) -> Tensor:
        """(B, C, L) -> (B, S, C, L), for any L of at least 1."""
        length = mixture.shape[-1]
        missing = self.config.window_length(length, length) - length
        x, denormalize = _normalize(mixture) if self.config.normalize else (mixture, None)
        x = self.upsample(F.pad(x, (missing // 2, missing - missing // 2)))

        skips, lengths = [], []
        for layer in self.encoder:
            lengths.append(x.shape[-1])
            x = layer(x)
            skips.append(x)
        for layer in self.decoder:
            x = layer(x, skips.pop(), lengths.pop())

        x = self.downsample(x)[..., missing // 2 : missing // 2 + length]
        x = rearrange(x, "b (s c) l -> b s c l", s=len(self.sources))
        return denormalize(x) if denormalize else x


class Resampling(nn.Module):
    """Windowed-sinc filters between the track's sample rate and twice that rate."""

    filters: Tensor

    def __init__(self, delays: list[float], density: int) -> None:
        super().__init__()
        self.width = math.ceil(ZERO_CROSSINGS * density / ROLLOFF)  # of a filter, on each side
        samples = torch.arange(-self.width, self.width + density) / density
        time = (ROLLOFF * (samples - torch.tensor(delays)[:, None])).clamp(
            -ZERO_CROSSINGS, ZERO_CROSSINGS
        )
        filters = time.sinc() * torch.cos(math.pi / 2 * time / ZERO_CROSSINGS).square()
        filters = filters / filters.sum(-1, keepdim=True)  # a constant is not changed
        self.register_buffer("filters", filters[:, None], persistent=False)

    def _filter(self, x: Tensor, stride: int) -> Tensor:
        """(B, C, L) -> (B, C, filter, ceil(L / stride)); x is padded with its end values"""
        b, c, length = x.shape
        edges = (self.width, self.width + stride)
        padded = F.pad(x.reshape(b * c, 1, length), edges, mode="replicate")
        y = F.conv1d(padded, self.filters.to(x.dtype), stride=stride)
        return y[..., : math.ceil(length / stride)].unflatten(0, (b, c))


class Upsample(Resampling):
    """Doubles the sample rate: one filter for the samples, one for the points between them."""

    def __init__(self) -> None:
        super().__init__([0, 1 / OVERSAMPLING], 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, L) -> (B, C, 2 L)"""
        return rearrange(self._filter(x, 1), "b c filter l -> b c (l filter)")


class Downsample(Resampling):
    """Halves the sample rate."""

    def __init__(self) -> None:
        super().__init__([0], OVERSAMPLING)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 2 L) -> (B, C, L)"""
        return self._filter(x, OVERSAMPLING)[:, :, 0]


def _normalize(mixture: Tensor) -> tuple[Tensor, Denormalizer]:
    """Return a mixture whose mono mix has zero mean and unit deviation, and the inverse of that."""
    mono = mixture.mean(1, keepdim=True)
    correction = int(mixture.shape[-1] > 1)  # one sample has a deviation of 0, not of 0 / 0
    std, mean = torch.std_mean(mono, dim=-1, keepdim=True, correction=correction)
    return (mixture - mean) / (EPSILON + std), Denormalizer(mean, std)


def _layers(config: DemucsConfig) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Return the encoder, outermost layer first, and the decoder, innermost layer first."""
    encoder, decoder = nn.ModuleList(), nn.ModuleList()
    outer, outputs = config.audio_channels, config.audio_channels * len(config.sources)
    decoder_depth = config.dconv_depth if config.dconv_mode == 3 else 0
    for i, width in enumerate(config.layer_channels):
        groups = config.groups(i)
        context = make_context(i >= config.dconv_lstm, i >= config.dconv_attn)
        dconv = DConv(width, config.dconv_comp, config.dconv_depth, config.dconv_init, context)
        encoder.append(NormedEncoderLayer(outer, width, KERNEL, dconv, groups))
        dconv = DConv(width, config.dconv_comp, decoder_depth, config.dconv_init, context)
        outermost = not i
        decoder.insert(
            0,
            NormedDecoderLayer(
                width, outputs if outermost else outer, KERNEL, dconv, groups, outermost
            ),
        )
        outer = width
    return encoder, decoder
