"""The engine: waveform blocks in, stem blocks out."""

from htdemucs.separation.normalization import Normalization, measure
from htdemucs.separation.options import OutputOptions
from htdemucs.separation.separator import Progress, Separator

__all__ = ["Normalization", "OutputOptions", "Progress", "Separator", "measure"]
