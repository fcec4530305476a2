"""Audio files, pipes and sound cards: samples in and out, in blocks.

Memory does not depend on the length of a file. Imports torch, PyAV, mutagen and soxr, and of this
package only the modules at the root. Start with `read.py`, the pipeline from a file to blocks of
samples, and `write.py`. To add an output format, add a row to `htdemucs/formats.py`. Quirks of
FFmpeg and PyAV are handled in `ffmpeg.py`, `wav_probe.py` and `concatenated.py`.
"""

from htdemucs.audio.convert import Resampler, pad_or_trim, resampled_length
from htdemucs.audio.encoding import AudioEncoding
from htdemucs.audio.gaps import Align
from htdemucs.audio.read import AudioFile, reblock, zip_blocks
from htdemucs.audio.sample_cache import SampleCache
from htdemucs.audio.soundcard import SoundCard, list_devices
from htdemucs.audio.stem_mp4 import StemFileWriter
from htdemucs.audio.streams import AudioPipe, PipeWriter, RawFormat
from htdemucs.audio.tags import Tags, read_chapters, read_tags, remove_tags, write_tags
from htdemucs.audio.write import AudioWriter

__all__ = [
    "Align",
    "AudioEncoding",
    "AudioFile",
    "AudioPipe",
    "AudioWriter",
    "PipeWriter",
    "RawFormat",
    "Resampler",
    "SampleCache",
    "SoundCard",
    "StemFileWriter",
    "Tags",
    "list_devices",
    "pad_or_trim",
    "read_chapters",
    "read_tags",
    "reblock",
    "remove_tags",
    "resampled_length",
    "write_tags",
    "zip_blocks",
]
