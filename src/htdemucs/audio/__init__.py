"""Files to waveforms and back, in blocks: memory does not depend on a file's length."""

from htdemucs.audio.convert import Resampler, pad_or_trim, resampled_length
from htdemucs.audio.formats import FORMATS, AudioEncoding
from htdemucs.audio.read import Align, AudioFile, reblock, zip_blocks
from htdemucs.audio.sample_cache import Spool
from htdemucs.audio.soundcard import SoundCard, devices
from htdemucs.audio.stem_mp4 import StemFileWriter, read_stem_metadata
from htdemucs.audio.streams import AudioPipe, PipeWriter, RawFormat
from htdemucs.audio.tags import Tags, read_tags, write_tags
from htdemucs.audio.write import AudioWriter

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
    "pad_or_trim",
    "read_stem_metadata",
    "read_tags",
    "reblock",
    "resampled_length",
    "write_tags",
    "zip_blocks",
]
