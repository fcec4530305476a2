"""Audio files as blocks of samples.

`AudioFile` connects three generators:

1. `decode_frames`: FFmpeg's packets to frames of samples, without encoder delay and padding.
2. `gaps.fill_gaps`: silence where the file's timestamps say that samples are missing.
3. `convert`: channels mixed down, sample rate converted, invalid samples replaced.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import cast, get_args

import av
import numpy as np
import torch
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream
from av.codec.context import Flags2
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from numpy.typing import NDArray
from torch import Tensor

from htdemucs.audio.bit_depth import bit_depth
from htdemucs.audio.concatenated import Part, find_parts
from htdemucs.audio.convert import (
    SAMPLE_RATES,
    Resampler,
    layout_warning,
    mixing_matrix,
    pad_or_trim,
    resampled_length,
)
from htdemucs.audio.decode_report import DecodeReport
from htdemucs.audio.ffmpeg import (
    DecodedFrame,
    SourceFormat,
    audio_errors,
    display_path,
    keep_channel_order,
    to_decoded_frame,
)
from htdemucs.audio.gaps import Align, GapDetector, fill_gaps
from htdemucs.errors import AudioError, reason

MAX_SAMPLE = 1e30  # no sound is as loud; sums of a few larger samples overflow float32
# FFmpeg gives an eighth of DSD's rate: for DSD256 to DSD1024 above `SAMPLE_RATES`.
_DSD_RATES = frozenset(base << octave for base in (44_100, 48_000) for octave in (5, 6, 7))
# Formats that name other files: a track must not be able to read files next to it.
_PLAYLISTS = frozenset({"concat", "dash", "hls", "imf", "webm_dash_manifest"})
_ENCRYPTED = frozenset({"aavd", "drms", "enca"})  # of Audible, iTunes, and MPEG's common encryption
# Explicit protocols: a name such as "a:b.wav" stays a name, and nothing is read from the network.
_PROTOCOLS = "file,subfile"
_TEXT_BYTES = 1024
_SHORT_PROBE = {"probesize": str(1 << 15)}  # bytes; for files whose header is trusted
_UNREADABLE = ("cannot be read", "check that it is an undamaged audio file")


class AudioFile:
    """The audio of any file FFmpeg reads, decoded in blocks; iterate over it as often as you like.

    Iterating opens the file anew and yields float32 blocks (C, L) of `sample_rate` samples. The
    last one may be shorter, none is empty. Memory does not depend on the length of the file.

    - An integer sample x of b bits becomes x / 2^(b-1), exactly up to 24 bits.
    - N samples at rate a become round(N * b / a) samples at rate b (halves rounded up).
    - Mono becomes stereo by copying; more than two channels are mixed down as
      `convert.mixing_matrix` states; mono is the mean of the stereo.
    - NaN, infinite samples and those beyond `MAX_SAMPLE` become 0; packets that do not decode are
      left out.
    - If sample rate or layout change inside a file, the rest is converted like the start.
      Files joined to one, such as chained Ogg streams, are read one after another.

    Attributes:
        path: the file.
        sample_rate, channels: of the blocks.
        align: "start" begins with the first sample of the file. "video" inserts silence before it
            if the audio starts later than the video, and into gaps of the audio, so that it
            stays in sync; without a video stream only gaps are filled.
        source_sample_rate, source_channels: what the file starts with. Rates above those of
            `SAMPLE_RATES`, which DSD has, are halved until they are not.
        codec: FFmpeg's name of the codec, such as "flac" or "pcm_s16le".
        bit_depth: 16, 24 or 32, the least that holds every sample; None for a lossy codec.
        duration: seconds, an estimate from the headers; None if they do not say.
        report: the counts of the latest iteration. An earlier one's may be set instead.

    Raises AudioError, here or while iterating, if the file is missing, unreadable, damaged
    beyond use or without sound, or if an argument is out of range.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        sample_rate: int | None = None,
        channels: int | None = None,
        align: Align = "start",
    ) -> None:
        self.path = Path(path)
        self.align: Align = align
        if sample_rate is not None and sample_rate not in SAMPLE_RATES:
            raise AudioError(f"cannot deliver {sample_rate} Hz; ask for 1000 to 768000 Hz")
        if channels not in (None, 1, 2):
            raise AudioError(f"cannot deliver {channels} channels; ask for 1 or 2")
        if align not in get_args(Align):
            raise AudioError(f"cannot align to {align!r}; choose {' or '.join(get_args(Align))}")
        self._parts = _file_parts(self.path)
        source = _probe(self.path, self._parts, align)
        self.source_sample_rate = source.format.sample_rate
        while self.source_sample_rate not in SAMPLE_RATES:
            self.source_sample_rate //= 2
        self.source_channels = len(source.format.channel_names)
        self.codec = source.codec
        self.bit_depth = source.bit_depth
        self.duration = source.duration
        self.sample_rate = sample_rate or self.source_sample_rate
        self.channels = channels or self.source_channels
        self.report = DecodeReport()

    def __repr__(self) -> str:
        return f"AudioFile({display_path(self.path)!r}, {self.sample_rate} Hz, {self.channels} ch)"

    def at_rate(self, sample_rate: int) -> "AudioFile":
        """Return the same audio, mixed and aligned alike, at another sample rate."""
        channels = self.channels if self.channels in (1, 2) else None
        return AudioFile(self.path, sample_rate=sample_rate, channels=channels, align=self.align)

    def __iter__(self) -> Iterator[Tensor]:
        self.report = DecodeReport()
        return reblock(self._blocks(self.report), self.sample_rate)

    def _blocks(self, report: DecodeReport) -> Iterator[Tensor]:
        frames = join_frames(self._frames(report))
        yield from convert(frames, self.sample_rate, self.channels, self.source_sample_rate, report)
        if not report.source_length:
            raise _nothing_decoded(self.path, report)

    def _frames(self, report: DecodeReport) -> Iterator[DecodedFrame]:
        check_regular_file(self.path)
        with audio_errors(self.path, *_UNREADABLE):
            for part, container, stream in _open_parts(self.path, self._parts, report):
                frames = _decode_part(part, container, stream, report)
                fill = self.align == "video"
                yield from fill_gaps(frames, container, stream, report, fill=fill)

    @property
    def source_length(self) -> int:
        """Samples decoded in the latest iteration, at `source_sample_rate`, with added silence.

        This is the exact length of the file once an iteration is complete.
        """
        return self.report.source_length

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for the user about the latest iteration.

        They say what was damaged and replaced, what was assumed about channels without a known
        position, and that the audio is not in sync with the video.
        """
        return self.report.warnings(gaps_filled=self.align == "video")

    @property
    def replaced_samples(self) -> int:
        """Number of invalid samples replaced by 0 in the latest iteration."""
        return self.report.replaced_samples

    @property
    def skipped_packets(self) -> int:
        """Number of damaged packets left out in the latest iteration."""
        return self.report.skipped_packets


# Opening


def check_regular_file(path: Path) -> None:
    """Raise AudioError if there is no regular file that can be read (a pipe would block)."""
    name = display_path(path)
    try:
        status = path.stat()
    except FileNotFoundError:
        raise AudioError(f"{name} does not exist; check the path") from None
    except (OSError, ValueError) as error:
        raise AudioError(f"{name} cannot be opened: {reason(error)}") from error
    if stat.S_ISDIR(status.st_mode):
        raise AudioError(f"{name} is a folder; specify an audio file inside it")
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(f"{name} is not a regular file; save the audio to one first")
    if status.st_size == 0:
        raise AudioError(f"{name} is empty (0 bytes); check the file")
    if not os.access(path, os.R_OK):
        raise AudioError(f"{name} cannot be opened: no permission to read it")


@contextmanager
def open_audio(
    path: Path, part: Part | None = None
) -> Iterator[tuple[InputContainer, AudioStream]]:
    """Open a file, or one part of it, at its default (else first) audio stream.

    Raises AudioError if there is none. Without `part` the first one is opened.
    """
    part = part or _file_parts(path)[0]
    url = f"file:{path}"
    with audio_errors(path, *_UNREADABLE):
        if (part.start, part.end) != (0, path.stat().st_size):
            url = f"subfile,,start,{part.start},end,{part.end},,:{url}"
        options = {"protocol_whitelist": _PROTOCOLS, **(_SHORT_PROBE if part.is_plain_pcm else {})}
        try:
            container = av.open(
                url, format=part.container, metadata_errors="replace", options=options
            )
        except av.InvalidDataError:
            if not _is_text(path):
                raise
            raise AudioError(
                f"{display_path(path)} is text, such as a list of tracks; specify audio files"
            ) from None
        with container:
            yield container, choose_stream(container, path)


def _is_text(path: Path) -> bool:
    """Whether a file begins with lines of text, as .cue and .html files do."""
    with path.open("rb") as file:
        head = file.read(_TEXT_BYTES)
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in head) and b"\n" in head


def _codec_tag(stream: AudioStream) -> str:
    """Return the container's four-letter name of the codec; empty if it is not text."""
    try:
        return str(stream.codec_context.codec_tag)
    except UnicodeDecodeError:  # as of PCM in AVI, whose tag is a number
        return ""


def choose_stream(container: InputContainer, path: Path) -> AudioStream:
    """Return the default (else first) audio stream. Raises AudioError if there is none to read."""
    name = display_path(path)
    if container.format.name in _PLAYLISTS:
        raise AudioError(f"{name} is a playlist; specify the audio files themselves")
    streams = container.streams.audio
    if not streams:
        raise AudioError(f"{name} has no audio stream; choose a file with sound")
    default = [stream for stream in streams if stream.disposition & Disposition.default]
    stream = (default or list(streams))[0]
    if stream.codec_context is None:
        raise AudioError(f"{name} uses an unknown audio codec; convert it to WAV or FLAC first")
    if _codec_tag(stream) in _ENCRYPTED:
        raise AudioError(f"{name} is encrypted (DRM); specify a file without copy protection")
    rate = stream.codec_context.sample_rate
    if rate and not _is_possible_rate(rate):
        raise AudioError(f"{name} claims a sample rate of {rate} Hz; check that it is undamaged")
    return stream


def _is_possible_rate(sample_rate: int) -> bool:
    return sample_rate in SAMPLE_RATES or sample_rate in _DSD_RATES


def _file_parts(path: Path) -> list[Part]:
    """Return the parts of a file. Raises AudioError if there is no file to read."""
    check_regular_file(path)
    with audio_errors(path, "cannot be read", "check its folder"):
        return find_parts(path)


def _open_parts(
    path: Path, parts: list[Part], report: DecodeReport
) -> Iterator[tuple[Part, InputContainer, AudioStream]]:
    """Open the parts one after another; leave out those that cannot be opened, unless all are."""
    first_error: AudioError | None = None
    any_opened = False
    for part in parts:
        with ExitStack() as stack:
            try:
                container, stream = stack.enter_context(open_audio(path, part))
            except AudioError as error:
                first_error = first_error or error
                report.skipped_packets += 1
                continue
            any_opened = True
            yield part, container, stream
    if first_error is not None and not any_opened:
        raise first_error


@dataclass(frozen=True)
class _SourceInfo:
    """The headers of a file, and the format of its first frame."""

    format: SourceFormat
    codec: str
    bit_depth: int | None
    duration: float | None  # seconds, as the container estimates it


def _probe(path: Path, parts: list[Part], align: Align) -> _SourceInfo:
    """Read the headers of all parts and the first frame that decodes.

    Raises AudioError if the file cannot be opened or holds no audio that decodes.
    """
    report = DecodeReport()
    info: _SourceInfo | None = None
    with audio_errors(path, *_UNREADABLE):
        for part, container, stream in _open_parts(path, parts, report):
            duration = None if container.duration is None else container.duration / av.time_base
            if stream.duration is not None and stream.time_base is not None:
                duration = float(stream.duration * stream.time_base)
            if info is None:
                info = _probe_part(path, part, container, stream, report)
                if info and duration is not None and align == "video":
                    duration += report.late
            if info is not None and duration is not None:
                info = replace(info, duration=(info.duration or 0.0) + duration)
    if info is None:
        raise _nothing_decoded(path, report)
    return info


def _probe_part(
    path: Path, part: Part, container: InputContainer, stream: AudioStream, report: DecodeReport
) -> _SourceInfo | None:
    """Return the properties of a part but for its duration; None if nothing in it decodes."""
    decoder = choose_decoder(stream, part.codec)
    first = next(decode_frames(container, stream, decoder, report), None)
    if first is None:
        return None
    GapDetector(container, stream, report).missing_before(first)
    codec = decoder.codec.canonical_name
    packet = b""
    if codec == "wavpack":
        with open_audio(path, part) as (again, stream_again):
            packet = bytes(next(again.demux(stream_again)))
    return _SourceInfo(first.format, codec, bit_depth(stream.codec_context, packet), None)


def _nothing_decoded(path: Path, report: DecodeReport) -> AudioError:
    """Return the error for a file without a single sample."""
    name = display_path(path)
    if report.unsupported_format:
        return AudioError(
            f"{name} has samples of the kind {report.unsupported_format}, which cannot be read "
            "yet; convert it to WAV or FLAC first"
        )
    if report.skipped_packets:
        return AudioError(f"{name} cannot be decoded: all its audio is damaged")
    return AudioError(f"{name} contains no audio samples; check the file")


# Step 1: decoding


def choose_decoder(stream: AudioStream, codec: str | None) -> AudioCodecContext:
    """Return the stream's decoder, or the one for `codec` where FFmpeg chose a wrong one."""
    chosen = stream.codec_context
    if codec in (None, chosen.name):
        return chosen
    decoder = cast(AudioCodecContext, av.CodecContext.create(codec, "r"))
    decoder.sample_rate = chosen.sample_rate
    decoder.layout = f"{chosen.layout.nb_channels} channels"  # names are taken from the stream
    return decoder


def _decode_part(
    part: Part, container: InputContainer, stream: AudioStream, report: DecodeReport
) -> Iterator[DecodedFrame]:
    """Yield the frames of a part, cut to its exact length if that is known."""
    decoder = choose_decoder(stream, part.codec)
    frames = decode_frames(container, stream, decoder, report)
    if part.length is None:
        yield from frames
        return
    decoder.flags2 |= Flags2.skip_manual
    remaining = part.length
    for frame in frames:
        yield frame._replace(samples=frame.samples[:, :remaining])
        remaining = max(0, remaining - frame.samples.shape[1])


def decode_frames(
    container: InputContainer,
    stream: AudioStream,
    decoder: AudioCodecContext,
    report: DecodeReport,
) -> Iterator[DecodedFrame]:
    """Yield the stream's frames, leaving out packets that do not decode.

    FFmpeg removes encoder delay. It also removes the padding at the end, except in MP4 files:
    there the last packet's duration says where the audio ends, and the last frame is cut to it.
    """
    is_mp4 = container.format.name.startswith("mov,")
    channel_names = keep_channel_order(stream)
    last: DecodedFrame | None = None
    end: float | None = None
    for packet in _packets(container, stream, report):
        try:
            decoded_frames = decoder.decode(packet)
        except (av.FFmpegError, ValueError):
            report.skipped_packets += 1
            continue
        if packet.pts is not None and packet.duration and packet.time_base is not None:
            end = float((packet.pts + packet.duration) * packet.time_base)
        for frame in decoded_frames:
            if not frame.samples or not _is_possible_rate(frame.sample_rate):
                continue
            decoded = to_decoded_frame(frame, channel_names)
            if decoded is None:
                report.unsupported_format = frame.format.name
                continue
            if last is not None:
                yield last
            last = decoded
    if last is not None:
        yield last.before(end) if is_mp4 and end is not None else last


def _packets(
    container: InputContainer, stream: AudioStream, report: DecodeReport
) -> Iterator["Packet[AudioStream]"]:
    try:
        yield from container.demux(stream)
    except av.InvalidDataError:
        # A truncated or damaged file: what was read before is kept.
        report.skipped_packets += 1


# Step 3: conversion


def join_frames(frames: Iterable[DecodedFrame], seconds: float = 1) -> Iterator[DecodedFrame]:
    """Join frames of the same format to about `seconds`: later steps are faster on long ones."""
    waiting: list[NDArray[np.float32]] = []
    length = 0
    source: SourceFormat | None = None
    for frame in frames:
        if source is not None and (
            frame.format != source or length >= seconds * source.sample_rate
        ):
            yield DecodedFrame(source, np.concatenate(waiting, axis=1))
            waiting, length = [], 0
        source = frame.format
        waiting.append(frame.samples)
        length += frame.samples.shape[1]
    if source is not None:
        yield DecodedFrame(source, np.concatenate(waiting, axis=1))


def convert(
    frames: Iterable[DecodedFrame],
    sample_rate: int,
    channels: int,
    source_rate: int,
    report: DecodeReport,
) -> Iterator[Tensor]:
    """Yield blocks (C, L) at `sample_rate`; L may be anything, also 0.

    The report gets the length at `source_rate`, the number of replaced samples, and what was
    assumed about the channels.
    """
    source: SourceFormat | None = None
    resampler: Resampler | None = None
    for frame in frames:
        if source is None or frame.format != source:
            if resampler is not None:
                yield resampler.flush()
            source = frame.format
            matrix = mixing_matrix(source.channel_names, channels)
            resampler = Resampler(source.sample_rate, sample_rate, channels)
            report.layout_warning = report.layout_warning or layout_warning(
                source.channel_names, channels
            )
            previous, length = report.source_length, 0
        assert resampler is not None
        samples = torch.from_numpy(_replace_invalid(frame.samples, report))
        length += samples.shape[1]
        report.source_length = previous + resampled_length(length, source.sample_rate, source_rate)
        yield resampler.push(samples if matrix is None else matrix @ samples)
    if resampler is not None:
        yield resampler.flush()


def _replace_invalid(samples: NDArray[np.float32], report: DecodeReport) -> NDArray[np.float32]:
    """Replace NaN, infinite and impossibly large samples by 0, and count them."""
    valid = np.abs(samples) <= MAX_SAMPLE  # false for NaN too
    invalid = samples.size - int(np.count_nonzero(valid))
    if not invalid:
        return samples
    report.replaced_samples += invalid
    return np.where(valid, samples, np.float32(0))


# Blocks


def reblock(blocks: Iterable[Tensor], length: int) -> Iterator[Tensor]:
    """Yield the same samples in blocks (C, length), the last one shorter, none empty."""
    waiting: list[Tensor] = []
    count = 0
    for block in blocks:
        waiting.append(block)
        count += block.shape[1]
        if count >= length:
            joined = torch.cat(waiting, dim=1)
            whole = count // length * length
            for start in range(0, whole, length):
                yield joined[:, start : start + length].clone()
            waiting = [joined[:, whole:]]
            count -= whole
    if count:
        yield torch.cat(waiting, dim=1)


def zip_blocks(
    files: Sequence[AudioFile], length: int, leading: int | None = None
) -> Iterator[Tensor]:
    """Yield blocks (file, C, L) of files of the same rate and channels; only the last is shorter.

    They end with the longest of the first `leading` files, by default of all; shorter files are
    padded with silence.
    """
    iterators = [reblock(file, length) for file in files]
    empty = torch.zeros(files[0].channels, 0)
    while True:
        blocks = [next(iterator, empty) for iterator in iterators]
        longest = max(block.shape[-1] for block in blocks[:leading])
        if not longest:
            return
        yield torch.stack([pad_or_trim(block, longest) for block in blocks])
