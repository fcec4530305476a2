"""Hybrid Demucs, version 3 of Demucs (arXiv 2111.03600).

Shapes: B batch, S source, C channel, F frequency bin, T STFT frame, L sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from htdemucs.errors import ConfigError
from htdemucs.model.config import KERNEL_SIZE, STRIDE, ContextConfig, HybridConfig
from htdemucs.model.hybrid import HybridNetwork
from htdemucs.model.layers import (
    EDGE,
    DConv,
    Kernel,
    NormedDecoderLayer,
    NormedEncoderLayer,
    SpectralDConv,
    SpectralDecoderLayer,
    SpectralEncoderLayer,
    TimeDecoderLayer,
    TimeEncoderLayer,
    frequency_embedding,
    norm,
)
from htdemucs.model.lstm_attention import make_context
from htdemucs.model.network import rescale_convolutions
from htdemucs.model.spectrogram import Spectrogram, Spectrogram2021

JOINT_KERNEL = Kernel(size=4, stride=2, edge=1)  # of layers after the merge, along frames


@dataclass(frozen=True)
class HDemucsConfig(HybridConfig, ContextConfig):
    """One Hybrid Demucs, as published. The defaults are those of the released `hdemucs_mmi`.

    Attributes:
        cac: the spectral branch has complex numbers as channels; False: magnitudes, and its
            estimates have the mixture's phases.
        hybrid_old: the STFT is a `Spectrogram2021`.
        multi_freqs: where the frequency bands begin, above the first, as fractions of the bins.
            Outer spectral layers have parameters for each band.
        multi_freqs_depth: how many layers that are, if there are bands.
    """

    cac: bool = True
    hybrid_old: bool = False
    multi_freqs: tuple[float, ...] = ()
    multi_freqs_depth: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "multi_freqs", tuple(self.multi_freqs))
        if self.n_fft != STRIDE ** (self.outer_depth + 2) or self.outer_depth < 1:
            raise ConfigError(f"n_fft must be a power of {STRIDE} from 64 on, not {self.n_fft}")
        if self.depth <= self.outer_depth:
            raise ConfigError(
                f"depth must be at least {self.outer_depth + 1} with n_fft {self.n_fft}, so that "
                f"the branches merge, not {self.depth}"
            )
        if self.norm_starts < self.outer_depth:
            raise ConfigError(
                f"norm_starts must be at least {self.outer_depth}, the layer where the branches "
                f"merge, not {self.norm_starts}"
            )
        self._require("multi_freqs_depth", int, minimum=0)
        if self.multi_freqs:
            self._check_bands()

    def _check_bands(self) -> None:
        if self.multi_freqs_depth > self.outer_depth:
            raise ConfigError(
                f"multi_freqs_depth must be at most {self.outer_depth}, not "
                f"{self.multi_freqs_depth}"
            )
        for i in range(self.multi_freqs_depth):
            bins = self.bins // STRIDE**i
            rows = [rows_of(bins, self.multi_freqs) for rows_of in (encoder_rows, decoder_rows)]
            if any(first >= last for bounds in rows for first, last in pairwise(bounds)):
                raise ConfigError(
                    "multi_freqs must rise from 0 to 1 and leave each band a bin in each layer, "
                    f"not {list(self.multi_freqs)}"
                )

    @property
    def outer_depth(self) -> int:
        """Layers of each branch outside the merge: until as few bins are left as a kernel has."""
        depth, bins = 0, self.bins
        while bins > KERNEL_SIZE:
            depth, bins = depth + 1, bins // STRIDE
        return depth

    def bands(self, layer: int) -> tuple[float, ...]:
        """Return where the frequency bands of an outer layer begin, above the first."""
        return self.multi_freqs if layer < self.multi_freqs_depth else ()


class HDemucs(HybridNetwork):
    """A `HybridNetwork` whose bottleneck is a U-Net on the sum of both branches.

    The spectral encoder leaves as many bins as a kernel has. `merge_layer` reduces them to one; its
    frames are then as far apart as the steps of the time branch, and the two are added.

    Args:
        config: every size of the network; the default is the released `hdemucs_mmi`.
    """

    config: HDemucsConfig

    def __init__(self, config: HDemucsConfig | None = None) -> None:
        config = config or HDemucsConfig()
        super().__init__(config)
        self.spectrogram = (Spectrogram2021 if config.hybrid_old else Spectrogram)(config.n_fft)
        self.spectral_encoder, self.time_encoder = _outer_encoders(config)
        self.merge_layer, self.split_layer = _merge_and_split(config)
        self.joint_encoder, self.joint_decoder = _joint_layers(config)
        self.spectral_decoder, self.time_decoder = _outer_decoders(config)
        rescale_convolutions(self, config.rescale)
        self.frequency_embedding = frequency_embedding(config)

    def core(self, mixture: Tensor, spectrogram: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, L), (B, 2C, F, T) -> (B, S, C, L), (B, S, 2C, F, T), without any STFT."""
        if self.config.cac:
            return super().core(mixture, spectrogram)
        time, magnitudes = super().core(mixture, magnitude(spectrogram))
        return time, with_phases(magnitudes, spectrogram)

    def bottleneck(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, F, T), (B, C, L) -> the same shapes

        The decoder begins with zeros: its input comes through the skip connections only.
        """
        length = y.shape[-1]
        z = self.merge_layer(x, y)
        skips, lengths = [z], []
        for layer in self.joint_encoder:
            lengths.append(z.shape[-1])
            z = layer(z)
            skips.append(z)
        z = torch.zeros_like(z)
        for layer in self.joint_decoder:
            z = layer(z, skips.pop(), lengths.pop())
        return self.split_layer(z + skips.pop(), length)


def magnitude(spectrogram: Tensor) -> Tensor:
    """(B, 2C, F, T) -> (B, C, F, T)"""
    return torch.hypot(*rearrange(spectrogram, "b (c ri) f t -> ri b c f t", ri=2))


def with_phases(magnitudes: Tensor, spectrogram: Tensor) -> Tensor:
    """(B, S, C, F, T), (B, 2C, F, T) -> (B, S, 2C, F, T); the phase of a zero is 0"""
    parts = rearrange(spectrogram, "b (c ri) f t -> ri b c f t", ri=2)
    size = torch.hypot(*parts)
    real, imaginary = parts / size.clamp_min(torch.finfo(size.dtype).tiny)
    phases = torch.stack([torch.where(size > 0, real, 1.0), imaginary], dim=2)
    spectra = magnitudes.unsqueeze(3) * phases.unsqueeze(1)
    return rearrange(spectra, "b s c ri f t -> b s (c ri) f t")


class MergeLayer(nn.Module):
    """The encoder layer that reduces the bins to one and adds the time branch to it."""

    def __init__(self, in_channels: int, out_channels: int, dconv: nn.Module, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, (KERNEL_SIZE, 1))
        self.time_conv = nn.Conv1d(in_channels, out_channels, KERNEL_SIZE, STRIDE, padding=EDGE)
        self.norm = norm(out_channels, groups)
        self.dconv = dconv
        self.rewrite = nn.Conv2d(out_channels, 2 * out_channels, 1)
        self.rewrite_norm = norm(2 * out_channels, groups)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(B, C, F, T), (B, C, L) -> (B, C', T), for F of the kernel's size"""
        y = self.time_conv(F.pad(y, (0, -y.shape[-1] % STRIDE)))
        z = self.dconv(F.gelu(self.norm(self.conv(x) + y[:, :, None])))
        return F.glu(self.rewrite_norm(self.rewrite(z)), dim=1)[:, :, 0]


class SplitLayer(nn.Module):
    """The decoder layer that mirrors the merge: the first of both branches."""

    def __init__(self, in_channels: int, out_channels: int, dconv: nn.Module, groups: int) -> None:
        super().__init__()
        self.rewrite = nn.Conv2d(in_channels, 2 * in_channels, 3, padding=1)
        self.rewrite_norm = norm(2 * in_channels, groups)
        self.dconv = dconv
        self.conv_transpose = nn.ConvTranspose2d(in_channels, out_channels, (KERNEL_SIZE, 1))
        self.norm = norm(out_channels, groups)
        self.time_conv_transpose = nn.ConvTranspose1d(
            in_channels, out_channels, KERNEL_SIZE, STRIDE
        )
        self.time_norm = norm(out_channels, groups)

    def forward(self, x: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """(B, C, T) -> (B, C', F, T), (B, C', length)"""
        z = self.dconv(F.glu(self.rewrite_norm(self.rewrite(x[:, :, None])), dim=1))
        spectral = F.gelu(self.norm(self.conv_transpose(z)))
        time = self.time_norm(self.time_conv_transpose(z[:, :, 0]))
        return spectral, F.gelu(time[..., EDGE : EDGE + length])


class BandedEncoderLayer(nn.Module):
    """A spectral encoder layer with separate parameters for each frequency band."""

    def __init__(self, layers: Sequence[SpectralEncoderLayer], rows: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)  # without edges
        self.rows = rows  # where the bands begin in the output, and where the last one ends

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T) -> (B, C', F / 4, T)"""
        x = F.pad(x, (0, 0, EDGE, EDGE))
        overlap = KERNEL_SIZE - STRIDE
        return torch.cat([
            layer(x[:, :, STRIDE * first : STRIDE * last + overlap])
            for layer, (first, last) in zip(self.layers, pairwise(self.rows), strict=True)
        ], dim=2)  # fmt: skip


class BandedDecoderLayer(nn.Module):
    """A spectral decoder layer with separate parameters for each frequency band.

    Its context is along time only. Where the outputs of two bands overlap, they are added.
    """

    def __init__(
        self, layers: Sequence[SpectralDecoderLayer], rows: Sequence[int], activation: nn.Module
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)  # without edges and activations
        self.rows = rows  # where the bands begin in the input, and where the last one ends
        self.activation = activation

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, C, F, T), (B, C, F, T) -> (B, C', 4 F, T)"""
        joined, overlap = x.new_zeros(0), KERNEL_SIZE - STRIDE
        for layer, (first, last) in zip(self.layers, pairwise(self.rows), strict=True):
            band = layer(x[:, :, first:last], skip[:, :, first:last])
            if first:
                bias = layer.get_parameter("conv_transpose.bias")[:, None, None]  # counted once
                both = joined[:, :, -overlap:] + band[:, :, :overlap] - bias
                band = torch.cat([joined[:, :, :-overlap], both, band[:, :, overlap:]], dim=2)
            joined = band
        return self.activation(joined[:, :, EDGE:-EDGE])


def encoder_rows(bins: int, bands: Sequence[float]) -> list[int]:
    """Return where the bands begin in the output of an encoder layer, and where the last one ends.

    A band's last row is the one whose kernel ends nearest to the band's end in the input.
    """
    rows = [0]
    for fraction in bands:
        band_bins = round(bins * fraction) + EDGE - STRIDE * rows[-1]
        rows.append(rows[-1] + round((band_bins - KERNEL_SIZE) / STRIDE + 1))
    return [*rows, bins // STRIDE]


def decoder_rows(bins: int, bands: Sequence[float]) -> list[int]:
    """Return where the bands begin in the input of a decoder layer, and where the last one ends.

    `bins` is the number in the layer's output.
    """
    rows = bins // STRIDE
    return [0, *(round(rows * fraction) for fraction in bands), rows]


def _dconv(
    dconv_class: type[DConv], config: HDemucsConfig, layer: int, *, decoder: bool = False
) -> DConv:
    depth = config.dconv_depth if config.dconv_mode == 3 or not decoder else 0
    context = make_context(layer >= config.dconv_lstm, layer >= config.dconv_attn)
    return dconv_class(
        config.layer_channels[layer], config.dconv_comp, depth, config.dconv_init, context
    )


def _outer_encoders(config: HDemucsConfig) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Return the spectral and the time encoder up to the merge, outermost layer first."""
    spectral, time = nn.ModuleList(), nn.ModuleList()
    spectral_in = config.audio_channels * (2 if config.cac else 1)
    time_in = config.audio_channels
    for i, width in enumerate(config.layer_channels[: config.outer_depth]):
        bands = config.bands(i)
        layers = [
            SpectralEncoderLayer(
                spectral_in, width, _dconv(SpectralDConv, config, i), 0 if bands else EDGE
            )
            for _ in range(len(bands) + 1)
        ]
        rows = encoder_rows(config.bins // STRIDE**i, bands)
        spectral.append(BandedEncoderLayer(layers, rows) if bands else layers[0])
        time.append(TimeEncoderLayer(time_in, width, _dconv(DConv, config, i)))
        spectral_in = time_in = width
    return spectral, time


def _merge_and_split(config: HDemucsConfig) -> tuple[MergeLayer, SplitLayer]:
    i = config.outer_depth
    outer, inner = config.layer_channels[i - 1 : i + 1]
    groups = config.groups(i)
    merge = MergeLayer(outer, inner, _dconv(SpectralDConv, config, i), groups)
    dconv = _dconv(SpectralDConv, config, i, decoder=True)
    return merge, SplitLayer(inner, outer, dconv, groups)


def _joint_layers(config: HDemucsConfig) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Return the layers inside the merge: encoders outermost first, decoders innermost first."""
    encoder, decoder = nn.ModuleList(), nn.ModuleList()
    for i in range(config.outer_depth + 1, config.depth):
        outer, inner = config.layer_channels[i - 1 : i + 1]
        groups = config.groups(i)
        encoder.append(
            NormedEncoderLayer(outer, inner, JOINT_KERNEL, _dconv(DConv, config, i), groups)
        )
        dconv = _dconv(DConv, config, i, decoder=True)
        decoder.insert(0, NormedDecoderLayer(inner, outer, JOINT_KERNEL, dconv, groups))
    return encoder, decoder


def _outer_decoders(config: HDemucsConfig) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Return the spectral and the time decoder from the split on, innermost layer first.

    The outermost layer has no activation at its end.
    """
    spectral, time = nn.ModuleList(), nn.ModuleList()
    outputs = len(config.sources) * config.audio_channels
    for i in reversed(range(config.outer_depth)):
        width = config.layer_channels[i]
        time_out = config.layer_channels[i - 1] if i else outputs
        spectral_out = config.layer_channels[i - 1] if i else outputs * (2 if config.cac else 1)
        activation: nn.Module = nn.GELU() if i else nn.Identity()
        spectral.append(_spectral_decoder_layer(config, i, spectral_out, activation))
        dconv = _dconv(DConv, config, i, decoder=True)
        time.append(TimeDecoderLayer(width, time_out, dconv, activation))
    return spectral, time


def _spectral_decoder_layer(
    config: HDemucsConfig, i: int, out_channels: int, activation: nn.Module
) -> nn.Module:
    width, bands = config.layer_channels[i], config.bands(i)
    if not bands:
        dconv = _dconv(SpectralDConv, config, i, decoder=True)
        return SpectralDecoderLayer(width, out_channels, dconv, activation)
    layers = [
        SpectralDecoderLayer(
            width, out_channels, _dconv(SpectralDConv, config, i, decoder=True), nn.Identity(),
            edge=0, near=0,
        )
        for _ in range(len(bands) + 1)
    ]  # fmt: skip
    return BandedDecoderLayer(layers, decoder_rows(config.bins // STRIDE**i, bands), activation)
