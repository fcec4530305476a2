"""`demucs.htdemucs`."""

from htdemucs.compat.networks import HTDemucs

__all__ = ["HTDemucs"]
