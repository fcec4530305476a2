"""The engine: waveform blocks in, stem blocks out."""

from htdemucs.separation.normalization import Normalization, measure
from htdemucs.separation.separator import Answers, Separator

__all__ = ["Answers", "Normalization", "Separator", "measure"]
