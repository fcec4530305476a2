"""Random changes to waveforms that make the training data more varied than the recordings.

Each augmentation draws from its own generator, `rng(name)`, so that adding an augmentation or
switching one on never changes what the others draw. `effects.py` has the effects that need FFmpeg.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from htdemucs.training.config import AugmentConfig
from htdemucs.training.effects import codec_round_trip, effect_chain

TILT_CENTRE = 1000.0  # Hz: a tilt does not change this frequency's level
LOWEST_CUTOFF = 10_000.0  # Hz: lossy formats keep at least this much
QUIETEST_LIMIT = 0.3  # of a mixture's peak: the strongest limiting

NamedGenerators = Callable[[str], np.random.Generator]  # from an augmentation's name


def augment_source(
    waveform: Tensor,
    config: AugmentConfig,
    sample_rate: int,
    rng: NamedGenerators,
    level: float = 1.0,
) -> Tensor:
    """Change one source of an example at random: (C, L) -> (C, L).

    `level` is what the samples were divided by. Effects depend on the level, so they process the
    samples at their original one.
    """
    if rng("silence").random() < config.silence:
        return torch.zeros_like(waveform)
    if config.flip_channels and rng("flip_channels").random() < 0.5:
        waveform = waveform.flip(0)
    if config.flip_sign and rng("flip_sign").random() < 0.5:
        waveform = -waveform
    if config.tilt:
        decibels = rng("tilt").uniform(-config.tilt, config.tilt)
        waveform = tilt_spectrum(waveform, decibels, sample_rate)
    draw = rng("saturate")
    if draw.random() < config.saturate:
        waveform = saturate(waveform, drive=draw.uniform(1, 5))
    draw = rng("effects")
    if draw.random() < config.effects:
        waveform = (
            effect_chain(waveform * level, sample_rate, draw, config.effect_probabilities) / level
        )
    if waveform.shape[0] == 2:
        waveform = set_width(waveform, 1 + rng("width").uniform(-config.width, config.width))
        waveform = pan(waveform, rng("pan").uniform(-config.pan, config.pan))
    return waveform * rng("scale").uniform(config.scale_min, config.scale_max)


def augment_mixture(
    sources: Tensor, config: AugmentConfig, sample_rate: int, rng: NamedGenerators
) -> Tensor:
    """Mix the sources of an example: (S, C, L) -> (1 + S, C, L), the mixture first.

    A low-pass filter changes the mixture and the sources alike. A limiter and a lossy format change
    the mixture only, because their effect cannot be divided among the sources.
    """
    draw = rng("lowpass")
    if draw.random() < config.lowpass:
        sources = lowpass(sources, draw.uniform(LOWEST_CUTOFF, sample_rate / 2), sample_rate)
    mixture = sources.sum(0, keepdim=True)
    draw = rng("limit")
    if draw.random() < config.limit:
        mixture = limit_peaks(mixture, draw.uniform(QUIETEST_LIMIT, 1))
    draw = rng("codec")
    if draw.random() < config.codec:
        peak = max(1.0, float(mixture.abs().amax()))  # encoders may clip at full scale
        mixture = codec_round_trip(mixture[0] / peak, sample_rate, draw)[None] * peak
    return torch.cat([mixture, sources])


def draw_pitch_and_tempo(config: AugmentConfig, draw: np.random.Generator) -> tuple[int, float]:
    """Return semitones and a tempo factor; 0 and 1 without a change.

    The tempo does not depend on `repitch_semitones`: sources that differ only in it stay in sync.
    """
    if draw.random() >= config.repitch:
        return 0, 1.0
    most = config.repitch_semitones
    semitones = draw.integers(-max(most, 1), max(most, 1) + 1)
    change = draw.normal(0, config.repitch_tempo_std)
    change = np.clip(change, -config.repitch_tempo, config.repitch_tempo)
    return int(semitones) if most else 0, 1 + float(change)


def repitch(waveform: Tensor, semitones: float, tempo: float, sample_rate: int) -> Tensor:
    """(C, L) -> (C, L / tempo), higher by semitones and, independently, faster by a factor."""
    from python_stretch import Signalsmith

    stretch = Signalsmith.Stretch()
    stretch.preset(waveform.shape[0], sample_rate)
    stretch.setTransposeSemitones(semitones)
    stretch.timeFactor = tempo
    # The library ignores an array's strides.
    stretched = stretch.process(np.ascontiguousarray(waveform.numpy()))
    return torch.from_numpy(np.array(stretched))


def tilt_spectrum(waveform: Tensor, decibels: float, sample_rate: int) -> Tensor:
    """(..., L) -> (..., L), louder by `decibels` with each octave above 1 kHz, softer below."""
    frequency = _bin_frequencies(waveform, sample_rate).clamp(min=20.0)
    return _apply_gain(waveform, 10 ** (decibels / 20 * torch.log2(frequency / TILT_CENTRE)))


def lowpass(waveform: Tensor, cutoff: float, sample_rate: int) -> Tensor:
    """(..., L) -> (..., L), without the frequencies above `cutoff` Hz."""
    return _apply_gain(waveform, (_bin_frequencies(waveform, sample_rate) <= cutoff).float())


def saturate(waveform: Tensor, drive: float) -> Tensor:
    """(..., L) -> (..., L), softly clipped, the harder the greater `drive`; as loud as before."""
    peak = waveform.abs().amax().clamp(min=1e-6)
    clipped = torch.tanh(waveform * (drive / peak))
    energy = clipped.square().mean().clamp(min=1e-12)
    return clipped * (waveform.square().mean() / energy).sqrt()


def limit_peaks(waveform: Tensor, threshold: float) -> Tensor:
    """(..., L) -> (..., L), softly clipped at a fraction of the peak; quiet parts do not change."""
    ceiling = threshold * waveform.abs().amax().clamp(min=1e-6)
    return ceiling * torch.tanh(waveform / ceiling)


def pan(waveform: Tensor, position: float) -> Tensor:
    """(2, L) -> (2, L), moved to the left (-1) or the right (1) at constant power."""
    angle = (position + 1) * math.pi / 4
    return waveform * math.sqrt(2) * torch.tensor([[math.cos(angle)], [math.sin(angle)]])


def set_width(waveform: Tensor, width: float) -> Tensor:
    """(2, L) -> (2, L), with the difference of the channels scaled by `width`; 0 is mono."""
    middle, side = waveform.sum(0) / 2, (waveform[0] - waveform[1]) * (width / 2)
    return torch.stack([middle + side, middle - side])


def _bin_frequencies(waveform: Tensor, sample_rate: int) -> Tensor:
    """Return the frequency in Hz of each bin of the whole waveform's spectrum."""
    return torch.fft.rfftfreq(waveform.shape[-1], 1 / sample_rate)


def _apply_gain(waveform: Tensor, gain: Tensor) -> Tensor:
    """Multiply the waveform's spectrum by a gain for each bin."""
    return torch.fft.irfft(torch.fft.rfft(waveform) * gain, waveform.shape[-1])
