"""The formats that are written, their codecs and their limits."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from htdemucs.audio.convert import interleaved
from htdemucs.errors import AudioError

MP3_PRESETS = range(2, 8)  # LAME's algorithm quality: 2 is the best, 7 the fastest
OPUS_RATE = 48_000  # Hz; Opus always decodes at this rate
VORBIS_QUALITY = 10  # about 250 kbit/s for music


@dataclass(frozen=True)
class Codec:
    """FFmpeg's names and limits for one format."""

    muxer: str
    encoder: str
    sample_format: str  # FFmpeg's: s16, s32, flt packed; fltp planar
    sample_rates: tuple[int, ...] = ()  # Hz, ascending; empty: all of them
    bitrates: range = range(0)  # kbit/s; empty: not to be chosen
    bitrate: int | None = None  # kbit/s, the default


_MPEG_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_CODECS = {
    ("wav", 16): Codec("wav", "pcm_s16le", "s16"),
    ("wav", 24): Codec("wav", "pcm_s24le", "s32"),
    ("wav", 32): Codec("wav", "pcm_f32le", "flt"),
    ("flac", 16): Codec("flac", "flac", "s16"),
    ("flac", 24): Codec("flac", "flac", "s32"),
    ("mp3", None): Codec("mp3", "libmp3lame", "fltp", _MPEG_RATES, range(8, 321), 320),
    ("ogg", None): Codec("ogg", "vorbis", "fltp"),
    ("opus", None): Codec("ogg", "libopus", "flt", (OPUS_RATE,), range(16, 511), 192),
    ("m4a", None): Codec(
        "ipod", "aac", "fltp", (*_MPEG_RATES, 64_000, 88_200, 96_000), range(16, 513), 256
    ),
}
FORMATS = tuple(dict.fromkeys(name for name, _ in _CODECS))
DEPTHS = {kind: [depth for name, depth in _CODECS if name == kind and depth] for kind in FORMATS}


@dataclass(frozen=True)
class AudioEncoding:
    """A format, and its choices.

    - wav: 16 or 24 bit integers, or 32 bit floats that keep every value as it is.
    - flac: 16 or 24 bit integers.
    - mp3 (LAME, constant bitrate): 8 to 48 kHz. Fewer than 47 samples come back as 47.
    - ogg (FFmpeg's own Vorbis encoder): stereo only, so mono is doubled; fixed quality.
    - opus (libopus): always stored at 48 kHz.
    - m4a (FFmpeg's AAC encoder): 8 to 96 kHz. The exact length is in the edit list; programs that
      ignore its end, such as FFmpeg itself, return the last frame of 1024 samples whole.

    Attributes:
        format: one of `FORMATS`; also the file name's extension.
        bit_depth: 16, 24 or 32, for wav and flac; the lossy formats have none and ignore it.
        bitrate: kbit/s for mp3 (320), opus (192) and m4a (256); None takes that default.
        mp3_preset: LAME's algorithm quality, 2 (best) to 7 (fastest); used by mp3 only.

    Raises AudioError for a combination that cannot be written.
    """

    format: str = "wav"
    bit_depth: int = 16
    bitrate: int | None = None
    mp3_preset: int = 2

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise AudioError(f"unknown format {self.format!r}; choose from {', '.join(FORMATS)}")
        depths = DEPTHS[self.format]
        if depths and self.bit_depth not in depths:
            choice = " or ".join(map(str, depths))
            raise AudioError(f"{self.format} cannot hold {self.bit_depth} bit; choose {choice}")
        bitrates = self.codec.bitrates
        if self.bitrate is not None and not bitrates:
            raise AudioError(f"{self.format} has no bitrate to choose; leave it out")
        if self.bitrate is not None and self.bitrate not in bitrates:
            raise AudioError(
                f"{self.format} cannot have {self.bitrate} kbit/s; "
                f"choose {bitrates.start} to {bitrates.stop - 1}"
            )
        if self.mp3_preset not in MP3_PRESETS:
            raise AudioError(f"there is no mp3 preset {self.mp3_preset}; choose 2 to 7")

    @property
    def extension(self) -> str:
        """The file name's extension, without a dot."""
        return self.format

    @property
    def holds_any_peak(self) -> bool:
        """Whether samples beyond full scale are kept as they are: in floats only."""
        return self.codec.encoder == "pcm_f32le"

    @property
    def depth(self) -> int | None:
        """Bits of a sample; None in lossy formats."""
        return self.bit_depth if (self.format, self.bit_depth) in _CODECS else None

    @property
    def steps(self) -> int | None:
        """Steps from silence to full scale of integer samples; None where there are no integers."""
        return 2 ** (self.bit_depth - 1) if self.depth and not self.holds_any_peak else None

    @property
    def codec(self) -> Codec:
        """FFmpeg's names for it."""
        return _CODECS.get((self.format, None)) or _CODECS[self.format, self.bit_depth]

    def stored_rate(self, sample_rate: int) -> int:
        """Give the rate in the file (Hz): the lowest possible one not below, else the highest."""
        rates = self.codec.sample_rates or (sample_rate,)
        return next((rate for rate in rates if rate >= sample_rate), rates[-1])

    def muxer_options(self, stored_rate: int) -> dict[str, str]:
        """Return FFmpeg's options for the container."""
        # The same waveform gives the same bytes: no dates, no random stream numbers.
        options = {"fflags": "+bitexact"}
        match self.format:
            case "wav":
                options["rf64"] = "auto"  # RF64 takes over where RIFF's 32-bit sizes end
            case "m4a":
                # The edit list holds the exact length only if its clock counts samples.
                options["movie_timescale"] = str(stored_rate)
            case "ogg":
                # A page for each packet: with all packets on one page FFmpeg misreads the start.
                options["page_duration"] = "1"
        return options

    def encoder_options(self) -> dict[str, str]:
        """Return FFmpeg's options for the encoder."""
        match self.format:
            case "mp3":
                return {"compression_level": str(self.mp3_preset)}
            case "ogg":
                quality = VORBIS_QUALITY * 118  # 118 is FFmpeg's FF_QP2LAMBDA
                return {
                    "strict": "experimental",
                    "flags": "+qscale",
                    "global_quality": str(quality),
                }
        return {}


def to_sample_format(samples: NDArray[np.float32], codec: Codec) -> NDArray[Any]:
    """(C, L) float32 -> the array PyAV wants: (C, L) if planar, else (1, L * C).

    Integers are rounded to the nearest step and limited to their range. Float WAV keeps every
    value. For integers and lossy codecs NaN becomes 0 and infinity full scale.
    """
    values: NDArray[Any] = samples
    if codec.encoder != "pcm_f32le" and not np.isfinite(samples).all():
        values = np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0)
    if codec.sample_format == "s16":
        values = to_int16(values)
    elif codec.sample_format == "s32":
        # FFmpeg's 24 bit encoders take the upper 24 of 32 bits.
        values = _to_steps(values, 24).astype(np.int32) << 8
    if codec.sample_format.endswith("p"):
        return np.ascontiguousarray(values)
    return interleaved(values).reshape(1, -1)


def to_int16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Round finite samples to the nearest of 16 bits' steps, and limit them to their range."""
    return _to_steps(samples, 16).astype(np.int16)


def _to_steps(samples: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    full_scale = 2 ** (bits - 1)
    with np.errstate(over="ignore"):  # infinity is limited too
        steps: NDArray[np.float32] = np.rint(samples * np.float32(full_scale))
    return steps.clip(-full_scale, full_scale - 1)
