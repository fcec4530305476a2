"""Changes to one source of one example; each is a function of the waveform and a generator."""

import math

import numpy as np
import torch
from torch import Tensor

from htdemucs.training.config import AugmentConfig

TILT_CENTRE = 1000.0  # Hz: what a tilt leaves as loud as it was


def augment(
    waveform: Tensor, config: AugmentConfig, sample_rate: int, draw: np.random.Generator
) -> Tensor:
    """(C, L) -> (C, L). Every draw is made whatever is switched on, so switches change nothing else."""
    flip, sign, scale, silent, tilt, pan = draw.random(6)
    if config.flip_channels and flip < 0.5:
        waveform = waveform.flip(0)
    if config.flip_sign and sign < 0.5:
        waveform = -waveform
    if config.tilt:
        waveform = tilted(waveform, (2 * tilt - 1) * config.tilt, sample_rate)
    if config.pan and waveform.shape[0] == 2:
        waveform = panned(waveform, (2 * pan - 1) * config.pan)
    if silent < config.silence:
        return torch.zeros_like(waveform)
    return waveform * (config.scale_min + (config.scale_max - config.scale_min) * scale)


def tilted(waveform: Tensor, decibels: float, sample_rate: int) -> Tensor:
    """(C, L) -> (C, L): louder by `decibels` with each octave above 1 kHz, softer below."""
    length = waveform.shape[-1]
    spectrum = torch.fft.rfft(waveform)
    frequency = torch.fft.rfftfreq(length, 1 / sample_rate).clamp(min=20.0)
    gain = 10 ** (decibels / 20 * torch.log2(frequency / TILT_CENTRE))
    return torch.fft.irfft(spectrum * gain, length)


def panned(waveform: Tensor, position: float) -> Tensor:
    """(2, L) -> (2, L): towards the left (-1) or the right (1), at constant power."""
    angle = (position + 1) * math.pi / 4
    return waveform * math.sqrt(2) * torch.tensor([[math.cos(angle)], [math.sin(angle)]])


def repitched(waveform: Tensor, semitones: float, tempo: float, sample_rate: int) -> Tensor:
    """(C, L) -> (C, L / tempo): higher by semitones and faster by a factor, independently."""
    from python_stretch import Signalsmith

    stretch = Signalsmith.Stretch()
    stretch.preset(waveform.shape[0], sample_rate)
    stretch.setTransposeSemitones(semitones)
    stretch.timeFactor = tempo
    return torch.from_numpy(np.ascontiguousarray(stretch.process(waveform.numpy())))
