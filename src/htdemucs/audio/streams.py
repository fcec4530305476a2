"""Audio that comes and goes through pipes: read once, as it arrives, and written as it is made."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Self, cast

import av
import torch
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from torch import Tensor

from htdemucs.audio.concatenated import Part
from htdemucs.audio.ffmpeg import Decoded, reporting
from htdemucs.audio.formats import AudioEncoding, to_sample_format
from htdemucs.audio.read import (
    SAMPLE_RATES,
    Findings,
    Section,
    choose_stream,
    coalesce,
    decoded_frames,
    decoder_for,
    replace_nonfinite,
)
from htdemucs.audio.wav_probe import is_endless, is_whole, pcm_codec
from htdemucs.audio.write import LAYOUTS
from htdemucs.errors import AudioError

SECONDS = 0.125  # of a block: a smaller part of the delay than the segment
NAME = Path("standard input")
_AT_ONCE = 1 << 15  # bytes
_RAW = {16: "s16le", 24: "s24le", 32: "f32le"}  # by bit depth
_PROBLEM = ("cannot be read", "send WAV, FLAC, MP3, Ogg or raw samples")
_SAMPLES = ("u8", *(f"{kind}{order}" for kind in ("s16", "s24", "s32", "f32", "f64")
                    for order in ("le", "be")))  # fmt: skip


@dataclass(frozen=True)
class RawFormat:
    """Samples without a header, channels interleaved.

    Attributes:
        samples: FFmpeg's name of their kind, such as s16le or f32le.
        sample_rate: Hz.
        channels: 1 to 64.

    Raises AudioError if there is no such format.
    """

    samples: str
    sample_rate: int
    channels: int

    def __post_init__(self) -> None:
        if self.samples not in _SAMPLES:
            raise AudioError(f"no raw samples {self.samples!r}; choose {', '.join(_SAMPLES)}")
        if self.sample_rate not in SAMPLE_RATES:
            raise AudioError(f"raw samples cannot have {self.sample_rate} Hz; 1000 to 768000 can")
        if not 1 <= self.channels <= 64:
            raise AudioError(f"raw samples cannot have {self.channels} channels; 1 to 64 can")


class AudioPipe:
    """Audio from a stream that can be read only once and may never end.

    It is any format that FFmpeg reads from its beginning on, or raw samples. WAV headers of writers
    that did not know the length are understood. Iterating yields float32 blocks (C, L) as soon
    as about `seconds` have arrived; what `AudioFile` says of samples and channels is true of them.

    Args:
        file: the stream; only `read1` (else `read`) is called.
        sample_rate, channels: what iterating delivers; channels 1 or 2. Both may be set anew before
            that.
        raw: the format of samples without a header.
        seconds: of a block.

    Attributes:
        source_sample_rate: of the stream.
        source_length: samples at that rate that have been delivered; exact after the end.

    Raises AudioError, here or while iterating, if the stream is no audio.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        sample_rate: int,
        channels: int,
        raw: RawFormat | None = None,
        seconds: float = SECONDS,
    ) -> None:
        self.sample_rate, self.channels = sample_rate, channels
        self._seconds = seconds
        self.source_length = 0
        self._findings = Findings()
        reader = _Reader(file)
        head = b"" if raw else reader.peek()
        with reporting(NAME, *_PROBLEM):
            if not raw and not head:
                raise AudioError(f"{NAME} is empty; send audio to it")
            codec = pcm_codec(io.BytesIO(head), 0)
            container = _open(reader, raw, is_endless(head))
            source = choose_stream(container, NAME)
        decoder = decoder_for(source, Part(0, 0, codec=codec))
        self._pieces = decoded_frames(container, source, decoder, self._findings)
        with reporting(NAME, *_PROBLEM):
            self._first = next(self._pieces, None)
        if self._first is None:
            raise AudioError(f"{NAME} contains no audio samples; send audio to it")
        self.source_sample_rate = self._first.format.sample_rate

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the listener about damage and assumptions so far."""
        return self._findings.notes(filled=False)

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the blocks. Iterating again goes on, and does not begin anew."""
        section: Section | None = None
        with reporting(NAME, *_PROBLEM):
            for piece in coalesce(self._all(), self._seconds):
                if section is None or section.source != piece.format:
                    if section is not None:
                        yield section.flush()
                    section = Section(piece.format, self.sample_rate, self.channels)
                    self._findings.assumption = self._findings.assumption or section.assumption
                    rate = Fraction(self.source_sample_rate, piece.format.sample_rate)
                samples = torch.from_numpy(replace_nonfinite(piece.samples, self._findings))
                self.source_length += round(samples.shape[1] * rate)
                yield section.push(samples)
        if section is not None:
            yield section.flush()

    def discard(self, until: Callable[[], bool]) -> None:
        """Throw away what comes, until a piece has come when `until` is true."""
        with reporting(NAME, *_PROBLEM):
            while self._first is not None and not until():
                self._first = next(self._pieces, None)

    def _all(self) -> Iterator[Decoded]:
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        yield from self._pieces


def _open(reader: "_Reader", raw: RawFormat | None, endless: bool) -> InputContainer:
    options = {"protocol_whitelist": "pipe"}  # a playlist opens no other file
    if endless:
        options["ignore_length"] = "1"
    if raw is None:
        return av.open(reader, "r", options=options, metadata_errors="replace")
    options["sample_rate"] = str(raw.sample_rate)
    options["ch_layout"] = _layout(raw.channels)
    return av.open(reader, "r", format=raw.samples, options=options)


def _layout(channels: int) -> str:
    """Return FFmpeg's name for so many channels, which have no places where they are many."""
    return LAYOUTS.get(channels, f"{channels} channels")


class _Reader:
    """A stream's bytes as they come, without waiting for as many as asked; FFmpeg reads it."""

    def __init__(self, file: BinaryIO) -> None:
        self._read = getattr(file, "read1", file.read)
        self._held = b""

    def peek(self) -> bytes:
        """Return enough of the first bytes to tell what WAV they are."""
        while not is_whole(self._held) and (more := self._read(_AT_ONCE)):
            self._held += more
        return self._held

    def read(self, count: int) -> bytes:
        """Return at most `count` bytes; none at the end."""
        if not self._held:
            return self._read(count)
        given, self._held = self._held[:count], self._held[count:]
        return given


class PipeWriter:
    """Writes float32 blocks (C, L) of any number of channels to a stream, at once.

    Args:
        file: the stream, better without a buffer; it need not be seekable, and is not closed.
        sample_rate: Hz.
        channels: interleaved.
        bit_depth: 16, 24 or 32 (floats).
        raw: leave out the header. Else it is a WAV header of unknown length, as FFmpeg writes it.

    Raises BrokenPipeError where the reader has left, AudioError for an impossible depth.
    """

    def __init__(
        self, file: BinaryIO, sample_rate: int, channels: int, bit_depth: int, *, raw: bool = False
    ) -> None:
        encoding = AudioEncoding("wav", bit_depth)
        self._codec, self._rate = encoding.codec, sample_rate
        self._layout = _layout(channels)
        self._written = 0
        muxer = _RAW[bit_depth] if raw else self._codec.muxer
        options = {"fflags": "+bitexact", "flush_packets": "1"}
        self._file, self._ready = file, _Bytes()
        self._container = av.open(self._ready, "w", format=muxer, options=options)
        stream = self._container.add_stream(self._codec.encoder, rate=sample_rate)
        self._stream = cast(AudioStream, stream)
        self._stream.codec_context.format = self._codec.sample_format
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
        """(C, L); L may be 0. Full scale limits what is louder, except in floats."""
        if not block.shape[-1]:
            return
        samples = to_sample_format(block.detach().to("cpu").float().numpy(), self._codec)
        frame = AudioFrame.from_ndarray(samples, self._codec.sample_format, self._layout)
        frame.sample_rate, frame.pts = self._rate, self._written
        frame.time_base = Fraction(1, self._rate)
        self._written += block.shape[-1]
        self._container.mux(self._stream.encode(frame))
        self._send()

    def _send(self) -> None:
        rest = memoryview(self._ready.take())
        while rest:
            rest = rest[self._file.write(rest) :]
        self._file.flush()


class _Bytes:
    """Takes FFmpeg's bytes, to be sent when it has returned: it goes on after an error."""

    def __init__(self) -> None:
        self._held = bytearray()

    def write(self, data: bytes) -> int:
        """Keep some bytes."""
        self._held += data
        return len(data)

    def take(self) -> bytes:
        """Return all that are held, and keep them no longer."""
        taken, self._held = self._held, bytearray()
        return bytes(taken)
