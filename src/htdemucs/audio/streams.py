"""Audio from and to pipes: read once, as it arrives, and written as it is computed."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Self, cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from torch import Tensor

from htdemucs.audio.convert import SAMPLE_RATES
from htdemucs.audio.decode_report import DecodeReport
from htdemucs.audio.encoding import AudioEncoding, to_sample_format
from htdemucs.audio.ffmpeg import DecodedFrame, audio_errors
from htdemucs.audio.read import (
    choose_decoder,
    choose_stream,
    convert,
    decode_frames,
    join_frames,
)
from htdemucs.audio.wav_probe import has_unknown_length, is_complete_header, pcm_codec
from htdemucs.audio.write import LAYOUTS
from htdemucs.errors import AudioError

BLOCK_SECONDS = 0.125  # adds less to the delay than a segment does
_NAME = Path("standard input")  # in error messages
_READ_BYTES = 1 << 15
_MP4_HEADER = 64  # bytes; hold the boxes before the samples or the index
_UNREADABLE = ("cannot be read", "send WAV, FLAC, MP3, Ogg or raw samples")
_SAMPLE_FORMATS = ("u8", *(f"{kind}{order}" for kind in ("s16", "s24", "s32", "f32", "f64")
                           for order in ("le", "be")))  # fmt: skip


@dataclass(frozen=True)
class RawFormat:
    """Samples without a header, channels interleaved.

    Attributes:
        sample_format: FFmpeg's name, such as s16le or f32le.
        sample_rate: Hz.
        channels: 1 to 64.

    Raises AudioError if FFmpeg does not have this format.
    """

    sample_format: str
    sample_rate: int
    channels: int

    def __post_init__(self) -> None:
        if self.sample_format not in _SAMPLE_FORMATS:
            raise AudioError(
                f"no raw samples {self.sample_format!r}; choose {', '.join(_SAMPLE_FORMATS)}"
            )
        if self.sample_rate not in SAMPLE_RATES:
            raise AudioError(f"raw samples cannot have {self.sample_rate} Hz; 1000 to 768000 can")
        if not 1 <= self.channels <= 64:
            raise AudioError(f"raw samples cannot have {self.channels} channels; 1 to 64 can")


class AudioPipe:
    """Audio from a stream that can be read only once and may be endless.

    The stream may have any format that FFmpeg reads without seeking, or raw samples. WAV headers
    without a valid length are understood. Iterating yields float32 blocks (C, L) as soon as about
    `seconds` have arrived; samples and channels are converted as by `AudioFile`.

    Args:
        file: the stream; only `read1` (else `read`) is called.
        sample_rate, channels: of the blocks; channels 1 or 2. Both may be changed before iterating.
        raw: the format of samples without a header.
        seconds: of a block.

    Attributes:
        source_sample_rate: of the stream.

    Raises AudioError, here or while iterating, if the stream is not audio.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        sample_rate: int,
        channels: int,
        raw: RawFormat | None = None,
        seconds: float = BLOCK_SECONDS,
    ) -> None:
        self.sample_rate, self.channels = sample_rate, channels
        self._seconds = seconds
        self._report = DecodeReport()
        reader = _Reader(file)
        head = b"" if raw else reader.peek_header()
        with audio_errors(_NAME, *_UNREADABLE):
            if not raw and not head:
                raise AudioError(f"{_NAME} is empty; send audio to it")
            if _has_index_at_end(head):
                raise AudioError(
                    f"{_NAME} is an MP4 file whose index is at its end; separate the file itself, "
                    "or move its index with FFmpeg (movflags +faststart)"
                )
            codec = pcm_codec(io.BytesIO(head), 0)
            container = _open(reader, raw, ignore_length=has_unknown_length(head))
            stream = choose_stream(container, _NAME)
        decoder = choose_decoder(stream, codec)
        self._frames = decode_frames(container, stream, decoder, self._report)
        with audio_errors(_NAME, *_UNREADABLE):
            self._first = next(self._frames, None)
        if self._first is None:
            raise AudioError(f"{_NAME} contains no audio samples; send audio to it")
        self.source_sample_rate = self._first.format.sample_rate

    @property
    def source_length(self) -> int:
        """Samples so far at `source_sample_rate`; exact at the end."""
        return self._report.source_length

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for the user about damage and assumptions so far."""
        return self._report.warnings(gaps_filled=False)

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the blocks. A second iteration continues where the first one stopped."""
        frames = join_frames(self._remaining_frames(), self._seconds)
        with audio_errors(_NAME, *_UNREADABLE):
            yield from convert(
                frames, self.sample_rate, self.channels, self.source_sample_rate, self._report
            )

    def discard(self, until: Callable[[], bool]) -> None:
        """Drop frames until one arrives after `until()` has become true."""
        with audio_errors(_NAME, *_UNREADABLE):
            while self._first is not None and not until():
                self._first = next(self._frames, None)

    def _remaining_frames(self) -> Iterator[DecodedFrame]:
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        yield from self._frames


def _has_index_at_end(head: bytes) -> bool:
    """Whether an MP4 file has its samples before the box that describes them."""
    if head[4:8] != b"ftyp":
        return False
    position, kind = 0, b""
    while position + 8 <= len(head) and kind not in (b"moov", b"moof", b"mdat"):
        kind = head[position + 4 : position + 8]
        position += max(8, int.from_bytes(head[position : position + 4], "big"))
    return kind == b"mdat"


def _open(reader: "_Reader", raw: RawFormat | None, *, ignore_length: bool) -> InputContainer:
    options = {"protocol_whitelist": "pipe"}  # a playlist cannot open other files
    if ignore_length:
        options["ignore_length"] = "1"
    if raw is None:
        return av.open(reader, "r", options=options, metadata_errors="replace")
    options["sample_rate"] = str(raw.sample_rate)
    options["ch_layout"] = _layout(raw.channels)
    return av.open(reader, "r", format=raw.sample_format, options=options)


def _layout(channels: int) -> str:
    """Return FFmpeg's name of the layout; more than two channels have no positions."""
    return LAYOUTS.get(channels, f"{channels} channels")


class _Reader:
    """The stream for FFmpeg: `read` returns what has arrived instead of waiting for `count`."""

    def __init__(self, file: BinaryIO) -> None:
        self._read = getattr(file, "read1", file.read)
        self._peeked = b""

    def peek_header(self) -> bytes:
        """Return the first bytes: the header of a WAV file, or the first boxes of an MP4 file."""
        while not is_complete_header(self._peeked) and (more := self._read(_READ_BYTES)):
            self._peeked += more
        while self._peeked[4:8] == b"ftyp" and len(self._peeked) < _MP4_HEADER:
            if not (more := self._read(_READ_BYTES)):
                break
            self._peeked += more
        return self._peeked

    def read(self, count: int) -> bytes:
        """Return at most `count` bytes; none at the end."""
        if not self._peeked:
            return self._read(count)
        data, self._peeked = self._peeked[:count], self._peeked[count:]
        return data


class PipeWriter:
    """Writes float32 blocks (C, L) of any number of channels to a stream, without delay.

    Args:
        file: the stream, preferably unbuffered; it need not be seekable and is not closed.
        sample_rate: Hz.
        channels: interleaved.
        bit_depth: 16, 24 or 32 (floats).
        raw: leave out the header, otherwise a WAV header of unknown length as FFmpeg writes it.

    Raises BrokenPipeError if the reader has closed the pipe, AudioError for an impossible depth.
    """

    def __init__(
        self, file: BinaryIO, sample_rate: int, channels: int, bit_depth: int, *, raw: bool = False
    ) -> None:
        self._encoding = AudioEncoding("wav", bit_depth)
        self._sample_rate = sample_rate
        self._layout = _layout(channels)
        self._written = 0  # samples
        codec = self._encoding.codec
        # FFmpeg's raw formats are named like its PCM encoders.
        muxer = codec.encoder.removeprefix("pcm_") if raw else self._encoding.audio_format.muxer
        options = {"fflags": "+bitexact", "flush_packets": "1"}
        self._file, self._buffer = file, _Buffer()
        self._container = av.open(self._buffer, "w", format=muxer, options=options)
        stream = self._container.add_stream(codec.encoder, rate=sample_rate)
        self._stream = cast(AudioStream, stream)
        self._stream.codec_context.format = codec.sample_format
        self._stream.codec_context.layout = self._layout
        self._container.start_encoding()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._container.mux(self._stream.encode(None))
        self._container.close()
        if kind is None:
            self._send()

    def write(self, block: Tensor) -> None:
        """(C, L); L may be 0. Samples above full scale are limited, except in floats."""
        if not block.shape[-1]:
            return
        samples = to_sample_format(block.detach().to("cpu").float().numpy(), self._encoding)
        sample_format = self._encoding.codec.sample_format
        frame = AudioFrame.from_ndarray(samples, sample_format, self._layout)
        frame.sample_rate, frame.pts = self._sample_rate, self._written
        frame.time_base = Fraction(1, self._sample_rate)
        self._written += block.shape[-1]
        self._container.mux(self._stream.encode(frame))
        self._send()

    def _send(self) -> None:
        data = memoryview(self._buffer.take())
        while data:
            data = data[self._file.write(data) :]
        self._file.flush()


class _Buffer:
    """Collects FFmpeg's bytes, which are sent after it returns: FFmpeg ignores errors of a file."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        """Append bytes; FFmpeg calls this."""
        self._data += data
        return len(data)

    def take(self) -> bytes:
        """Return the bytes and empty the buffer."""
        data, self._data = self._data, bytearray()
        return bytes(data)
