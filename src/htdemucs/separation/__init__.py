"""The engine: waveform blocks in, stem blocks out."""

from htdemucs.separation.normalization import Normalization, measure
from htdemucs.separation.separator import Separator

__all__ = ["Normalization", "Separator", "measure"]
