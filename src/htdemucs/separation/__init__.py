"""The engine: waveform blocks in, stem blocks out."""

from htdemucs.separation.levels import Normalization, measure
from htdemucs.separation.live import LiveSeparator, Timing
from htdemucs.separation.realtime import RealTimeSeparator
from htdemucs.separation.separator import OutputCache, Separator

__all__ = [
    "LiveSeparator",
    "Normalization",
    "OutputCache",
    "RealTimeSeparator",
    "Separator",
    "Timing",
    "measure",
]
