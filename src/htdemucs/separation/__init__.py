"""The engine: waveform blocks in, stem blocks out."""

from htdemucs.separation.levels import Normalization, measure
from htdemucs.separation.live import LiveSeparator, Timing
from htdemucs.separation.realtime import RealTimeSeparator
from htdemucs.separation.separator import Answers, Separator

__all__ = [
    "Answers",
    "LiveSeparator",
    "Normalization",
    "RealTimeSeparator",
    "Separator",
    "Timing",
    "measure",
]
