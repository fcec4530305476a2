"""Waveform blocks into an audio file that appears only when it is complete."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Self, cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet
from torch import Tensor

from htdemucs.audio.convert import Resampler
from htdemucs.audio.ffmpeg import printable, reporting
from htdemucs.audio.formats import AudioEncoding, to_sample_format
from htdemucs.audio.read import SAMPLE_RATES
from htdemucs.errors import AudioError

LAYOUTS = {1: "mono", 2: "stereo"}
_SHORTEST_MP3 = 47  # samples; FFmpeg cannot remove the delay from a file with fewer frames
_FRAME_LENGTH = 16_384  # samples handed to FFmpeg at once; it cuts them to the codec's frames


class MediaWriter:
    """Encodes a waveform (streams * channels, L), cut into its streams, into one file.

    All that `AudioWriter` says of the file, its names and its errors happens here, for one stream
    or for several that run side by side; how they are written is left to the subclasses.
    """

    _stream_count: ClassVar[int] = 1

    def __init__(
        self,
        path: str | os.PathLike[str],
        sample_rate: int,
        channels: int,
        encoding: AudioEncoding,
        *,
        finish: Callable[[Path], None] | None = None,
        temporary: Path | None = None,
    ) -> None:
        self.path = Path(path)
        self.sample_rate = sample_rate
        self.channels = channels
        self.encoding = encoding
        name = printable(self.path)
        if channels not in LAYOUTS:
            raise AudioError(f"{name} cannot get {channels} channels; write 1 or 2")
        if sample_rate not in SAMPLE_RATES:
            raise AudioError(f"{name} cannot get {sample_rate} Hz; write 1000 to 768000 Hz")
        self._finish = finish
        self._stored_rate = encoding.stored_rate(sample_rate)
        self._resampler = Resampler(sample_rate, self._stored_rate, self._stream_count * channels)
        self._encoded = 0  # samples handed to the encoders, a channel
        # The final name may already be as long as a name can be, so this one is not made from it.
        own = self.path.with_name(f".htdemucs-{secrets.token_hex(6)}.partial")
        self._temporary = temporary or own
        self._container: OutputContainer | None = None
        with self._reporting():
            _check_target(self.path)
            self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def close(self) -> None:
        """Finish the file and give it its name. Closing again, or after `abort`, does nothing."""
        if self._container is None:
            return
        try:
            with self._reporting():
                self._encode(self._resampler.flush())
                if not self._encoded:
                    raise AudioError(f"{printable(self.path)} got no samples; nothing was saved")
                for stream in self._streams:
                    for packet in self._last_packets(stream):
                        self._container.mux(packet)
                self._container.close()
            if self._finish is not None:
                self._finish(self._temporary)
            with self._reporting():
                self._temporary.replace(self.path)
            self._container = None
        finally:
            self.abort()

    def abort(self) -> None:
        """Give up: remove what was written so far. After `close` it does nothing."""
        if self._container is None:
            return
        # Closing writes the trailer, which fails again where writing has failed.
        with suppress(av.FFmpegError, OSError):
            self._container.close()
        self._container = None
        with suppress(OSError):
            self._temporary.unlink()

    def _append(self, block: Tensor) -> None:
        """(streams * channels, L); L may be anything, also 0."""
        with self._reporting():
            self._encode(self._resampler.push(block.detach().to("cpu").float()))

    def _open(self) -> None:
        codec = self.encoding.codec
        # Vorbis is the one encoder here that knows no mono.
        self._stored_channels = 2 if codec.encoder == "vorbis" else self.channels
        self._container = av.open(
            f"file:{self._temporary}",
            "w",
            format=codec.muxer,
            options=self.encoding.muxer_options(self._stored_rate),
        )
        try:
            self._streams = [self._add_stream(self._container) for _ in range(self._stream_count)]
            self._container.start_encoding()
        except (av.FFmpegError, OSError):
            self.abort()
            raise

    def _add_stream(self, container: OutputContainer) -> AudioStream:
        codec = self.encoding.codec
        stream = cast(
            AudioStream,
            container.add_stream(
                codec.encoder,
                rate=self._stored_rate,
                options=self.encoding.encoder_options(),
                bit_rate=1_000 * (self.encoding.bitrate or codec.bitrate or 0),
            ),
        )
        stream.codec_context.format = codec.sample_format
        stream.codec_context.layout = LAYOUTS[self._stored_channels]
        return stream

    def _encode(self, block: Tensor) -> None:
        if self._container is None:
            raise AudioError(f"{printable(self.path)} is closed; open a new writer for more")
        for start in range(0, block.shape[1], _FRAME_LENGTH):
            piece = block[:, start : start + _FRAME_LENGTH]
            for stream, part in zip(self._streams, piece.split(self.channels), strict=True):
                self._container.mux(stream.encode(self._frame(part)))
            self._encoded += piece.shape[1]

    def _frame(self, part: Tensor) -> AudioFrame:
        codec = self.encoding.codec
        frame = AudioFrame.from_ndarray(
            to_sample_format(part.expand(self._stored_channels, -1).numpy(), codec),
            format=codec.sample_format,
            layout=LAYOUTS[self._stored_channels],
        )
        frame.sample_rate = self._stored_rate
        frame.time_base = Fraction(1, self._stored_rate)
        frame.pts = self._encoded
        return frame

    def _last_packets(self, stream: AudioStream) -> Iterator["Packet[AudioStream]"]:
        """Yield what the encoder still holds, so that the file ends with the last sample.

        FFmpeg writes the padding of the last packet alone into an MP3's header. Where the packet
        before it is partly padding too, the last one has no sample and is left out.
        """
        may_end_early = self.encoding.format == "mp3" and self._encoded >= _SHORTEST_MP3
        is_complete = False
        for packet in stream.encode(None):
            if is_complete and may_end_early:
                return
            if packet.duration is not None:
                is_complete = 0 < packet.duration < stream.codec_context.frame_size
            if packet.pts is not None and packet.duration:
                # Vorbis claims whole frames of 64.
                packet.duration = min(packet.duration, self._encoded - packet.pts)
            yield packet

    def _reporting(self) -> AbstractContextManager[None]:
        return reporting(self.path, "cannot be written", "check its folder and the free space")


class AudioWriter(MediaWriter):
    """Encodes float32 blocks (C, L) into `path`, mono or stereo, in memory that does not grow.

    The file is written under a hidden temporary name in the same folder and renamed on
    `close()`; until then, and after an error, whatever `path` held stays as it was. Parent
    folders are made. Used as a context manager it closes, or on an exception aborts.

    Every sample written comes back when the file is read, and no more, for lossy formats too.
    Where the format cannot hold `sample_rate` (opus: only 48 kHz; mp3: up to 48 kHz; m4a: up to
    96 kHz), the waveform is resampled to `AudioEncoding.stored_rate`.

    `finish` is called with the temporary file's path once it is encoded, before the renaming:
    the place to write tags. `temporary` is a hidden name to use instead of one of its own, so that
    what a killed process left is written over.

    Raises AudioError for an impossible request, for a file that cannot be written (permission,
    full disk), and on closing without a single sample.
    """

    def write(self, block: Tensor) -> None:
        """Append a block (C, L) of any length, also 0."""
        if block.ndim != 2 or block.shape[0] != self.channels:
            raise AudioError(
                f"{printable(self.path)} takes blocks of shape ({self.channels}, L), "
                f"not {tuple(block.shape)}"
            )
        self._append(block)


def _check_target(path: Path) -> None:
    """Find out now, not after hours of work, that the final name cannot be used."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise AudioError(f"{printable(path)} is a folder; choose another file name")
    with suppress(FileNotFoundError):
        path.lstat()
