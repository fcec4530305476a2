"""The choices for one output file, and samples in the form that its encoder takes."""

from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from htdemucs.audio.convert import interleaved
from htdemucs.errors import AudioError
from htdemucs.formats import FORMATS, MP3_PRESETS, AudioFormat, Codec

LOSSY_LIMIT = 1000.0  # times full scale; LAME ends the process for samples that are far louder


@dataclass(frozen=True)
class AudioEncoding:
    """A format of `htdemucs.formats` and the choices that it offers.

    - wav: 16 or 24-bit integers, or 32-bit floats that keep every value.
    - flac: 16 or 24-bit integers.
    - mp3 (LAME, constant bitrate): 8 to 48 kHz. Fewer than 47 samples are read back as 47.
    - ogg (FFmpeg's Vorbis encoder): stereo only, so mono is doubled; fixed quality.
    - opus (libopus): always stored at 48 kHz; mono has at most 256 kbit/s.
    - m4a (FFmpeg's AAC encoder): 8 to 96 kHz. The exact length is in the edit list; programs that
      ignore its end, such as FFmpeg itself, return the last frame of 1024 samples whole.

    Attributes:
        format: a key of `FORMATS`; also the extension of the file.
        bit_depth: 16, 24 or 32, for wav and flac; lossy formats ignore it.
        bitrate: kbit/s for mp3 (320), opus (192) and m4a (256); None takes that default.
        mp3_preset: LAME's algorithm quality, 2 (best) to 7 (fastest); used by mp3 only.

    Raises AudioError for a combination that cannot be written.
    """

    format: str = "wav"
    bit_depth: int = 16
    bitrate: int | None = None
    mp3_preset: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "format", self.format.lower())
        if self.format not in FORMATS:
            raise AudioError(f"unknown format {self.format!r}; choose from {', '.join(FORMATS)}")
        depths, bitrates = self.audio_format.bit_depths, self.audio_format.bitrates
        if depths and self.bit_depth not in depths:
            choice = " or ".join(map(str, depths))
            raise AudioError(f"{self.format} cannot hold {self.bit_depth} bit; choose {choice}")
        if self.bitrate is not None and not bitrates:
            raise AudioError(f"{self.format} has no bitrate to choose; leave it out")
        self._check_bitrate(bitrates)
        if self.mp3_preset not in MP3_PRESETS:
            raise AudioError(
                f"there is no mp3 preset {self.mp3_preset}; "
                f"choose {MP3_PRESETS[0]} to {MP3_PRESETS[-1]}"
            )

    def check_channels(self, channels: int) -> None:
        """Raise AudioError if the bitrate is too high for this number of channels."""
        name = {1: "mono", 2: "stereo"}.get(channels, f"{channels} channels")
        self._check_bitrate(self.audio_format.bitrates_for(channels), f" in {name}")

    def _check_bitrate(self, bitrates: range, where: str = "") -> None:
        if self.bitrate is not None and self.bitrate not in bitrates:
            raise AudioError(
                f"{self.format} cannot have {self.bitrate} kbit/s{where}; "
                f"choose {bitrates[0]} to {bitrates[-1]}"
            )

    @property
    def audio_format(self) -> AudioFormat:
        """The row of the table of formats."""
        return FORMATS[self.format]

    @property
    def codec(self) -> Codec:
        """The codec for the bit depth, or the only one of a lossy format."""
        codecs = self.audio_format.codecs
        return next((c for c in codecs if c.bit_depth == self.bit_depth), codecs[0])

    @property
    def extension(self) -> str:
        """The extension of the file, without a dot."""
        return self.format

    @property
    def stored_bit_depth(self) -> int | None:
        """Bits of a stored sample; None in lossy formats."""
        return self.codec.bit_depth

    @property
    def is_float(self) -> bool:
        """Whether floats are stored losslessly, so that peaks above full scale are kept."""
        return self.codec.is_float and self.stored_bit_depth is not None

    @property
    def full_scale(self) -> int | None:
        """2^(bits - 1) where integers are stored; None for floats and lossy formats."""
        bits = self.stored_bit_depth
        return None if bits is None or self.is_float else 2 ** (bits - 1)

    def stored_rate(self, sample_rate: int) -> int:
        """Return the sample rate of the file: the lowest possible one not below, else the highest.

        Both are in Hz.
        """
        rates = self.audio_format.sample_rates or (sample_rate,)
        return next((rate for rate in rates if rate >= sample_rate), rates[-1])

    def muxer_options(self, stored_rate: int) -> dict[str, str]:
        """Return FFmpeg's options for the container."""
        # Without dates and random stream numbers the same waveform gives the same bytes.
        options = {"fflags": "+bitexact", **self.audio_format.muxer_options}
        if self.audio_format.muxer == "ipod":
            # The edit list holds the exact length only if its clock counts samples.
            options["movie_timescale"] = str(stored_rate)
        return options

    def encoder_options(self) -> dict[str, str]:
        """Return FFmpeg's options for the encoder."""
        options = dict(self.audio_format.encoder_options)
        if self.codec.encoder == "libmp3lame":
            options["compression_level"] = str(self.mp3_preset)
        return options


def to_sample_format(samples: NDArray[np.float32], encoding: AudioEncoding) -> NDArray[Any]:
    """(C, L) float32 -> the array that PyAV takes: (C, L) if planar, else (1, L * C).

    Integers are rounded to the nearest step and limited to their range. Stored floats keep every
    value. For integers and lossy codecs NaN becomes 0 and infinity full scale; for lossy codecs
    samples are limited to `LOSSY_LIMIT`.
    """
    values: NDArray[Any] = samples
    if not encoding.is_float and not np.isfinite(samples).all():
        values = np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0)
    if encoding.stored_bit_depth is None:
        values = values.clip(-LOSSY_LIMIT, LOSSY_LIMIT)
    sample_format = av.AudioFormat(encoding.codec.sample_format)
    if encoding.full_scale is not None and encoding.stored_bit_depth is not None:
        # FFmpeg's encoders take 24 bits as the upper 24 of 32.
        integers = _to_integers(values, encoding.full_scale).astype(f"i{sample_format.bytes}")
        values = integers << (sample_format.bits - encoding.stored_bit_depth)
    if sample_format.is_planar:
        return np.ascontiguousarray(values)
    return interleaved(values).reshape(1, -1)


def to_int16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Return finite samples rounded to 16-bit integers and limited to their range."""
    return _to_integers(samples, 2**15).astype(np.int16)


def _to_integers(samples: NDArray[np.float32], full_scale: int) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # infinity is limited too
        steps: NDArray[np.float32] = np.rint(samples * np.float32(full_scale))
    return steps.clip(-full_scale, full_scale - 1)
