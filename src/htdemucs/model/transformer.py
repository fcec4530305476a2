"""The cross-domain transformer between encoders and decoders. Tokens are (B, N, C)."""

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from htdemucs.model.config import HTDemucsConfig
from htdemucs.model.layers import GlobalNorm, LayerScale

MAX_PERIOD = 10_000.0  # of the sinusoidal positions, in tokens
LAYER_SCALE_INIT = 1e-4


def time_positions(length: int, channels: int, device: torch.device) -> Tensor:
    """() -> (length, channels): cosines, then sines, with periods up to `MAX_PERIOD`."""
    half = channels // 2
    period = MAX_PERIOD ** (torch.arange(half, device=device) / (half - 1))
    phase = torch.arange(length, device=device)[:, None] / period
    return torch.cat([phase.cos(), phase.sin()], dim=-1)


def spectral_positions(bins: int, frames: int, channels: int, device: torch.device) -> Tensor:
    """() -> (frames * bins, channels), frame by frame.

    The first half of the channels encodes the frame, the second half the bin. In each half sines
    and cosines alternate.
    """
    half = channels // 2
    rate = torch.exp(torch.arange(0.0, half, 2, device=device) * (-math.log(MAX_PERIOD) / half))

    def waves(count: int) -> Tensor:
        phase = torch.arange(count, device=device)[:, None] * rate
        return rearrange([phase.sin(), phase.cos()], "sc n c -> n (c sc)")

    by_frame = waves(frames)[:, None].expand(frames, bins, half)
    by_bin = waves(bins)[None].expand(frames, bins, half)
    return rearrange(torch.cat([by_frame, by_bin], dim=-1), "t f c -> (t f) c")


class DotProductAttention(nn.Module):
    """Scaled dot-product attention. Exported networks have another form of it in its place."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(B, H, N, C), (B, H, M, C), (B, H, M, C) -> (B, H, N, C)"""
        return F.scaled_dot_product_attention(
            query, key, value, dropout_p=self.dropout if self.training else 0.0
        )


class Attention(nn.Module):
    """Multi-head attention; one matrix projects queries, keys and values."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attend: nn.Module = DotProductAttention(dropout)
        self.projection = nn.Linear(channels, 3 * channels)
        self.output = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(B, N, C) attending to (B, M, C) -> (B, N, C)"""
        query, key, value = (
            rearrange(y, "b n (h c) -> b h n c", h=self.heads) for y in self._project(x, context)
        )
        return self.output(rearrange(self.attend(query, key, value), "b h n c -> b n (h c)"))

    def _project(self, x: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        if x is context:
            return self.projection(x).chunk(3, dim=-1)
        channels = x.shape[-1]
        weight, bias = self.projection.weight, self.projection.bias
        query = F.linear(x, weight[:channels], bias[:channels])
        return query, *F.linear(context, weight[channels:], bias[channels:]).chunk(2, dim=-1)


class FeedForward(nn.Module):
    """Two linears with a GELU between them."""

    def __init__(self, channels: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, hidden)
        self.linear2 = nn.Linear(hidden, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)"""
        return self.linear2(self.dropout(F.gelu(self.linear1(x))))


class TransformerLayer(nn.Module):
    """Pre-norm attention and feed-forward, each scaled, then a norm over all tokens together."""

    def __init__(self, config: HTDemucsConfig) -> None:
        super().__init__()
        channels = config.transformer_channels
        hidden = int(channels * config.t_hidden_scale)
        self.attention_norm = nn.LayerNorm(channels)
        self.attention = Attention(channels, config.t_heads, config.t_dropout)
        self.attention_scale = LayerScale(channels, LAYER_SCALE_INIT)
        self.feed_forward_norm = nn.LayerNorm(channels)
        self.feed_forward = FeedForward(channels, hidden, config.t_dropout)
        self.feed_forward_scale = LayerScale(channels, LAYER_SCALE_INIT)
        self.dropout = nn.Dropout(config.t_dropout)
        self.norm_out = GlobalNorm(channels)

    def _finish(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.attention_scale(self.dropout(attended))
        y = self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return self.norm_out((x + self.feed_forward_scale(y)).mT).mT


class SelfAttentionLayer(TransformerLayer):
    """Tokens of one branch attend to each other."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)"""
        y = self.attention_norm(x)
        return self._finish(x, self.attention(y, y))


class CrossAttentionLayer(TransformerLayer):
    """Tokens of one branch attend to those of the other."""

    def __init__(self, config: HTDemucsConfig) -> None:
        super().__init__(config)
        self.context_norm = nn.LayerNorm(config.transformer_channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(B, N, C), (B, M, C) -> (B, N, C)"""
        return self._finish(x, self.attention(self.attention_norm(x), self.context_norm(context)))


class CrossDomainTransformer(nn.Module):
    """Self- and cross-attention layers in turn, one stack for each branch."""

    def __init__(self, config: HTDemucsConfig) -> None:
        super().__init__()
        width = config.transformer_channels
        self.spectral_in, self.spectral_out = _projections(config)
        self.time_in, self.time_out = _projections(config)
        self.spectral_norm = nn.LayerNorm(width)
        self.time_norm = nn.LayerNorm(width)
        layers = [
            CrossAttentionLayer if i % 2 else SelfAttentionLayer for i in range(config.t_layers)
        ]
        self.spectral_layers = nn.ModuleList(layer(config) for layer in layers)
        self.time_layers = nn.ModuleList(layer(config) for layer in layers)

    def forward(self, spectral: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, F, T), (B, C, L) -> the same shapes"""
        bins, frames = spectral.shape[2:]
        x = self.spectral_norm(self.spectral_in(rearrange(spectral, "b c f t -> b (t f) c")))
        y = self.time_norm(self.time_in(rearrange(time, "b c l -> b l c")))
        x = x + spectral_positions(bins, frames, x.shape[-1], x.device).to(x.dtype)
        y = y + time_positions(y.shape[1], y.shape[-1], y.device).to(y.dtype)

        for spectral_layer, time_layer in zip(self.spectral_layers, self.time_layers, strict=True):
            if isinstance(spectral_layer, SelfAttentionLayer):
                x, y = spectral_layer(x), time_layer(y)
            else:
                x, y = spectral_layer(x, y), time_layer(y, x)

        spectral = rearrange(self.spectral_out(x), "b (t f) c -> b c f t", f=bins)
        return spectral, rearrange(self.time_out(y), "b l c -> b c l")


def _projections(config: HTDemucsConfig) -> tuple[nn.Module, nn.Module]:
    """Return the linears to the transformer's width and back; identities if it has no own width."""
    if not config.bottom_channels:
        return nn.Identity(), nn.Identity()
    inner, width = config.layer_channels[-1], config.bottom_channels
    return nn.Linear(inner, width), nn.Linear(width, inner)
