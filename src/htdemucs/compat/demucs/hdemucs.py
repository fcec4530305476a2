"""`demucs.hdemucs`."""

from htdemucs.compat.networks import HDemucs

__all__ = ["HDemucs"]
