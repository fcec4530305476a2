"""The engine: waveform blocks in, stem blocks out."""

from htdemucs.separation.normalization import Normalization, measure
from htdemucs.separation.separator import Progress, Separator

__all__ = ["Normalization", "Progress", "Separator", "measure"]
