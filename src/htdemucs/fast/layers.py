"""Encoder and decoder layers, of both branches, on (B, T, F, C)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from htdemucs.fast import kernels
from htdemucs.fast.kernels import LANES, DConvParameters
from htdemucs.fast.onednn import Convolution
from htdemucs.model.config import STRIDE
from htdemucs.model.layers import DConv

MARGIN = 2  # bins of zeros on each side, the padding of a strided convolution


class Encoder:
    """A layer of either encoder: (B, T, F + 4, C) -> (B, T, F / 4 + 4, C'), both with margins.

    Args:
        layer: the layer of the model.
        size: (T, F) of the output for a whole segment.
        dtype: of weights and activations.
    """

    def __init__(self, layer: Any, size: tuple[int, int], dtype: torch.dtype) -> None:
        frames, bins = size
        weight = layer.conv.weight  # (O, I, 8) or (O, I, 8, 1)
        grouped = weight.reshape(*weight.shape[:2], 2, STRIDE).permute(0, 3, 1, 2)
        grouped = grouped.reshape(len(weight), -1, 1, 2)  # input: a group's bins, then channels
        self._conv = Convolution(
            grouped, layer.conv.bias, (0, 0), (frames, bins + 1), dtype, gelu=True
        )
        self._dconv = PackedDConv(layer.dconv, weight.shape[0], weight.dim() == 4, dtype)
        self._rewrite = Convolution(
            layer.rewrite.weight.reshape(-1, len(weight), 1, 1), layer.rewrite.bias, (0, 0), size,
            dtype,
        )  # fmt: skip

    def __call__(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """(B, T, F + 4, C), (F / 4, C') -> (B, T, F / 4 + 4, C'), rounded up to a multiple of 4"""
        batch, frames, bins, channels = x.shape
        y = self._conv(x.view(batch, frames, bins // STRIDE, STRIDE * channels))
        y = self._rewrite(self._dconv(y))
        return kernels.glu(y, MARGIN, -y.shape[2] % STRIDE, embedding)


class Decoder:
    """A layer of either decoder: (B, T, F, C) and its skip -> (B, T, 4 F + 4, C') with margins."""

    def __init__(self, layer: Any, size: tuple[int, int], dtype: torch.dtype) -> None:
        weight = layer.rewrite.weight  # (O, I, 3) or (O, I, F, T)
        spectral = weight.dim() == 4
        kernel = weight.mT if spectral else weight[:, :, None]
        self._rewrite = Convolution(kernel, layer.rewrite.bias, (int(spectral), 1), size, dtype)
        self._dconv = PackedDConv(layer.dconv, weight.shape[1], spectral, dtype)
        weight = layer.conv_transpose.weight  # (I, O, 8) or (I, O, 8, 1)
        self._out_channels = weight.shape[1]
        # Each group of four bins comes from the input bin it starts at and from the one before.
        grouped = weight.reshape(*weight.shape[:2], 2, STRIDE).flip(2).permute(3, 1, 0, 2)
        grouped = grouped.reshape(-1, weight.shape[0], 1, 2)
        bias = layer.conv_transpose.bias.repeat(STRIDE)
        gelu = isinstance(layer.activation, nn.GELU)
        self._conv_transpose = Convolution(grouped, bias, (0, 1), size, dtype, gelu=gelu)

    def __call__(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, T, F, C), the same -> (B, T, 4 F + 4, C')"""
        y = self._dconv(self._rewrite(x + skip), glu=True)
        y = self._conv_transpose(y)
        batch, frames, groups = y.shape[:3]
        return y.reshape(batch, frames, groups * STRIDE, self._out_channels)


class PackedDConv:
    """A DConv with packed parameters.

    It normalises each frequency row (`rows`) or, in the time branch, over all samples.
    """

    def __init__(self, dconv: DConv, channels: int, rows: bool, dtype: torch.dtype) -> None:
        self._channels, self._rows = channels, rows
        self._tensors: list[Tensor] = []  # keeps the memory that the parameters point to
        layers = [self._parameters(layer, dtype) for layer in dconv]
        self._layers = (DConvParameters * len(layers))(*layers)

    def __call__(self, x: Tensor, *, glu: bool = False) -> Tensor:
        """(B, T, F, C), or 2C before a gated linear unit -> (B, T, F, C)"""
        if self._rows and len(self._layers):
            return kernels.dconv_rows(self._layers, x, self._channels, glu=glu)
        y = kernels.glu(x) if glu else x
        return kernels.dconv_line(self._layers, y) if len(self._layers) else y

    def _parameters(self, layer: Any, dtype: torch.dtype) -> DConvParameters:
        step = 1 if dtype == torch.float32 else 2
        hidden = layer.squeeze.weight.shape[0]
        padding, taps_padding = -hidden % LANES, -3 * hidden % LANES
        squeeze = layer.squeeze.weight.permute(1, 2, 0).flatten(1)  # (H, C, 3) -> (C, 3H)
        squeeze = F.pad(squeeze, (0, taps_padding)).unflatten(0, (-1, step)).mT
        expand = F.pad(layer.expand.weight[..., 0], (0, padding)).to(dtype)  # (2C, H)
        exact, bias = expand.detach().double(), layer.expand.bias.detach().double()

        def pointer(x: Tensor, to: torch.dtype = torch.float32) -> int:
            self._tensors.append(x.detach().to(to, copy=True).contiguous())
            return self._tensors[-1].data_ptr()

        def padded(x: Tensor) -> int:
            return pointer(F.pad(x, (0, padding)))

        return DConvParameters(
            squeeze=pointer(squeeze, dtype),
            squeeze_bias=padded(layer.squeeze.bias),
            squeeze_gain=padded(layer.squeeze_norm.weight),
            squeeze_offset=padded(layer.squeeze_norm.bias),
            expand=pointer(expand.unflatten(1, (-1, step)).permute(1, 0, 2), dtype),
            expand_bias=pointer(layer.expand.bias),
            expand_gain=pointer(layer.expand_norm.weight),
            expand_offset=pointer(layer.expand_norm.bias),
            layer_scale=pointer(layer.layer_scale.scale),
            weight_sum=pointer(exact.sum(0)),
            weight_bias=pointer(bias @ exact),
            weight_product=pointer(exact.T @ exact),
            bias_sum=float(bias.sum()),
            bias_square=float(bias.square().sum()),
            channels=self._channels,
            hidden=hidden,
            pitch=hidden + padding,
            taps_pitch=3 * hidden + taps_padding,
            dilation=layer.squeeze.dilation[0],
        )
