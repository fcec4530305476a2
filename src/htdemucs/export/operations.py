"""Operations of the network in a form for ONNX: attention in chunks, and an STFT of real products.

ONNX has the operators STFT and DFT, but ONNX Runtime does not compute them with WebGPU (1.24), and
none is an inverse STFT. Convolutions with the sines and cosines of every bin would add 134 MB.
"""

import copy
import math

import torch
from einops import rearrange
from torch import Tensor, nn

from htdemucs.model import HTDemucs, Model
from htdemucs.model.bag import networks
from htdemucs.model.spectrogram import Spectrogram
from htdemucs.model.transformer import Attention

SCORE_BYTES = 4  # attention's scores are float32


def rewritten(model: Model, score_bytes: int) -> Model:
    """Return a copy of a model, in the same memory, with the operations of this module."""
    model = copy.deepcopy(model, {id(p): nn.Parameter(p.detach()) for p in model.parameters()})
    for network in networks(model):
        assert isinstance(network, HTDemucs)
        network.spectrogram = RealSpectrogram(network.config.n_fft)
        for module in network.modules():
            if isinstance(module, Attention):
                module.attend = ChunkedAttention(score_bytes)
    return model


class ChunkedAttention(nn.Module):
    """Dot-product attention of as many queries at a time as have scores in `score_bytes`.

    The scores are those of one item of the batch. One query is the least.
    """

    def __init__(self, score_bytes: int) -> None:
        super().__init__()
        self.score_bytes = score_bytes

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(B, H, N, C), (B, H, M, C), (B, H, M, C) -> (B, H, N, C)"""
        _, heads, count, channels = query.shape
        most = max(1, self.score_bytes // (SCORE_BYTES * heads * key.shape[2]))
        chunks = math.ceil(count / most)
        key = key.mT / math.sqrt(channels)
        return torch.cat(
            [
                (part @ key).softmax(dim=-1) @ value
                for part in query.split(math.ceil(count / chunks), dim=2)
            ],
            dim=2,
        )


class RealSpectrogram(Spectrogram):
    """The same STFT and inverse, without complex numbers.

    A frame of n_fft = P * Q samples is transformed in two steps (Cooley and Tukey, 1965). With
    sample n = Q * p + q and bin k = k1 + P * k2,

        X[k] = sum over q of exp(-2 pi i q k / n_fft) * (sum over p of exp(-2 pi i p k1 / P) * x[n])

    The inner sums are products with one matrix (P, 2P), the outer ones with one matrix (2Q, Q) for
    each k1, where complex numbers are pairs of rows or columns. For n_fft 4096 these have 2 MB.
    The inverse of a real spectrum is the transposed product, with the bins above 0 counted twice.
    """

    inner: Tensor  # (p, ri k1)
    outer: Tensor  # (k1, ri q, ri k2)
    outer_inverse: Tensor  # (k1, ri k2, ri q)

    def __init__(self, n_fft: int) -> None:
        super().__init__(n_fft)
        self.p = max(p for p in range(1, math.isqrt(n_fft) + 1) if n_fft % (2 * p) == 0)
        self.q = n_fft // self.p
        k1 = torch.arange(self.p, dtype=torch.float64)
        inner = _wave(torch.outer(k1, k1) / self.p)
        bins = k1[:, None] + self.p * torch.arange(self.q // 2)
        outer = _wave(torch.arange(self.q)[:, None] * bins[:, None] / n_fft) / math.sqrt(n_fft)
        pairs = torch.view_as_real(torch.stack([outer, 1j * outer], 1))  # of a real, an imaginary q
        outer = rearrange(pairs, "k1 i q k2 ri -> k1 (i q) (ri k2)")
        counts = 2 - (bins == 0).double().repeat(1, 2)  # of each k1 and ri k2
        for name, matrix in (
            ("inner", rearrange(torch.view_as_real(inner), "p k1 ri -> p (ri k1)")),
            ("outer", outer),
            ("outer_inverse", outer.mT * counts[..., None]),
        ):
            self.register_buffer(name, matrix.float().contiguous(), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, C, L) -> (B, 2C, F, T), real and imaginary parts in neighbouring channels."""
        channels, length = waveform.shape[1:]
        frames = self.frames(length)
        missing = frames * self.hop_length - length
        hops = self._pad(waveform, self.edge, self.edge + missing).unflatten(
            -1, (-1, self.hop_length)
        )
        x = torch.cat([hops[:, :, i : i + frames] for i in range(4)], dim=-1) * self.window
        x = rearrange(x, "b c t (p q) -> (b c t) q p", p=self.p) @ self.inner
        x = rearrange(x, "n q (ri k1) -> k1 n (ri q)", ri=2) @ self.outer
        return rearrange(x, "k1 (b c t) (ri k2) -> b (c ri) (k2 k1) t", c=channels, t=frames, ri=2)

    def _synthesise(self, spectrogram: Tensor) -> Tensor:
        """(B, S, 2C, F, T) -> (B, S, C, T, n_fft), weighted by the window"""
        _, sources, channels, _, frames = spectrogram.shape
        x = rearrange(spectrogram, "b s (c ri) (k2 k1) t -> k1 (b s c t) (ri k2)", ri=2, k1=self.p)
        x = rearrange(x @ self.outer_inverse, "k1 n (ri q) -> n q (ri k1)", ri=2) @ self.inner.mT
        x = rearrange(x, "(b s c t) q p -> b s c t (p q)", s=sources, c=channels // 2, t=frames)
        return x * (self.window * (2 / 3))


def _wave(turns: Tensor) -> Tensor:
    """Return exp(-2 pi i turns)."""
    return torch.polar(torch.ones_like(turns), -2 * math.pi * turns)
