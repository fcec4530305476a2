"""The hybrid networks, faster on a CPU: the same arithmetic in another memory layout.

Tensors of both branches are (B, T, F, C): batch, frame, bin, channel. The time branch has one
frame, whose bins are samples. In this layout a strided convolution is a convolution with kernel 2
over groups of four bins, a transposed convolution is one with kernel 2 that gives groups of four
bins, and the innermost layer's bins are the transformer's tokens. All these are views of the same
memory. oneDNN computes convolutions and linears, with weights that it has reordered; `kernels` has
the rest. In Hybrid Demucs only the outer layers are fast; its bottleneck, which has few steps, runs
as it is. `htdemucs.model` defines the results: `tests/fast` compares the two.
"""

from collections.abc import Callable
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from htdemucs.fast import kernels, onednn
from htdemucs.fast.layers import MARGIN, Decoder, Encoder
from htdemucs.fast.transformer import Transformer
from htdemucs.model import HDemucs, HTDemucs, Network
from htdemucs.model.architectures import matches_config
from htdemucs.model.config import STRIDE
from htdemucs.model.layers import FrequencyEmbedding
from htdemucs.model.network import EPSILON

MAX_DCONV_DEPTH = 6  # a dilation of 32, the limit of the kernels' scratch memory
FRAMES_PER_FFT = 64  # frames of an inverse STFT, whose spectra are in memory at the same time
Size = tuple[int, int]  # (T, F)


def supports(model: Network) -> TypeGuard[HTDemucs | HDemucs]:
    """Whether kernels exist for this network and this CPU.

    The kernels compute what the configuration describes, from parameters in float32: networks with
    other layers, methods or hooks are left to the reference. Sizes are checked only here: the
    kernels compute in whole vectors and do not check their arguments. They take any batch, length
    and number of sources.
    """
    if type(model) is HTDemucs:
        widths = [*model.config.layer_channels]
        if model.config.t_layers:
            width = model.config.transformer_channels
            widths += [width, width // model.config.t_heads]
            if (
                int(width * model.config.t_hidden_scale) < 1
            ):  # oneDNN does not multiply empty matrices
                return False
    elif type(model) is HDemucs:
        outer = model.config.outer_depth
        widths = [*model.config.layer_channels[:outer]]
        if not model.config.cac or model.config.hybrid_old or model.config.multi_freqs:
            return False
        if min(model.config.dconv_lstm, model.config.dconv_attn) < outer:
            return False
    else:
        return False
    widths.append(model.config.bins)
    return (
        kernels.library() is not None
        and onednn.available()
        and model.config.dconv_depth <= MAX_DCONV_DEPTH
        and model.config.dconv_comp >= 1  # memory grows with the square of the hidden channels
        and all(size % kernels.LANES == 0 for size in widths)
        and all(x.dtype == torch.float32 for x in (*model.parameters(), *model.buffers()))
        and matches_config(model)
    )


class FastHybrid(nn.Module):
    """`HTDemucs` or `HDemucs`, prepared once for inference on this CPU.

    Args:
        model: the network; its parameters are copied.
        dtype: the type of weights and activations, torch.float32 or torch.bfloat16. Sums, norms,
            the transformer's residual stream and the STFT are float32 in any case.
    """

    def __init__(self, model: HTDemucs | HDemucs, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = model.config
        self.sources: tuple[str, ...] = model.sources
        self.audio_channels: int = model.audio_channels
        self.dtype = dtype
        self._spectrogram = model.spectrogram
        self._window = model.spectrogram.window * (2 / 3)
        spectral, time = _sizes(model)
        with torch.no_grad():
            self._embedding = _embedding_table(model.frequency_embedding)
            self._spectral_encoder = _encoder(model.spectral_encoder, spectral, dtype)
            self._time_encoder = _encoder(model.time_encoder, time, dtype)
            self._spectral_decoder = _decoder(model.spectral_decoder, spectral, dtype)
            self._time_decoder = _decoder(model.time_decoder, time, dtype)
            self._bottleneck = _bottleneck(model, dtype)

    @torch.no_grad()
    def forward(self, mixture: Tensor) -> Tensor:
        """(B, C, L) -> (B, S, C, L)

        Raises:
            ValueError: the mixture has another shape or element type.
        """
        if mixture.shape[1:-1] != (self.audio_channels,) or mixture.dtype != torch.float32:
            raise ValueError(
                f"a mixture must be (B, {self.audio_channels}, L) in torch.float32, "
                f"not {tuple(mixture.shape)} in {mixture.dtype}"
            )
        length = mixture.shape[-1]
        x, spectral_moments = kernels.pack_spectrum(
            self._spectrogram.analyse(mixture), MARGIN, self.dtype
        )
        y, time_moments = _pack_waveform(mixture, self.dtype)

        spectral_skips, time_skips, lengths = [], [], []
        bins = self.config.bins
        for i, (spectral_encoder, time_encoder) in enumerate(
            zip(self._spectral_encoder, self._time_encoder, strict=True)
        ):
            lengths.append(length)
            bins, length = bins // STRIDE, -(-length // STRIDE)
            x = spectral_encoder(x, self._embedding if i == 0 else None)
            y = time_encoder(y)
            spectral_skips.append(x[:, :, MARGIN : MARGIN + bins])
            time_skips.append(y[:, :, MARGIN : MARGIN + length])

        x, y = spectral_skips[-1], time_skips[-1]
        if self._bottleneck is not None:
            x, y = self._bottleneck(x, y)

        for spectral_decoder, time_decoder in zip(
            self._spectral_decoder, self._time_decoder, strict=True
        ):
            bins, length = bins * STRIDE, lengths.pop()
            x = spectral_decoder(x, spectral_skips.pop())[:, :, MARGIN : MARGIN + bins]
            y = time_decoder(y, time_skips.pop())[:, :, MARGIN : MARGIN + length]

        frames = self._inverse_fft(x, spectral_moments)
        waveforms = kernels.overlap_add(frames, self._window, y[:, 0].contiguous(), time_moments)
        return waveforms.unflatten(1, (len(self.sources), self.audio_channels))

    def _inverse_fft(self, x: Tensor, moments: list[Tensor]) -> Tensor:
        """(B, T, F, 2SC) -> (B, SC, T, N): each frame's samples, before the overlap-add"""
        signals = len(self.sources) * self.audio_channels
        size = (len(x), signals, x.shape[1], self.config.n_fft)
        frames = torch.empty(size, dtype=torch.float32)
        for part, out in zip(
            x.split(FRAMES_PER_FFT, 1), frames.split(FRAMES_PER_FFT, 2), strict=True
        ):
            spectrum = kernels.unpack_spectrum(part, moments)
            out[:] = torch.fft.irfft(spectrum, self.config.n_fft, norm="ortho")
        return frames


class _HDemucsBottleneck(nn.Module):
    """The bottleneck of Hybrid Demucs, in float32. It shares its parameters with the model."""

    def __init__(self, model: HDemucs, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype, self._bottleneck = dtype, model.bottleneck
        self._layers = nn.ModuleList(
            [model.merge_layer, model.joint_encoder, model.joint_decoder, model.split_layer]
        )

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, F, C), (B, 1, L, C) -> the same shapes"""
        spectral, time = self._bottleneck(x.float().permute(0, 3, 2, 1), y[:, 0].float().mT)
        x = spectral.permute(0, 3, 2, 1).to(self._dtype).contiguous()
        return x, time.mT[:, None].to(self._dtype).contiguous()


def _bottleneck(
    model: HTDemucs | HDemucs, dtype: torch.dtype
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """Return what lies between encoders and decoders; None without a transformer."""
    if isinstance(model, HDemucs):
        return _HDemucsBottleneck(model, dtype)
    return None if model.transformer is None else Transformer(model.transformer, dtype)


def _encoder(layers: nn.ModuleList, sizes: list[Size], dtype: torch.dtype) -> list[Encoder]:
    return [Encoder(layer, size, dtype) for layer, size in zip(layers, sizes, strict=True)]


def _decoder(layers: nn.ModuleList, sizes: list[Size], dtype: torch.dtype) -> list[Decoder]:
    return [Decoder(layer, size, dtype) for layer, size in zip(layers, sizes[::-1], strict=True)]


def _embedding_table(embedding: nn.Module) -> Tensor | None:
    """Return the frequency embedding (F, C) that is added to every frame; None without one."""
    if not isinstance(embedding, FrequencyEmbedding):
        return None
    return (embedding.gain * embedding.table).float().contiguous()


def _sizes(model: HTDemucs | HDemucs) -> tuple[list[Size], list[Size]]:
    """Return (T, F) after each spectral and each time encoder layer, for a whole segment."""
    config = model.config
    frames, bins = model.spectrogram.frames(config.segment_length), config.bins
    length = config.segment_length
    spectral, time = [], []
    for _ in model.spectral_encoder:
        bins, length = bins // STRIDE, -(-length // STRIDE)
        spectral.append((frames, bins))
        time.append((1, length))
    return spectral, time


def _pack_waveform(mixture: Tensor, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    """(B, C, L) -> (B, 1, MARGIN + a multiple of 4 + MARGIN, C) and each item's moments."""
    correction = int(mixture[0].numel() > 1)
    std, mean = torch.std_mean(mixture, dim=(1, 2), keepdim=True, correction=correction)
    x = ((mixture - mean) / (EPSILON + std)).mT.to(dtype)
    padded = F.pad(x, (0, 0, MARGIN, MARGIN + -mixture.shape[-1] % STRIDE))
    return padded[:, None], list(torch.cat([mean, std], dim=1)[..., 0])
