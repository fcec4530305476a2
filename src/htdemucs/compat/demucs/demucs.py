"""`demucs.demucs`."""

from htdemucs.compat.networks import Demucs

__all__ = ["Demucs"]
