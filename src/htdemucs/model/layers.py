"""The U-Net's building blocks. Spectral tensors are (B, C, F, T), time tensors (B, C, L)."""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from htdemucs.model.config import KERNEL_SIZE, STRIDE

EDGE = (KERNEL_SIZE - STRIDE) // 2  # bins of a strided kernel beyond its stride, on each side


class LayerScale(nn.Module):
    """A learnt gain for each channel of a residual branch, small at first (arXiv 2103.17239)."""

    def __init__(self, channels: int, init: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), init))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)"""
        return self.scale * x


class GlobalNorm(nn.GroupNorm):
    """Normalises all channels and positions of an item together: GroupNorm with one group."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> (B, C, ...); an item may be a single value."""
        return torch.group_norm(x, 1, self.weight, self.bias, self.eps)


class DConvLayer(nn.Module):
    """One residual branch of a DConv: a dilated convolution through a bottleneck."""

    def __init__(self, channels: int, hidden: int, dilation: int, init: float) -> None:
        super().__init__()
        self.squeeze = nn.Conv1d(channels, hidden, 3, dilation=dilation, padding=dilation)
        self.squeeze_norm = GlobalNorm(hidden)
        self.expand = nn.Conv1d(hidden, 2 * channels, 1)
        self.expand_norm = GlobalNorm(2 * channels)
        self.layer_scale = LayerScale(channels, init)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T)"""
        y = F.gelu(self.squeeze_norm(self.squeeze(x)))
        y = F.glu(self.expand_norm(self.expand(y)), dim=1)
        return x + self.layer_scale(y.mT).mT


class DConv(nn.Sequential):
    """Residual layers with dilations 1, 2, 4, …; without layers it is the identity."""

    def __init__(self, channels: int, compression: float, depth: int, init: float) -> None:
        hidden = int(channels / compression)
        super().__init__(*(DConvLayer(channels, hidden, 2**d, init) for d in range(depth)))


class SpectralDConv(DConv):
    """A DConv along time in which each frequency row is an item of its own."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T) -> (B, C, F, T)"""
        rows = rearrange(x, "b c f t -> (b f) c t")
        for layer in self:
            rows = layer(rows)
        return rearrange(rows, "(b f) c t -> b c f t", f=x.shape[2])


class SpectralEncoderLayer(nn.Module):
    """Divides the number of bins by four; frames are not changed."""

    def __init__(self, in_channels: int, out_channels: int, dconv: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, (KERNEL_SIZE, 1), (STRIDE, 1), padding=(EDGE, 0)
        )
        self.dconv = dconv
        self.rewrite = nn.Conv2d(out_channels, 2 * out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T) -> (B, C', F / 4, T)"""
        y = self.dconv(F.gelu(self.conv(x)))
        return F.glu(self.rewrite(y), dim=1)


class TimeEncoderLayer(nn.Module):
    """Divides the number of samples by four, rounding up."""

    def __init__(self, in_channels: int, out_channels: int, dconv: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, KERNEL_SIZE, STRIDE, padding=EDGE)
        self.dconv = dconv
        self.rewrite = nn.Conv1d(out_channels, 2 * out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, L) -> (B, C', ceil(L / 4))"""
        x = F.pad(x, (0, -x.shape[-1] % STRIDE))
        y = self.dconv(F.gelu(self.conv(x)))
        return F.glu(self.rewrite(y), dim=1)


class SpectralDecoderLayer(nn.Module):
    """Mirrors a spectral encoder layer: multiplies the number of bins by four."""

    def __init__(
        self, in_channels: int, out_channels: int, dconv: nn.Module, activation: nn.Module
    ) -> None:
        super().__init__()
        self.rewrite = nn.Conv2d(in_channels, 2 * in_channels, 3, padding=1)
        self.dconv = dconv
        self.conv_transpose = nn.ConvTranspose2d(
            in_channels, out_channels, (KERNEL_SIZE, 1), (STRIDE, 1), padding=(EDGE, 0)
        )
        self.activation = activation

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, C, F, T), (B, C, F, T) -> (B, C', 4 F, T)"""
        y = self.dconv(F.glu(self.rewrite(x + skip), dim=1))
        return self.activation(self.conv_transpose(y))


class TimeDecoderLayer(nn.Module):
    """Mirrors a time encoder layer: returns to the length of that layer's input."""

    def __init__(
        self, in_channels: int, out_channels: int, dconv: nn.Module, activation: nn.Module
    ) -> None:
        super().__init__()
        self.rewrite = nn.Conv1d(in_channels, 2 * in_channels, 3, padding=1)
        self.dconv = dconv
        self.conv_transpose = nn.ConvTranspose1d(
            in_channels, out_channels, KERNEL_SIZE, STRIDE, padding=EDGE
        )
        self.activation = activation

    def forward(self, x: Tensor, skip: Tensor, length: int) -> Tensor:
        """(B, C, ceil(length / 4)), the same -> (B, C', length)"""
        y = self.dconv(F.glu(self.rewrite(x + skip), dim=1))
        return self.activation(self.conv_transpose(y)[..., :length])


class FrequencyEmbedding(nn.Module):
    """A learnt vector for each frequency bin, stored divided by `scale` (a larger learning rate).

    Initial vectors are smooth: each is the running sum of random ones, scaled to unit variance.
    """

    def __init__(self, rows: int, channels: int, scale: float, weight: float) -> None:
        super().__init__()
        steps = torch.randn(rows, channels).cumsum(0) / torch.arange(1, rows + 1)[:, None].sqrt()
        self.table = nn.Parameter(steps / scale)
        self.gain = scale * weight

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T) -> (B, C, F, T)"""
        return x + self.gain * self.table.T[:, :, None]
