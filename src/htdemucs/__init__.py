"""Separate music into stems with Hybrid Transformer Demucs (HTDemucs).

    from htdemucs import separate_file

    separate_file("htdemucs", "song.mp3", two_stems="vocals", format="mp3")

Files and tensors:
    Separator           separate a tensor, or a stream of blocks
    Normalization       the mean and deviation of a mixture, for streams
    separate_file       separate one file and write its stems; returns a TrackResult
    OutputOptions       which stems to write, and how
    AudioFile           read any audio file in blocks
    AudioEncoding       the format of a written file
    Progress            the event that reports how much of a track is done
    ProgressBar         a callback that shows these events as a bar

Many files:
    find_tracks         find the audio files in folders and playlists
    Library             separate many tracks; skip finished ones, resume others
    Track, TrackResult  one of these tracks, and its result

Models:
    load_model          load a model by its name or path
    save_model          write a model to a folder
    HTDemucs, HDemucs, Demucs                       the networks
    HTDemucsConfig, HDemucsConfig, DemucsConfig     their sizes
    Bag                 several networks as one model
    trace               the size of the data at every stage, and the data itself

Live:
    LiveSeparator       separate a stream with a fixed delay
    RealTimeSeparator   the same, with the network in a thread
    Timing              the parts of the delay

Every expected failure is an HTDemucsError: AudioError, CheckpointError, ConfigError, DownloadError,
EvaluationError, ModelNotFoundError, SegmentTooLongError, SeparationError or UploadError.

`help(htdemucs.Separator)` describes one name. Each is imported when it is first used, so that
`import htdemucs` does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from htdemucs.version import __version__

if TYPE_CHECKING:
    from htdemucs.audio import AudioEncoding, AudioFile
    from htdemucs.batch import Library, Track, find_tracks
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
    from htdemucs.events import Progress, ProgressBar
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
    from htdemucs.tracing import trace
    from htdemucs.weights import load_model, save_model

_MODULES = {
    "AudioEncoding": "audio",
    "AudioError": "errors",
    "AudioFile": "audio",
    "Bag": "model",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "Demucs": "model",
    "DemucsConfig": "model",
    "DownloadError": "errors",
    "EvaluationError": "errors",
    "HDemucs": "model",
    "HDemucsConfig": "model",
    "HTDemucs": "model",
    "HTDemucsConfig": "model",
    "HTDemucsError": "errors",
    "Library": "batch",
    "LiveSeparator": "separation",
    "ModelNotFoundError": "errors",
    "Normalization": "separation",
    "OutputOptions": "stems",
    "Progress": "events",
    "ProgressBar": "events",
    "RealTimeSeparator": "separation",
    "SegmentTooLongError": "errors",
    "SeparationError": "errors",
    "Separator": "separation",
    "Timing": "separation",
    "Track": "batch",
    "TrackResult": "results",
    "UploadError": "errors",
    "find_tracks": "batch",
    "load_model": "weights",
    "save_model": "weights",
    "separate_file": "stems",
    "trace": "tracing",
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
    "ProgressBar",
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
    "trace",
]


# There is no __dir__: `help(htdemucs)` would print every method of every class.
def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'htdemucs' has no attribute {name!r}")
    return getattr(import_module(f"htdemucs.{_MODULES[name]}"), name)
