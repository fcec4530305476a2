"""The U-Net's building blocks. Spectral tensors are (B, C, F, T), time tensors (B, C, L)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from htdemucs.model.config import KERNEL_SIZE, STRIDE, HybridConfig


@dataclass(frozen=True)
class Kernel:
    """Sizes of a strided convolution, whose input is padded with `edge` zeros on each side."""

    size: int
    stride: int
    edge: int


EDGE = (KERNEL_SIZE - STRIDE) // 2  # padding: bins of a kernel beyond its stride, on each side


class LayerScale(nn.Module):
    """A learnt gain for each channel of a residual branch, small at first (arXiv 2103.17239)."""

    def __init__(self, channels: int, init: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), init))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)"""
        return self.scale * x


class GroupNorm(nn.GroupNorm):
    """Normalises the channels of a group and all positions of an item together."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> (B, C, ...); a group may be a single value."""
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class GlobalNorm(GroupNorm):
    """Normalises all channels and positions of an item together."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)


def norm(channels: int, groups: int) -> nn.Module:
    """Return a norm with that many groups; an identity if `groups` is 0."""
    return GroupNorm(groups, channels) if groups else nn.Identity()


class DConvLayer(nn.Module):
    """One residual branch of a DConv: a dilated convolution to fewer channels, and back.

    `context` is a module between the two, on (B, hidden, T), with a longer reach along time.
    """

    def __init__(
        self, channels: int, hidden: int, dilation: int, init: float, context: nn.Module
    ) -> None:
        super().__init__()
        self.squeeze = nn.Conv1d(channels, hidden, 3, dilation=dilation, padding=dilation)
        self.squeeze_norm = GlobalNorm(hidden)
        self.context = context
        self.expand = nn.Conv1d(hidden, 2 * channels, 1)
        self.expand_norm = GlobalNorm(2 * channels)
        self.layer_scale = LayerScale(channels, init)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T)"""
        y = self.context(F.gelu(self.squeeze_norm(self.squeeze(x))))
        y = F.glu(self.expand_norm(self.expand(y)), dim=1)
        return x + self.layer_scale(y.mT).mT


class DConv(nn.Sequential):
    """Residual layers with dilations 1, 2, 4, …; the identity if `depth` is 0."""

    def __init__(
        self,
        channels: int,
        compression: float,
        depth: int,
        init: float,
        context: Callable[[int], nn.Module] = nn.Identity,
    ) -> None:
        hidden = int(channels / compression)
        super().__init__(
            *(DConvLayer(channels, hidden, 2**d, init, context(hidden)) for d in range(depth))
        )


class SpectralDConv(DConv):
    """A DConv along time that treats each frequency bin as a separate item of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T) -> (B, C, F, T)"""
        rows = rearrange(x, "b c f t -> (b f) c t")
        for layer in self:
            rows = layer(rows)
        return rearrange(rows, "(b f) c t -> b c f t", f=x.shape[2])


class SpectralEncoderLayer(nn.Module):
    """Divides the number of bins by four and keeps the frames.

    `edge` is the padding in bins on each side.
    """

    def __init__(
        self, in_channels: int, out_channels: int, dconv: nn.Module, edge: int = EDGE
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, (KERNEL_SIZE, 1), (STRIDE, 1), padding=(edge, 0)
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
    """Mirrors a spectral encoder layer: multiplies the number of bins by four.

    `edge` bins on each side of the result are cut off. `near` is the padding of the convolution
    before, which sees that many bins on each side of a bin.
    """

    def __init__(
        self, in_channels: int, out_channels: int, dconv: nn.Module, activation: nn.Module,
        *, edge: int = EDGE, near: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.rewrite = nn.Conv2d(in_channels, 2 * in_channels, (2 * near + 1, 3), padding=(near, 1))
        self.dconv = dconv
        self.conv_transpose = nn.ConvTranspose2d(
            in_channels, out_channels, (KERNEL_SIZE, 1), (STRIDE, 1), padding=(edge, 0)
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


class NormedEncoderLayer(nn.Module):
    """Divides the number of steps by the stride, rounding up; with norms if there are `groups`."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: Kernel, dconv: nn.Module, groups: int
    ) -> None:
        super().__init__()
        self.kernel = kernel
        self.conv = nn.Conv1d(
            in_channels, out_channels, kernel.size, kernel.stride, padding=kernel.edge
        )
        self.norm = norm(out_channels, groups)
        self.dconv = dconv
        self.rewrite = nn.Conv1d(out_channels, 2 * out_channels, 1)
        self.rewrite_norm = norm(2 * out_channels, groups)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, L) -> (B, C', ceil(L / stride)); one step less for a kernel without edge"""
        x = F.pad(x, (0, -x.shape[-1] % self.kernel.stride))
        y = self.dconv(F.gelu(self.norm(self.conv(x))))
        return F.glu(self.rewrite_norm(self.rewrite(y)), dim=1)


class NormedDecoderLayer(nn.Module):
    """Mirrors a `NormedEncoderLayer`: returns to the length of that layer's input.

    The outermost layer has neither activation nor norm at its end.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: Kernel, dconv: nn.Module, groups: int,
        outermost: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel = kernel
        self.rewrite = nn.Conv1d(in_channels, 2 * in_channels, 3, padding=1)
        self.rewrite_norm = norm(2 * in_channels, groups)
        self.dconv = dconv
        self.conv_transpose = nn.ConvTranspose1d(
            in_channels, out_channels, kernel.size, kernel.stride
        )
        self.norm = norm(out_channels, 0 if outermost else groups)
        self.activation: nn.Module = nn.Identity() if outermost else nn.GELU()

    def forward(self, x: Tensor, skip: Tensor, length: int) -> Tensor:
        """(B, C, L), (B, C, L) -> (B, C', length)"""
        y = self.dconv(F.glu(self.rewrite_norm(self.rewrite(x + skip)), dim=1))
        y = self.norm(self.conv_transpose(y))  # the norm sees the edges too
        return self.activation(y[..., self.kernel.edge : self.kernel.edge + length])


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


def frequency_embedding(config: HybridConfig) -> nn.Module:
    """Return the embedding for the outputs of the first spectral layer; an identity without one."""
    if not config.freq_emb:
        return nn.Identity()
    rows = config.bins // STRIDE
    return FrequencyEmbedding(rows, config.channels, config.emb_scale, config.freq_emb)
