"""The forward pass of the networks with a spectral and a time branch, as in the papers' figures.

Shapes: B batch, S source, C channel, F frequency bin, T STFT frame, L sample.
"""

from einops import rearrange
from torch import Tensor, nn

from htdemucs.model.config import HybridConfig
from htdemucs.model.network import Network, normalize
from htdemucs.model.spectrogram import Spectrogram


class HybridNetwork(Network):
    """Two U-Nets, one on the spectrogram and one on the waveform, that meet in a bottleneck.

    The network's output is the time estimate of `core` plus the inverse STFT of its spectral
    estimate. Exported models are the core.
    """

    config: HybridConfig
    spectrogram: Spectrogram
    spectral_encoder: nn.ModuleList  # outermost layer first
    time_encoder: nn.ModuleList
    spectral_decoder: nn.ModuleList  # innermost layer first
    time_decoder: nn.ModuleList
    frequency_embedding: nn.Module

    def forward(self, mixture: Tensor) -> Tensor:
        """(B, C, L) -> (B, S, C, L), for any L of at least 1."""
        time, spectral = self.core(mixture, self.spectrogram(mixture))
        return time + self.spectrogram.inverse(spectral, mixture.shape[-1])

    def core(self, mixture: Tensor, spectrogram: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, L), (B, 2C, F, T) -> (B, S, C, L), (B, S, 2C, F, T), without any STFT."""
        x, denormalize_spectral = normalize(spectrogram)
        y, denormalize_time = normalize(mixture)

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

        x, y = self.bottleneck(x, y)

        for spectral_layer, time_layer in zip(
            self.spectral_decoder, self.time_decoder, strict=True
        ):
            x = spectral_layer(x, spectral_skips.pop())
            y = time_layer(y, time_skips.pop(), lengths.pop())

        s = len(self.sources)
        time = denormalize_time(rearrange(y, "b (s c) l -> b s c l", s=s))
        return time, denormalize_spectral(rearrange(x, "b (s c) f t -> b s c f t", s=s))

    def bottleneck(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, F, T), (B, C, L) -> the same shapes: from the encoders to the decoders"""
        raise NotImplementedError
