"""Blocks of samples into an audio file, which appears only when it is complete."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet
from torch import Tensor

from htdemucs.audio.convert import SAMPLE_RATES, Resampler
from htdemucs.audio.encoding import AudioEncoding, to_sample_format
from htdemucs.audio.ffmpeg import audio_errors, display_path
from htdemucs.errors import AudioError
from htdemucs.fsutil import AtomicFile

LAYOUTS = {1: "mono", 2: "stereo"}
_MIN_MP3_LENGTH = 47  # samples; FFmpeg cannot remove the delay from a shorter file
_FRAME_LENGTH = 16_384  # samples given to FFmpeg at a time; it cuts them to the codec's frames


class MediaWriter:
    """Base of the writers: encodes one or more streams of the same length into one file.

    A waveform (streams * channels, L) is split into its streams. `AudioWriter` documents the file,
    its names and the errors; `StemFileWriter` has several streams.
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
        chapters: Sequence[Any] = (),
    ) -> None:
        self.path = Path(path)
        self.sample_rate = sample_rate
        self.channels = channels
        self.encoding = encoding
        name = display_path(self.path)
        if channels not in LAYOUTS:
            raise AudioError(f"{name} cannot get {channels} channels; write 1 or 2")
        if sample_rate not in SAMPLE_RATES:
            raise AudioError(f"{name} cannot get {sample_rate} Hz; write 1000 to 768000 Hz")
        encoding.check_channels(channels)
        self._finish, self._chapters = finish, chapters
        self._stored_rate = encoding.stored_rate(sample_rate)
        accepted = encoding.audio_format.channels
        self._stored_channels = channels if channels in accepted else accepted[0]
        self._resampler = Resampler(sample_rate, self._stored_rate, self._stream_count * channels)
        self._encoded = 0  # samples given to the encoders, in each channel
        self._container: OutputContainer | None = None
        with self._audio_errors():
            self._file = AtomicFile(self.path, temporary)
            # Report now, not after hours of work, that the final name cannot be used.
            if self.path.is_dir():
                raise AudioError(f"{name} is a folder; choose another file name")
            with suppress(FileNotFoundError):
                self.path.lstat()
            self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def close(self) -> None:
        """Finish the file and give it its name. Does nothing after `close` or `abort`."""
        if self._container is None:
            return
        try:
            with self._audio_errors():
                self._encode(self._resampler.flush())
                if not self._encoded:
                    raise AudioError(f"{display_path(self.path)} got no samples; nothing was saved")
                for stream in self._streams:
                    for packet in self._last_packets(stream):
                        self._container.mux(packet)
                self._container.close()
            if self._finish is not None:
                self._finish(self._file.temporary)
            with self._audio_errors():
                self._file.commit()
            self._container = None
        finally:
            self.abort()

    def abort(self) -> None:
        """Remove what was written so far. Does nothing after `close`."""
        if self._container is None:
            return
        # Closing writes the trailer, which fails again if writing has failed.
        with suppress(av.FFmpegError, OSError):
            self._container.close()
        self._container = None
        with suppress(OSError):
            self._file.discard()

    def _append(self, block: Tensor) -> None:
        """(streams * channels, L); L may be anything, also 0."""
        with self._audio_errors():
            self._encode(self._resampler.push(block.detach().to("cpu").float()))

    def _open(self) -> None:
        self._container = av.open(
            f"file:{self._file.temporary}",
            "w",
            format=self.encoding.audio_format.muxer,
            options=self.encoding.muxer_options(self._stored_rate),
        )
        try:
            if self._chapters and self.encoding.audio_format.muxer == "ipod":
                self._container.set_chapters(list(self._chapters))
            self._streams = [self._add_stream(self._container) for _ in range(self._stream_count)]
            self._container.start_encoding()
        except (av.FFmpegError, OSError):
            self.abort()
            raise

    def _add_stream(self, container: OutputContainer) -> AudioStream:
        bitrate = self.encoding.bitrate or self.encoding.audio_format.default_bitrate or 0
        stream = cast(
            AudioStream,
            container.add_stream(
                self.encoding.codec.encoder,
                rate=self._stored_rate,
                options=self.encoding.encoder_options(),
                bit_rate=1_000 * bitrate,
            ),
        )
        stream.codec_context.format = self.encoding.codec.sample_format
        stream.codec_context.layout = LAYOUTS[self._stored_channels]
        return stream

    def _encode(self, block: Tensor) -> None:
        if self._container is None:
            raise AudioError(f"{display_path(self.path)} is closed; open a new writer for more")
        for start in range(0, block.shape[1], _FRAME_LENGTH):
            samples = block[:, start : start + _FRAME_LENGTH]
            for stream, part in zip(self._streams, samples.split(self.channels), strict=True):
                self._container.mux(stream.encode(self._frame(part)))
            self._encoded += samples.shape[1]

    def _frame(self, samples: Tensor) -> AudioFrame:
        frame = AudioFrame.from_ndarray(
            to_sample_format(samples.expand(self._stored_channels, -1).numpy(), self.encoding),
            format=self.encoding.codec.sample_format,
            layout=LAYOUTS[self._stored_channels],
        )
        frame.sample_rate = self._stored_rate
        frame.time_base = Fraction(1, self._stored_rate)
        frame.pts = self._encoded
        return frame

    def _last_packets(self, stream: AudioStream) -> Iterator["Packet[AudioStream]"]:
        """Yield the encoder's remaining packets, so that the file ends with the last sample.

        FFmpeg writes only the padding of the last packet into an MP3's header. If the packet
        before it is partly padding too, the last one contains no sample and is left out.
        """
        may_end_early = (
            self.encoding.codec.encoder == "libmp3lame" and self._encoded >= _MIN_MP3_LENGTH
        )
        is_complete = False
        for packet in stream.encode(None):
            if is_complete and may_end_early:
                return
            if packet.duration is not None:
                is_complete = 0 < packet.duration < stream.codec_context.frame_size
            if packet.pts is not None and packet.duration:
                # Vorbis declares whole frames of 64.
                packet.duration = min(packet.duration, self._encoded - packet.pts)
            yield packet

    def _audio_errors(self) -> AbstractContextManager[None]:
        return audio_errors(self.path, "cannot be written", "check its folder and the free space")


class AudioWriter(MediaWriter):
    """Encodes float32 blocks (C, L) into `path`, mono or stereo; memory does not grow.

    The file is written under a hidden temporary name in the same folder and renamed on
    `close()`; until then, and after an error, what was at `path` stays unchanged. Parent
    folders are made. As a context manager it closes, or aborts on an exception.

    Reading the file returns exactly as many samples as were written, for lossy formats too.
    If the format cannot hold `sample_rate` (opus: only 48 kHz; mp3: up to 48 kHz; m4a: up to
    96 kHz), the waveform is resampled to `AudioEncoding.stored_rate`.

    `finish` is called with the temporary file's path once it is encoded, before it is renamed;
    it may write tags. `temporary` is the hidden name to use instead of a random one, so that
    the file of a killed process is overwritten. `chapters` are those of `read_chapters`; only m4a
    files get them.

    Raises AudioError for an impossible request, for a file that cannot be written (permission,
    full disk), and on closing without a single sample.
    """

    def write(self, block: Tensor) -> None:
        """Append a block (C, L) of any length, also 0."""
        if block.ndim != 2 or block.shape[0] != self.channels:
            raise AudioError(
                f"{display_path(self.path)} takes blocks of shape ({self.channels}, L), "
                f"not {tuple(block.shape)}"
            )
        self._append(block)
