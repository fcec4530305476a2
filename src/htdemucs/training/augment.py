"""Random changes to waveforms, so that a network hears more than was recorded.

`changed` is for one source of an example, `mixed` for the whole example. Both make every draw
whatever is switched on, so that switching one change on leaves the others as they were.
"""

import math

import numpy as np
import torch
from torch import Tensor

from htdemucs.training.config import AugmentConfig
from htdemucs.training.effects import codec_round_trip, effect_chain

TILT_CENTRE = 1000.0  # Hz: as loud after a tilt as before
LOWEST_CUTOFF = 10_000.0  # Hz: lossy formats keep at least this much
QUIETEST_LIMIT = 0.3  # of a mixture's peak: the strongest limiting


def changed(
    waveform: Tensor, config: AugmentConfig, sample_rate: int, draw: np.random.Generator
) -> Tensor:
    """Change one source at random: (C, L) -> (C, L)."""
    flip, sign, scale, silent, tilt, pan, width, drive, driven = draw.random(9)
    if silent < config.silence:
        return torch.zeros_like(waveform)
    if config.flip_channels and flip < 0.5:
        waveform = waveform.flip(0)
    if config.flip_sign and sign < 0.5:
        waveform = -waveform
    if config.tilt:
        waveform = tilted(waveform, (2 * tilt - 1) * config.tilt, sample_rate)
    if driven < config.saturate:
        waveform = saturated(waveform, 1 + 4 * drive)
    if draw.random() < config.effects:
        waveform = effect_chain(waveform, sample_rate, draw)
    if waveform.shape[0] == 2:
        waveform = widened(waveform, 1 + (2 * width - 1) * config.width)
        waveform = panned(waveform, (2 * pan - 1) * config.pan)
    return waveform * (config.scale_min + (config.scale_max - config.scale_min) * scale)


def mixed(
    sources: Tensor, config: AugmentConfig, sample_rate: int, draw: np.random.Generator
) -> Tensor:
    """Mix an example: (S, C, L) -> (1 + S, C, L), the mixture in front of its sources.

    A low-pass filter changes mixture and sources alike; a limiter and a lossy format change the
    mixture alone, since they cannot be shared out among the sources.
    """
    chance, cutoff, limiting, limit = draw.random(4)
    if chance < config.lowpass:
        highest = sample_rate / 2
        sources = lowpassed(
            sources, LOWEST_CUTOFF + cutoff * (highest - LOWEST_CUTOFF), sample_rate
        )
    mixture = sources.sum(0, keepdim=True)
    if limiting < config.limit:
        mixture = limited(mixture, QUIETEST_LIMIT + limit * (1 - QUIETEST_LIMIT))
    if draw.random() < config.codec:
        mixture = codec_round_trip(mixture[0], sample_rate, draw)[None]
    return torch.cat([mixture, sources])


def tilted(waveform: Tensor, decibels: float, sample_rate: int) -> Tensor:
    """(..., L) -> (..., L), louder by `decibels` with each octave above 1 kHz, softer below."""
    frequency = _frequencies(waveform, sample_rate).clamp(min=20.0)
    return _filtered(waveform, 10 ** (decibels / 20 * torch.log2(frequency / TILT_CENTRE)))


def lowpassed(waveform: Tensor, cutoff: float, sample_rate: int) -> Tensor:
    """(..., L) -> (..., L), without anything above `cutoff` Hz."""
    return _filtered(waveform, (_frequencies(waveform, sample_rate) <= cutoff).float())


def saturated(waveform: Tensor, drive: float) -> Tensor:
    """(..., L) -> (..., L), softly clipped, the harder the greater `drive`; as loud as before."""
    peak = waveform.abs().amax().clamp(min=1e-6)
    pressed = torch.tanh(waveform * (drive / peak))
    energy = pressed.square().mean().clamp(min=1e-12)
    return pressed * (waveform.square().mean() / energy).sqrt()


def limited(waveform: Tensor, threshold: float) -> Tensor:
    """(..., L) -> (..., L), softly clipped at a fraction of the peak; quiet parts do not change."""
    ceiling = threshold * waveform.abs().amax().clamp(min=1e-6)
    return ceiling * torch.tanh(waveform / ceiling)


def panned(waveform: Tensor, position: float) -> Tensor:
    """(2, L) -> (2, L), moved to the left (-1) or the right (1) at constant power."""
    angle = (position + 1) * math.pi / 4
    return waveform * math.sqrt(2) * torch.tensor([[math.cos(angle)], [math.sin(angle)]])


def widened(waveform: Tensor, width: float) -> Tensor:
    """(2, L) -> (2, L), with the difference of the channels scaled by `width`; 0 is mono."""
    middle, side = waveform.sum(0) / 2, (waveform[0] - waveform[1]) * (width / 2)
    return torch.stack([middle + side, middle - side])


def repitched(waveform: Tensor, semitones: float, tempo: float, sample_rate: int) -> Tensor:
    """(C, L) -> (C, L / tempo), higher by semitones and, independently, faster by a factor."""
    from python_stretch import Signalsmith

    stretch = Signalsmith.Stretch()
    stretch.preset(waveform.shape[0], sample_rate)
    stretch.setTransposeSemitones(semitones)
    stretch.timeFactor = tempo
    # It reads memory in order, whatever an array's strides say.
    stretched = stretch.process(np.ascontiguousarray(waveform.numpy()))
    return torch.from_numpy(np.array(stretched))


def _frequencies(waveform: Tensor, sample_rate: int) -> Tensor:
    """Return the Hz of each bin of the whole waveform's spectrum."""
    return torch.fft.rfftfreq(waveform.shape[-1], 1 / sample_rate)


def _filtered(waveform: Tensor, gain: Tensor) -> Tensor:
    return torch.fft.irfft(torch.fft.rfft(waveform) * gain, waveform.shape[-1])
