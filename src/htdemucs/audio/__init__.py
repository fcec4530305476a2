"""Files to waveforms and back, in blocks: memory does not depend on a file's length."""

from htdemucs.audio.encoding import FORMATS, AudioEncoding
from htdemucs.audio.pipe import AudioPipe, PipeWriter, RawFormat
from htdemucs.audio.reader import AudioFile, in_step, reblock
from htdemucs.audio.resample import Resampler, fitted, resampled_length
from htdemucs.audio.soundcard import SoundCard, devices
from htdemucs.audio.spool import Spool
from htdemucs.audio.stem_file import StemFileWriter, read_stem_metadata
from htdemucs.audio.tags import Tags, read_tags, write_tags
from htdemucs.audio.timeline import Align
from htdemucs.audio.writer import AudioWriter

__all__ = [
    "FORMATS",
    "Align",
    "AudioEncoding",
    "AudioFile",
    "AudioPipe",
    "AudioWriter",
    "PipeWriter",
    "RawFormat",
    "Resampler",
    "SoundCard",
    "Spool",
    "StemFileWriter",
    "Tags",
    "devices",
    "fitted",
    "in_step",
    "read_stem_metadata",
    "read_tags",
    "reblock",
    "resampled_length",
    "write_tags",
]
