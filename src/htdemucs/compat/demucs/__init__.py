"""The modules of the published `demucs` package that programs import, run by this package."""

__version__ = "4.1.0"
