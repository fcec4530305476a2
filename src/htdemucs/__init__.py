"""Hybrid Transformer Demucs: the network, its official checkpoints, and a streaming engine.

Names are imported when first used, so that `import htdemucs` does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from htdemucs.errors import (
    AudioError,
    CheckpointError,
    ConfigError,
    DownloadError,
    EvaluationError,
    HTDemucsError,
    ModelNotFoundError,
    SegmentTooLongError,
    SeparationError,
)

if TYPE_CHECKING:
    from htdemucs.audio import AudioEncoding, AudioFile
    from htdemucs.model import Bag, HTDemucs, HTDemucsConfig
    from htdemucs.separation import OutputOptions, Progress, Separator
    from htdemucs.weights import load_model, save_model

__version__ = "0.1.0"

_ROOMS = {
    "AudioEncoding": "audio",
    "AudioFile": "audio",
    "Bag": "model",
    "HTDemucs": "model",
    "HTDemucsConfig": "model",
    "OutputOptions": "separation",
    "Progress": "separation",
    "Separator": "separation",
    "load_model": "weights",
    "save_model": "weights",
}

__all__ = [
    "AudioEncoding",
    "AudioError",
    "AudioFile",
    "Bag",
    "CheckpointError",
    "ConfigError",
    "DownloadError",
    "EvaluationError",
    "HTDemucs",
    "HTDemucsConfig",
    "HTDemucsError",
    "ModelNotFoundError",
    "OutputOptions",
    "Progress",
    "SegmentTooLongError",
    "SeparationError",
    "Separator",
    "load_model",
    "save_model",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'htdemucs' has no attribute {name!r}")
    return getattr(import_module(f"htdemucs.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
