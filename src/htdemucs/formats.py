"""The audio formats that can be written, one row each, and the file extensions that are read.

To add a format, add a row to `_ROWS`; the encoder, the command line, the server and the page read
this table. A format whose tags need another scheme also needs a writer in
`audio/tags.py`; a limit that no column describes is checked in `audio/encoding.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

TagScheme = Literal["id3", "riff", "vorbis", "mp4"]


@dataclass(frozen=True)
class Codec:
    """One way to store the samples of a format.

    Attributes:
        encoder: FFmpeg's name.
        sample_format: FFmpeg's name of the samples that the encoder takes, such as s16 or fltp.
        bit_depth: bits of a stored sample; None in lossy formats.
    """

    encoder: str
    sample_format: str
    bit_depth: int | None = None

    @property
    def is_float(self) -> bool:
        """Whether the encoder takes floats."""
        return self.sample_format.startswith(("flt", "dbl"))


@dataclass(frozen=True)
class AudioFormat:
    """What a format is called and what it can hold.

    Attributes:
        name: also the extension of its files.
        label: the name to show to people.
        mime_type: of its files.
        muxer: FFmpeg's name of the container.
        codecs: one for each bit depth, in ascending order; lossy formats have one.
        tags: how tags are stored: ID3 before the audio, an ID3 chunk in RIFF, Vorbis comments, or
            MP4 atoms; None if tags are not written.
        channels: numbers of channels that the encoder accepts.
        sample_rates: in Hz, ascending; empty if any rate is possible.
        bitrates: in kbit/s; empty if the bitrate cannot be chosen.
        channel_bitrate: the most that the encoder takes for each channel, in kbit/s; None if
            `bitrates` is its only limit.
        default_bitrate: in kbit/s.
        usual_bitrates: the bitrates to offer in a menu.
        presets: of the encoder's speed; empty if it has none.
        muxer_options, encoder_options: FFmpeg's options that are always set.
    """

    name: str
    label: str
    mime_type: str
    muxer: str
    codecs: tuple[Codec, ...]
    tags: TagScheme | None
    channels: tuple[int, ...] = (1, 2)
    sample_rates: tuple[int, ...] = ()
    bitrates: range = range(0)
    channel_bitrate: int | None = None
    default_bitrate: int | None = None
    usual_bitrates: tuple[int, ...] = ()
    presets: range = range(0)
    muxer_options: Mapping[str, str] = field(default_factory=dict)
    encoder_options: Mapping[str, str] = field(default_factory=dict)

    @property
    def bit_depths(self) -> tuple[int, ...]:
        """The bit depths to choose from; empty in lossy formats."""
        return tuple(codec.bit_depth for codec in self.codecs if codec.bit_depth is not None)

    @property
    def is_lossless(self) -> bool:
        """Whether samples of one of `bit_depths` are stored exactly."""
        return bool(self.bit_depths)

    def bitrates_for(self, channels: int) -> range:
        """Return the bitrates, in kbit/s, that the encoder takes for this number of channels."""
        if self.channel_bitrate is None:
            return self.bitrates
        highest = min(self.bitrates[-1], self.channel_bitrate * channels)
        return range(self.bitrates.start, highest + 1)

    def nearest_bit_depth(self, bits: int) -> int:
        """Return the lowest depth that holds `bits`, else the highest; lossy formats ignore it."""
        return next((d for d in self.bit_depths if d >= bits), max(self.bit_depths, default=bits))


_MPEG_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_VORBIS_QUALITY = 10  # about 250 kbit/s for music
_FF_QP2LAMBDA = 118  # FFmpeg's unit of quality

_ROWS = (
    AudioFormat(
        name="wav",
        label="WAV",
        mime_type="audio/wav",
        muxer="wav",
        codecs=(
            Codec("pcm_s16le", "s16", 16),
            Codec("pcm_s24le", "s32", 24),
            Codec("pcm_f32le", "flt", 32),
        ),
        tags="riff",
        muxer_options={"rf64": "auto"},  # RF64 replaces RIFF above 4 GB
    ),
    AudioFormat(
        name="flac",
        label="FLAC",
        mime_type="audio/flac",
        muxer="flac",
        codecs=(Codec("flac", "s16", 16), Codec("flac", "s32", 24)),
        tags="vorbis",
    ),
    AudioFormat(
        name="mp3",
        label="MP3",
        mime_type="audio/mpeg",
        muxer="mp3",
        codecs=(Codec("libmp3lame", "fltp"),),
        tags="id3",
        sample_rates=_MPEG_RATES,
        bitrates=range(8, 321),
        default_bitrate=320,
        usual_bitrates=(128, 192, 256, 320),
        presets=range(2, 8),  # LAME's algorithm quality: 2 is the best, 7 the fastest
    ),
    AudioFormat(
        name="ogg",
        label="Ogg Vorbis",
        mime_type="audio/ogg",
        muxer="ogg",
        codecs=(Codec("vorbis", "fltp"),),
        tags="vorbis",
        channels=(2,),
        # A page for each packet: with all packets on one page FFmpeg misreads the start.
        muxer_options={"page_duration": "1"},
        encoder_options={
            "strict": "experimental",
            "flags": "+qscale",
            "global_quality": str(_VORBIS_QUALITY * _FF_QP2LAMBDA),
        },
    ),
    AudioFormat(
        name="opus",
        label="Opus",
        mime_type="audio/ogg",
        muxer="ogg",
        codecs=(Codec("libopus", "flt"),),
        tags="vorbis",
        sample_rates=(48_000,),  # Opus always decodes at this rate
        bitrates=range(16, 511),
        channel_bitrate=256,
        default_bitrate=192,
        usual_bitrates=(96, 128, 192, 256),
    ),
    AudioFormat(
        name="m4a",
        label="AAC (M4A)",
        mime_type="audio/mp4",
        muxer="ipod",
        codecs=(Codec("aac", "fltp"),),
        tags="mp4",
        sample_rates=(*_MPEG_RATES, 64_000, 88_200, 96_000),
        bitrates=range(16, 513),
        default_bitrate=256,
        usual_bitrates=(128, 192, 256, 320),
    ),
)
FORMATS: dict[str, AudioFormat] = {row.name: row for row in _ROWS}
LOSSLESS = tuple(row.name for row in _ROWS if row.is_lossless)
BIT_DEPTHS = sorted({depth for row in _ROWS for depth in row.bit_depths})
MP3_PRESETS = FORMATS["mp3"].presets

_AUDIO = (
    "aac ac3 aif aifc aiff alac amr ape au bwf caf dff dsf dts eac3 flac m4a m4b m4r mka mp2 mp3 "
    "mpc oga ogg opus ra rf64 shn snd spx tak tta voc w64 wav wave weba wma wv"
)
_VIDEO = (
    "3g2 3gp asf avi f4v flv m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogm ogv rm rmvb ts vob webm wmv"
)
# Extensions of files that are read when a folder is searched. A file that is named explicitly is
# tried whatever its extension.
AUDIO_EXTENSIONS = frozenset(f".{name}" for name in _AUDIO.split())
VIDEO_EXTENSIONS = frozenset(f".{name}" for name in _VIDEO.split())
# Training reads excerpts, so it takes only formats in which libsndfile can seek to a sample.
SEEKABLE_EXTENSIONS = (".wav", ".flac", ".aiff", ".aif", ".mp3", ".ogg")
