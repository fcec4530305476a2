"""The cross-domain transformer, on (B, N, C)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from htdemucs.fast import kernels
from htdemucs.fast.onednn import Linear
from htdemucs.model.transformer import (
    CrossDomainTransformer,
    SelfAttentionLayer,
    spectral_positions,
    time_positions,
)


class Transformer:
    """The cross-domain transformer; the residual streams are float32."""

    def __init__(self, transformer: CrossDomainTransformer, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._in = [_projection(x, dtype) for x in (transformer.spectral_in, transformer.time_in)]
        self._norms = [_Norm(x) for x in (transformer.spectral_norm, transformer.time_norm)]
        self._spectral = [_TransformerLayer(x, dtype) for x in transformer.spectral_layers]
        self._time = [_TransformerLayer(x, dtype) for x in transformer.time_layers]
        self._out = [
            _projection(x, dtype) for x in (transformer.spectral_out, transformer.time_out)
        ]

    def __call__(self, spectral: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, F, C), (B, 1, L, C) -> the same shapes"""
        frames, bins = spectral.shape[1:3]
        x, y = (
            norm(project(tokens.flatten(1, 2)).float(), torch.float32)
            for project, norm, tokens in zip(self._in, self._norms, (spectral, time), strict=True)
        )
        x += spectral_positions(bins, frames, x.shape[-1], x.device)
        y += time_positions(y.shape[1], y.shape[-1], y.device)
        for spectral_layer, time_layer in zip(self._spectral, self._time, strict=True):
            contexts = spectral_layer.context(y), time_layer.context(x)
            spectral_layer(x, contexts[0])
            time_layer(y, contexts[1])
        x, y = (project(z.to(self._dtype)) for project, z in zip(self._out, (x, y), strict=True))
        return x.unflatten(1, (frames, bins)), y[:, None]


class _TransformerLayer:
    """A self- or cross-attention layer, in place."""

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        attention, feed_forward = layer.attention, layer.feed_forward
        self._dtype, self._heads = dtype, attention.heads
        self._cross = not isinstance(layer, SelfAttentionLayer)
        channels = attention.output.weight.shape[0]
        weight, bias = attention.projection.weight, attention.projection.bias
        parts = (slice(channels), slice(channels, None)) if self._cross else (slice(None),)
        self._project = [Linear(weight[part], bias[part], dtype) for part in parts]
        self._attention_norm = _Norm(layer.attention_norm)
        self._context_norm = _Norm(layer.context_norm) if self._cross else None
        # LayerScale is part of the linear before it.
        scale = layer.attention_scale.scale
        self._output = Linear(
            scale[:, None] * attention.output.weight, scale * attention.output.bias, dtype
        )
        self._feed_forward_norm = _Norm(layer.feed_forward_norm)
        linear1, linear2 = feed_forward.linear1, feed_forward.linear2
        self._linear1 = Linear(linear1.weight, linear1.bias, dtype, gelu=True)
        scale = layer.feed_forward_scale.scale
        self._linear2 = Linear(scale[:, None] * linear2.weight, scale * linear2.bias, dtype)
        self._norm_out = _Norm(layer.norm_out)

    def context(self, x: Tensor) -> Tensor | None:
        """Return the other branch's tokens, normalised for cross-attention; None in self-attention.

        Call this in both branches before either changes.
        """
        return None if self._context_norm is None else self._context_norm(x, self._dtype)

    def __call__(self, x: Tensor, context: Tensor | None) -> None:
        y = self._attention_norm(x, self._dtype)
        if context is None:
            query, key, value = self._project[0](y).chunk(3, dim=-1)
        else:
            query = self._project[0](y)
            key, value = self._project[1](context).chunk(2, dim=-1)
        kernels.add(x, self._output(kernels.attention(query, key, value, self._heads)))
        y = self._linear2(self._linear1(self._feed_forward_norm(x, self._dtype)))
        kernels.add_and_norm(x, y, self._norm_out.gain, self._norm_out.offset)


class _Norm:
    """A norm over each token's channels, of float32."""

    def __init__(self, norm: Any) -> None:
        self.gain = norm.weight.detach().to(torch.float32, copy=True)
        self.offset = norm.bias.detach().to(torch.float32, copy=True)

    def __call__(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return kernels.layer_norm(x, self.gain, self.offset, dtype)


def _projection(layer: nn.Module, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    if isinstance(layer, nn.Linear):
        return Linear(layer.weight, layer.bias, dtype)
    return lambda x: x
