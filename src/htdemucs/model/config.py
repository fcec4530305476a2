"""The configurations of the networks, with the published values as defaults."""

import math
from dataclasses import dataclass
from fractions import Fraction
from numbers import Rational, Real
from typing import Any, Self

from htdemucs.errors import ConfigError

KERNEL_SIZE = 8  # of the outer convolutions: frequency bins, or samples
STRIDE = 4  # each encoder layer divides the number of bins (or samples) by this
ATTENTION_HEADS = 4  # of local attention
MAX_SECONDS = 1e9  # longer than any track
Seconds = float | Fraction

# Field -> its value while the feature is off. None and False mean the same, as in demucs.
OFF = {
    "multi_freqs": (),
    "freq_emb": 0,
    "rescale": 0,
    "bottom_channels": 0,
    "t_layers": 0,
    "hybrid_old": False,
    "normalize": False,
}


def exact_seconds(value: Any) -> Seconds:
    """Return a float as it is, and a whole number, a fraction or a string as an exact fraction.

    Raises:
        ConfigError: the value is not a number of seconds above 0, or is not finite.
    """
    try:
        if isinstance(value, str | Rational):
            seconds: Seconds = Fraction(value)
        else:
            seconds = float(value)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        seconds = math.nan
    if not seconds < MAX_SECONDS:
        raise ConfigError(f"segment must be a number of seconds, not {value!r}")
    if seconds <= 0:
        raise ConfigError(f"segment must be longer than 0 seconds, not {float(seconds)}")
    return seconds


def seconds_to_samples(seconds: Seconds, sample_rate: int) -> int:
    """Return the number of whole samples in a duration.

    A float is multiplied as a float, as in the published package: at 44.1 kHz 0.7 s are 30 869
    samples and 7/10 s are 30 870.
    """
    return int(sample_rate * seconds)


def json_seconds(seconds: Seconds) -> float | str:
    """Return seconds as a JSON value that `exact_seconds` turns back into the same seconds."""
    return seconds if isinstance(seconds, float) else str(seconds)


@dataclass(frozen=True)
class NetworkConfig:
    """Base of the configurations of all networks.

    A field that the released checkpoints have too has the name that it has there. Impossible values
    raise `ConfigError`; whole numbers and fractions become floats where the field is one, and None
    and False become the value of a feature that is off.

    Attributes:
        sources: names of the model's outputs, in order.
        audio_channels: 1 or 2.
        sample_rate: Hz.
        segment: seconds of a segment by default; whole numbers and strings become fractions.
        channels: width of the outermost layer.
        growth: ratio of a layer's width to the width of the next layer outwards.
        depth: encoder layers, and decoder layers.
        dconv_mode: 1 puts a DConv in encoder layers only, 3 in encoder and decoder layers.
        dconv_depth: residual layers in a DConv.
        dconv_comp: a DConv's hidden width is its width divided by this.
        dconv_init: initial LayerScale of a DConv.
        rescale: reference standard deviation of the initial convolution weights; 0: no rescaling.
    """

    sources: tuple[str, ...] = ("drums", "bass", "other", "vocals")
    audio_channels: int = 2
    sample_rate: int = 44100
    segment: Seconds = Fraction(44)
    channels: int = 48
    growth: int = 2
    depth: int = 6
    dconv_mode: int = 1
    dconv_depth: int = 2
    dconv_comp: float = 4
    dconv_init: float = 1e-3
    rescale: float = 0.1

    def __post_init__(self) -> None:
        for name, value in OFF.items():
            if getattr(self, name, value) is None or getattr(self, name, value) is False:
                object.__setattr__(self, name, value)
        object.__setattr__(self, "sources", self._checked_sources())
        object.__setattr__(self, "segment", exact_seconds(self.segment))
        for name in ("sample_rate", "channels", "growth", "depth"):
            self._require(name, int, minimum=1)
        self._require("dconv_depth", int, minimum=0)
        self._require("dconv_comp", Real, above=0)
        for name in ("dconv_init", "rescale"):
            self._require(name, Real, minimum=0)
        if self.audio_channels not in (1, 2):
            raise ConfigError(f"audio_channels must be 1 or 2, not {self.audio_channels!r}")
        if self.dconv_mode not in (1, 3):
            raise ConfigError(
                f"dconv_mode must be 1 (encoders) or 3 (decoders too), not {self.dconv_mode!r}"
            )
        if self.dconv_depth and self.channels < self.dconv_comp:
            raise ConfigError(
                f"dconv_comp {self.dconv_comp} leaves a DConv no channels; "
                f"use at most {self.channels}, the number of channels"
            )
        if self.segment_length < 1:
            raise ConfigError(f"segment {float(self.segment)} s is shorter than one sample")

    def _checked_sources(self) -> tuple[str, ...]:
        names: Any = self.sources
        if isinstance(names, str) or not all(isinstance(name, str) and name for name in names):
            raise ConfigError(f"sources must be a list of names, not {names!r}")
        if not names or len(set(names)) != len(names):
            raise ConfigError(f"sources must be one or more different names, not {list(names)}")
        return tuple(names)

    def _require(
        self, name: str, number_type: type, minimum: float | None = None, above: float | None = None
    ) -> None:
        value: Any = getattr(self, name)
        numeric = isinstance(value, number_type) and not isinstance(value, bool)
        number = float(value) if numeric else math.nan
        if not math.isfinite(number):
            noun = "a whole number" if number_type is int else "a number"
            raise ConfigError(f"{name} must be {noun}, not {value!r}")
        if minimum is not None and number < minimum:
            raise ConfigError(f"{name} must be at least {minimum}, not {value}")
        if above is not None and number <= above:
            raise ConfigError(f"{name} must be more than {above}, not {value}")
        if number_type is Real:
            object.__setattr__(self, name, number)

    @property
    def segment_length(self) -> int:
        """Samples in a segment."""
        return seconds_to_samples(self.segment, self.sample_rate)

    @property
    def layer_channels(self) -> tuple[int, ...]:
        """Channels after each encoder layer, outermost first."""
        return tuple(self.channels * self.growth**i for i in range(self.depth))

    @property
    def max_segment(self) -> Seconds | None:
        """Seconds of the longest segment that the network can separate well; None: any length."""
        return None

    def window_length(self, length: int, segment_length: int) -> int:  # noqa: ARG002
        """Return how many samples the network needs as input to separate `length` samples.

        The samples lie in the middle of this window. The engine cuts a track into segments of
        `segment_length` samples; only the last ones are shorter.
        """
        return length

    def margin(self, segment_length: int) -> int:  # noqa: ARG002
        """Return the most samples of a window on one side of the samples that it is for."""
        return 0

    def activation_size(self, length: int) -> int:
        """Return how many values the outermost encoder layer computes for `length` samples."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values; a fraction is "numerator/denominator"."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        lists = {name: list(value) for name, value in fields.items() if isinstance(value, tuple)}
        return fields | lists | {"segment": json_seconds(self.segment)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Return the configuration with these fields. Unknown fields raise `ConfigError`."""
        unknown = sorted(set(fields) - set(cls.__dataclass_fields__))
        if unknown:
            raise ConfigError(f"unknown configuration fields: {', '.join(unknown)}")
        return cls(**fields)


@dataclass(frozen=True)
class HybridConfig(NetworkConfig):
    """Base of the configurations of networks with a spectral and a time branch.

    Attributes:
        n_fft: samples in an STFT frame; the hop is a quarter of it.
        freq_emb: weight of the frequency embedding after the first spectral layer; 0: no embedding.
        emb_scale: the embedding is stored divided by this, which multiplies its learning rate.
    """

    n_fft: int = 4096
    freq_emb: float = 0.2
    emb_scale: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("n_fft", int, minimum=1)
        self._require("freq_emb", Real, minimum=0)
        self._require("emb_scale", Real, above=0)

    @property
    def hop_length(self) -> int:
        """Samples between STFT frames."""
        return self.n_fft // 4

    @property
    def bins(self) -> int:
        """Frequency bins that the network uses (the Nyquist bin is dropped)."""
        return self.n_fft // 2

    def activation_size(self, length: int) -> int:
        """Return how many values the outermost spectral layer computes for `length` samples."""
        return 2 * self.channels * self.bins // STRIDE * math.ceil(length / self.hop_length)


@dataclass(frozen=True)
class ContextConfig(NetworkConfig):
    """Base of the configurations of networks with norms, LSTMs and local attention inside.

    Attributes:
        norm_starts: number of the first encoder layer with GroupNorm, 0 being the outermost; the
            decoder layer that mirrors it has one too.
        norm_groups: groups of these norms.
        dconv_lstm: number of the first layer whose DConv has an LSTM.
        dconv_attn: number of the first layer whose DConv has local attention.
    """

    norm_starts: int = 4
    norm_groups: int = 4
    dconv_lstm: int = 4
    dconv_attn: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("norm_starts", "dconv_lstm", "dconv_attn"):
            self._require(name, int, minimum=0)
        self._require("norm_groups", int, minimum=1)
        for i, width in enumerate(self.layer_channels):
            hidden = int(width / self.dconv_comp)
            if i >= self.norm_starts and width % self.norm_groups:
                raise ConfigError(f"norm_groups {self.norm_groups} must divide {width} channels")
            if i >= self.dconv_attn and self.dconv_depth and hidden % ATTENTION_HEADS:
                raise ConfigError(
                    f"local attention needs a multiple of {ATTENTION_HEADS} channels in a DConv, "
                    f"not {hidden}; raise dconv_attn or change dconv_comp"
                )

    def groups(self, layer: int) -> int:
        """Return the groups of a layer's norms, or 0 if it has none."""
        return self.norm_groups if layer >= self.norm_starts else 0


@dataclass(frozen=True)
class HTDemucsConfig(HybridConfig):
    """One Hybrid Transformer Demucs, as published (arXiv 2211.08553).

    The defaults are those of the released `htdemucs`.

    Attributes:
        segment: seconds of one training segment, the longest that the engine uses.
        bottom_channels: width of the transformer; 0 means the width of the innermost layer.
        t_layers: transformer layers in each branch; 0: no transformer, and `bottom_channels` is 0.
        t_heads: attention heads.
        t_hidden_scale: hidden width of a feed-forward block, relative to the transformer's width.
        t_dropout: dropout probability inside the transformer while training.
    """

    segment: Seconds = Fraction(39, 5)
    depth: int = 4
    dconv_mode: int = 3
    dconv_comp: float = 8
    bottom_channels: int = 512
    t_layers: int = 5
    t_heads: int = 8
    t_hidden_scale: float = 4.0
    t_dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("t_heads", int, minimum=1)
        for name in ("bottom_channels", "t_layers"):
            self._require(name, int, minimum=0)
        self._require("t_dropout", Real, minimum=0)
        self._require("t_hidden_scale", Real, above=0)
        if self.t_dropout >= 1:
            raise ConfigError(f"t_dropout must be below 1, not {self.t_dropout}")
        if self.n_fft % (2 * STRIDE**self.depth) or self.n_fft % 8:
            raise ConfigError(
                f"n_fft must be a multiple of {max(8, 2 * STRIDE**self.depth)} "
                f"for depth {self.depth}, not {self.n_fft}"
            )
        # Hybrid Demucs merges the branches where a layer has no more bins than its kernel.
        if self.bins // STRIDE ** (self.depth - 1) <= KERNEL_SIZE:
            raise ConfigError(
                f"depth {self.depth} leaves the innermost layer too few frequencies with n_fft "
                f"{self.n_fft}; lower depth, or raise n_fft to {6 * STRIDE**self.depth}"
            )
        width = self.transformer_channels
        if not self.t_layers:
            object.__setattr__(self, "bottom_channels", 0)
        elif width % 4:
            raise ConfigError(f"the transformer's width must be a multiple of 4, not {width}")
        elif width % self.t_heads:
            raise ConfigError(
                f"the transformer's width {width} must be a multiple of t_heads {self.t_heads}"
            )

    @property
    def transformer_channels(self) -> int:
        """Width of the cross-domain transformer."""
        return self.bottom_channels or self.layer_channels[-1]

    @property
    def max_segment(self) -> Seconds | None:
        """Seconds of a training segment: attention was not trained on longer ones."""
        return self.segment

    def window_length(self, length: int, segment_length: int) -> int:  # noqa: ARG002
        """Return the length of a segment: attention was trained with that much context."""
        return segment_length

    def margin(self, segment_length: int) -> int:
        """Return half a segment."""
        return segment_length // 2
