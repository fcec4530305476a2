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
    UploadError,
)
from htdemucs.version import __version__

if TYPE_CHECKING:
    from htdemucs.audio import AudioEncoding, AudioFile
    from htdemucs.batch import Library, Track, find_tracks
    from htdemucs.events import Progress
    from htdemucs.model import (
        Bag,
        Demucs,
        DemucsConfig,
        HDemucs,
        HDemucsConfig,
        HTDemucs,
        HTDemucsConfig,
    )
    from htdemucs.results import TrackResult
    from htdemucs.separation import (
        LiveSeparator,
        Normalization,
        RealTimeSeparator,
        Separator,
        Timing,
    )
    from htdemucs.stems import OutputOptions, separate_file
    from htdemucs.weights import load_model, save_model

# Models come from the room above theirs, which enables them to read and write themselves.
_ROOMS = {
    "AudioEncoding": "audio",
    "AudioFile": "audio",
    "Bag": "weights",
    "Demucs": "weights",
    "DemucsConfig": "model",
    "HDemucs": "weights",
    "HDemucsConfig": "model",
    "HTDemucs": "weights",
    "HTDemucsConfig": "model",
    "Library": "batch",
    "LiveSeparator": "separation",
    "Normalization": "separation",
    "OutputOptions": "stems",
    "Progress": "events",
    "RealTimeSeparator": "separation",
    "Separator": "separation",
    "Timing": "separation",
    "Track": "batch",
    "TrackResult": "results",
    "find_tracks": "batch",
    "load_model": "weights",
    "save_model": "weights",
    "separate_file": "stems",
}

__all__ = [
    "AudioEncoding",
    "AudioError",
    "AudioFile",
    "Bag",
    "CheckpointError",
    "ConfigError",
    "Demucs",
    "DemucsConfig",
    "DownloadError",
    "EvaluationError",
    "HDemucs",
    "HDemucsConfig",
    "HTDemucs",
    "HTDemucsConfig",
    "HTDemucsError",
    "Library",
    "LiveSeparator",
    "ModelNotFoundError",
    "Normalization",
    "OutputOptions",
    "Progress",
    "RealTimeSeparator",
    "SegmentTooLongError",
    "SeparationError",
    "Separator",
    "Timing",
    "Track",
    "TrackResult",
    "UploadError",
    "__version__",
    "find_tracks",
    "load_model",
    "save_model",
    "separate_file",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'htdemucs' has no attribute {name!r}")
    return getattr(import_module(f"htdemucs.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
