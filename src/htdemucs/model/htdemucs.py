"""Hybrid Transformer Demucs (arXiv 2211.08553).

Shapes: B batch, S source, C channel, F frequency bin, T STFT frame, L sample.
"""

from torch import Tensor, nn

from htdemucs.model.config import HTDemucsConfig
from htdemucs.model.hybrid import HybridNetwork
from htdemucs.model.layers import (
    DConv,
    SpectralDConv,
    SpectralDecoderLayer,
    SpectralEncoderLayer,
    TimeDecoderLayer,
    TimeEncoderLayer,
    frequency_embedding,
)
from htdemucs.model.network import rescale_convolutions
from htdemucs.model.spectrogram import Spectrogram
from htdemucs.model.transformer import CrossDomainTransformer


class HTDemucs(HybridNetwork):
    """A `HybridNetwork` whose bottleneck is a transformer across both branches.

    Args:
        config: every size of the network; the default is the released `htdemucs`.
    """

    config: HTDemucsConfig

    def __init__(self, config: HTDemucsConfig | None = None) -> None:
        config = config or HTDemucsConfig()
        super().__init__(config)
        self.spectrogram = Spectrogram(config.n_fft)
        self.spectral_encoder, self.time_encoder = _encoders(config)
        self.spectral_decoder, self.time_decoder = _decoders(config)
        rescale_convolutions(self, config.rescale)
        self.frequency_embedding = frequency_embedding(config)
        self.transformer = CrossDomainTransformer(config) if config.t_layers else None

    def bottleneck(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, F, T), (B, C, L) -> the same shapes, through the transformer if there is one"""
        return (x, y) if self.transformer is None else self.transformer(x, y)


def _encoders(config: HTDemucsConfig) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Return the spectral and the time encoder, outermost layer first."""
    spectral, time = nn.ModuleList(), nn.ModuleList()
    spectral_in, time_in = 2 * config.audio_channels, config.audio_channels
    for width in config.layer_channels:
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
        width = config.layer_channels[i]
        dconv = (width, config.dconv_comp, dconv_depth, config.dconv_init)
        spectral_out, time_out = (
            (config.layer_channels[i - 1],) * 2 if i else (2 * outputs, outputs)
        )
        activation: nn.Module = nn.GELU() if i else nn.Identity()
        spectral.append(
            SpectralDecoderLayer(width, spectral_out, SpectralDConv(*dconv), activation)
        )
        time.append(TimeDecoderLayer(width, time_out, DConv(*dconv), activation))
    return spectral, time
