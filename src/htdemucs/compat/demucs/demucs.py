"""`demucs.demucs`."""

from htdemucs.compat.demucs.utils import center_trim, unfold
from htdemucs.compat.networks import Demucs

__all__ = ["Demucs", "center_trim", "unfold"]
