"""Convolutions and linear maps by oneDNN, with weights that are reordered once."""

from typing import Any

import torch
from torch import Tensor

# Internal operations of torch, made for its compiler, without types or a stable interface: call
# `available` before use.
_ops: Any = torch.ops.mkldnn
_reorder: Any = getattr(torch._C._nn, "mkldnn_reorder_conv2d_weight", None)
_GELU: tuple[Any, ...] = ("gelu", [], "none")
_IDENTITY: tuple[Any, ...] = ("none", [], "")


def available() -> bool:
    """Whether this torch has oneDNN and the operations used here."""
    names = ("_convolution_pointwise", "_linear_pointwise", "_reorder_linear_weight")
    complete = _reorder is not None and all(hasattr(_ops, name) for name in names)
    return complete and torch.backends.mkldnn.is_available()


class Convolution:
    """A convolution over (T, F) of (B, T, F, C), by oneDNN.

    Weights are stored in the order that is fastest for inputs of `size`, (T, F); inputs of other
    sizes work too.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, padding: tuple[int, int], size: tuple[int, int],
        dtype: torch.dtype, *, gelu: bool = False,
    ) -> None:  # fmt: skip
        ones = (1, 1)
        self._weight = _reorder(
            weight.to(dtype).contiguous().to_mkldnn(), padding, ones, ones, 1,
            (1, weight.shape[1], *size),
        )  # fmt: skip
        self._bias = bias.detach().to(dtype, copy=True)
        self._padding = padding
        self._activation = _GELU if gelu else _IDENTITY

    def __call__(self, x: Tensor) -> Tensor:
        """(B, T, F, C) -> (B, T', F', C')"""
        y = _ops._convolution_pointwise(
            x.permute(0, 3, 1, 2), self._weight, self._bias,
            self._padding, (1, 1), (1, 1), 1, *self._activation,
        )  # fmt: skip
        return y.permute(0, 2, 3, 1)


class Linear:
    """A linear map of (B, N, C), by oneDNN."""

    def __init__(
        self, weight: Tensor, bias: Tensor, dtype: torch.dtype, *, gelu: bool = False
    ) -> None:
        self._weight = _ops._reorder_linear_weight(weight.to(dtype, copy=True))
        self._bias = bias.detach().to(dtype, copy=True)
        self._activation = _GELU if gelu else _IDENTITY

    def __call__(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C')"""
        return _ops._linear_pointwise(x, self._weight, self._bias, *self._activation)
