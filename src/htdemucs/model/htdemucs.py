"""Hybrid Transformer Demucs (arXiv 2211.08553).

Shapes: B batch, S source, C channel, F frequency bin, T STFT frame, L sample.
"""

import dataclasses
from fractions import Fraction
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from htdemucs.model.config import HTDemucsConfig
from htdemucs.model.layers import (
    DConv,
    FrequencyEmbedding,
    SpectralDConv,
    SpectralDecoderLayer,
    SpectralEncoderLayer,
    TimeDecoderLayer,
    TimeEncoderLayer,
)
from htdemucs.model.pretrained import Pretrained
from htdemucs.model.spectrogram import Spectrogram
from htdemucs.model.transformer import CrossDomainTransformer
from htdemucs.provenance import Origin

EPSILON = 1e-5  # keeps silence finite when inputs are normalised


class HTDemucs(Pretrained, nn.Module):
    """Two U-Nets, one on the spectrogram and one on the waveform, joined by a transformer.

    The parameters are initialised for training from scratch, from torch's global generator.

    Args:
        config: every size of the network; the default is the released `htdemucs`.

    Attributes:
        origin: the files that the parameters were read from; None if they are from no file.
    """

    origin: Origin | None = None

    def __init__(self, config: HTDemucsConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or HTDemucsConfig()
        self.spectrogram = Spectrogram(config.n_fft)
        self.spectral_encoder, self.time_encoder = _encoders(config)
        self.spectral_decoder, self.time_decoder = _decoders(config)
        _rescale_convolutions(self, config.rescale)
        self.frequency_embedding = _frequency_embedding(config)
        self.transformer = CrossDomainTransformer(config) if config.t_layers else None

    @classmethod
    def blank(cls, config: HTDemucsConfig) -> "HTDemucs":
        """Return a network whose parameters have no values yet; a checkpoint is to fill them.

        No initial values are drawn, because that takes longer than reading a checkpoint. Torch's
        global generator does not change.
        """
        with torch.random.fork_rng(devices=[]), _NoInitialValues():
            network = cls(dataclasses.replace(config, rescale=0))
        network.config = config
        return network

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return self.config.sources

    @property
    def audio_channels(self) -> int:
        """Channels of mixture and sources."""
        return self.config.audio_channels

    @property
    def sample_rate(self) -> int:
        """Sample rate of mixture and sources, in Hz."""
        return self.config.sample_rate

    @property
    def segment(self) -> Fraction:
        """Seconds of one training segment, the longest that the engine uses."""
        return self.config.segment

    def forward(self, mixture: Tensor) -> Tensor:
        """(B, C, L) -> (B, S, C, L), for any L of at least 1."""
        time, spectral = self.core(mixture, self.spectrogram(mixture))
        return time + self.spectrogram.inverse(spectral, mixture.shape[-1])

    def core(self, mixture: Tensor, spectrogram: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, L), (B, 2C, F, T) -> (B, S, C, L), (B, S, 2C, F, T), without any STFT.

        The results are the time estimate and the spectral estimate. The network's output is the
        first plus `spectrogram.inverse` of the second. Exported models are this function.
        """
        x, restore_spectral = _normalise(spectrogram)
        y, restore_time = _normalise(mixture)

        spectral_skips, time_skips, lengths = [], [], []
        for i, (spectral_layer, time_layer) in enumerate(
            zip(self.spectral_encoder, self.time_encoder, strict=True)
        ):
            lengths.append(y.shape[-1])
            x, y = spectral_layer(x), time_layer(y)
            if i == 0:
                x = self.frequency_embedding(x)
            spectral_skips.append(x)
            time_skips.append(y)

        if self.transformer is not None:
            x, y = self.transformer(x, y)

        for spectral_layer, time_layer in zip(
            self.spectral_decoder, self.time_decoder, strict=True
        ):
            x = spectral_layer(x, spectral_skips.pop())
            y = time_layer(y, time_skips.pop(), lengths.pop())

        s = len(self.sources)
        time = restore_time(rearrange(y, "b (s c) l -> b s c l", s=s))
        return time, restore_spectral(rearrange(x, "b (s c) f t -> b s c f t", s=s))


class _Restore:
    """Undoes a normalisation, in the same way for every source."""

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.mean, self.std = mean.unsqueeze(1), std.unsqueeze(1)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, S, ...) -> (B, S, ...)"""
        return x * self.std + self.mean


def _normalise(x: Tensor) -> tuple[Tensor, _Restore]:
    """Return x with zero mean and unit deviation in each item of the batch, and the way back."""
    dims = tuple(range(1, x.dim()))
    correction = int(x[0].numel() > 1)  # a lone value deviates by 0, not by 0 / 0
    std, mean = torch.std_mean(x, dim=dims, keepdim=True, correction=correction)
    return (x - mean) / (EPSILON + std), _Restore(mean, std)


def _encoders(config: HTDemucsConfig) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Return the spectral and the time encoder, outermost layer first."""
    spectral, time = nn.ModuleList(), nn.ModuleList()
    spectral_in, time_in = 2 * config.audio_channels, config.audio_channels
    for width in config.widths:
        dconv = (width, config.dconv_comp, config.dconv_depth, config.dconv_init)
        spectral.append(SpectralEncoderLayer(spectral_in, width, SpectralDConv(*dconv)))
        time.append(TimeEncoderLayer(time_in, width, DConv(*dconv)))
        spectral_in = time_in = width
    return spectral, time


def _decoders(config: HTDemucsConfig) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Return the spectral and the time decoder, innermost layer first.

    The outermost layer has no activation at its end.
    """
    spectral, time = nn.ModuleList(), nn.ModuleList()
    outputs = len(config.sources) * config.audio_channels
    dconv_depth = config.dconv_depth if config.dconv_mode == 3 else 0
    for i in reversed(range(config.depth)):
        width = config.widths[i]
        dconv = (width, config.dconv_comp, dconv_depth, config.dconv_init)
        spectral_out, time_out = (config.widths[i - 1],) * 2 if i else (2 * outputs, outputs)
        activation: nn.Module = nn.GELU() if i else nn.Identity()
        spectral.append(
            SpectralDecoderLayer(width, spectral_out, SpectralDConv(*dconv), activation)
        )
        time.append(TimeDecoderLayer(width, time_out, DConv(*dconv), activation))
    return spectral, time


def _frequency_embedding(config: HTDemucsConfig) -> nn.Module:
    if not config.freq_emb:
        return nn.Identity()
    rows = config.bins // 4
    return FrequencyEmbedding(rows, config.channels, config.emb_scale, config.freq_emb)


class _NoInitialValues(TorchFunctionMode):
    """Skips the functions that give the parameters of torch's layers random values."""

    DRAWS = frozenset(
        {nn.init.kaiming_uniform_, nn.init.xavier_uniform_, Tensor.uniform_, Tensor.normal_}
    )

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in self.DRAWS:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


@torch.no_grad()
def _rescale_convolutions(module: nn.Module, reference: float) -> None:
    """Bring each convolution's initial deviation halfway, in decibels, to `reference`."""
    if not reference:
        return
    kinds = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
    for conv in (m for m in module.modules() if isinstance(m, kinds)):
        gain = (reference / conv.weight.std()).sqrt()
        conv.weight.mul_(gain)
        if conv.bias is not None:
            conv.bias.mul_(gain)
