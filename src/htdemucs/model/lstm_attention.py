"""Layers with a long reach along time: an LSTM, and attention that decays with distance."""

import math
from collections import OrderedDict
from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from htdemucs.model.config import ATTENTION_HEADS as HEADS

CHUNK = 200  # steps of a sequence of the LSTM; neighbouring chunks overlap by half
LSTM_LAYERS = 2
RATES = 4  # rates of decay in a head, of which every step computes its own mix


class ChunkedLSTM(nn.Module):
    """A residual bidirectional LSTM. Long inputs are split into overlapping chunks."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, LSTM_LAYERS, bidirectional=True)
        self.linear = nn.Linear(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T)"""
        if x.shape[-1] <= CHUNK:
            return x + self._apply_lstm(x)
        return x + _join(self._apply_lstm(_chunks(x)), x.shape[-1])

    def _apply_lstm(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(rearrange(x, "b c t -> t b c"))
        return rearrange(self.linear(y), "t b c -> b c t")


def _chunks(x: Tensor) -> Tensor:
    """(B, C, T) -> (B * N, C, CHUNK), a chunk every half chunk; the last ones end in silence."""
    stride = CHUNK // 2
    count = math.ceil(x.shape[-1] / stride)
    padded = F.pad(x, (0, (count - 1) * stride + CHUNK - x.shape[-1]))
    return rearrange(padded.unfold(-1, CHUNK, stride), "b c n t -> (b n) c t")


def _join(chunks: Tensor, length: int) -> Tensor:
    """(B * N, C, CHUNK) -> (B, C, length): each chunk's middle, and the first one's beginning."""
    edge = CHUNK // 4
    parts = rearrange(chunks, "(b n) c t -> b n c t", n=math.ceil(length / (CHUNK // 2)))
    first = parts[:, 0, :, :edge]
    middles = rearrange(parts[..., edge:-edge], "b n c t -> b c (n t)")
    last = parts[:, -1, :, -edge:]
    return torch.cat([first, middles, last], dim=-1)[..., :length]


class LocalAttention(nn.Module):
    """Residual attention to nearby steps: scores fall linearly with distance.

    The slope is a function of the step. No step attends to itself.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv1d(channels, channels, 1)
        self.key = nn.Conv1d(channels, channels, 1)
        self.content = nn.Conv1d(channels, channels, 1)
        self.fading = nn.Conv1d(channels, HEADS * RATES, 1)
        self.output = nn.Conv1d(channels, channels, 1)
        with torch.no_grad():  # so that the slopes are small at first
            self.fading.weight.mul_(0.01)
            self.fading.bias.fill_(-2)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T)"""
        query, key, content, fading = (
            rearrange(layer(x), "b (h c) t -> b h t c", h=HEADS)
            for layer in (self.query, self.key, self.content, self.fading)
        )
        rates = torch.arange(1, RATES + 1, device=x.device, dtype=x.dtype) / math.sqrt(RATES)
        slope = fading.sigmoid() @ rates / 2  # (B, H, T)
        step = torch.arange(x.shape[-1], device=x.device, dtype=x.dtype)
        distance = (step[:, None] - step).abs()
        scores = query @ (key / math.sqrt(key.shape[-1])).mT
        scores.addcmul_(slope[..., None], distance, value=-1)
        scores.diagonal(dim1=-2, dim2=-1).fill_(-100)  # finite: the sequence may have one step
        weights = scores.softmax(-1)
        return x + self.output(rearrange(weights @ content, "b h t c -> b (h c) t"))


def make_context(lstm: bool, attention: bool) -> Callable[[int], nn.Module]:
    """Return the constructor of a DConv's `context`, a function of its number of channels."""
    modules: dict[str, Callable[[int], nn.Module]] = {}
    if lstm:
        modules["lstm"] = ChunkedLSTM
    if attention:
        modules["attention"] = LocalAttention
    return lambda channels: nn.Sequential(OrderedDict((k, v(channels)) for k, v in modules.items()))
