"""FFmpeg's decoding of a file's audio stream: float32 samples and their format."""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.codec.context import Flags2
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition

from htdemucs.audio.depth import bit_depth
from htdemucs.audio.failures import printable, reason, reporting
from htdemucs.audio.findings import Findings
from htdemucs.audio.frames import Decoded, SourceFormat, decoded, keep_channel_order
from htdemucs.audio.parts import Part, find_parts
from htdemucs.audio.timeline import Align, Timeline
from htdemucs.errors import AudioError

SAMPLE_RATES = range(1_000, 768_001)  # Hz; outside it a header is damaged, not unusual
# FFmpeg gives an eighth of DSD's rate: for DSD256 to DSD1024 more than any other sound has.
_DSD_RATES = frozenset(base << octave for base in (44_100, 48_000) for octave in (5, 6, 7))

# Formats that name other files: a track must not be able to read its neighbours.
_PLAYLISTS = frozenset({"concat", "dash", "hls", "imf", "webm_dash_manifest"})
# The explicit protocols keep a name such as "a:b.wav" a name, and the network shut.
_PROTOCOLS = "file,subfile"
_PROBED = {"probesize": str(1 << 15)}  # bytes, of samples that FFmpeg need not try its codecs on
_UNREADABLE = ("cannot be read", "check that it is an undamaged audio file")


@dataclass(frozen=True)
class SourceInfo:
    """A file's headers, and the format of its first frame."""

    format: SourceFormat
    codec: str
    bit_depth: int | None
    duration: float | None  # seconds, as the container estimates it


def parts_of(path: Path) -> list[Part]:
    """Return a file's parts. Raises AudioError if there is no file to read."""
    check_regular_file(path)
    with reporting(path, "cannot be read", "check its folder"):
        return find_parts(path)


def probe(path: Path, parts: list[Part], align: Align) -> SourceInfo:
    """Read the headers and the first decodable frame of a file of these parts.

    Raises AudioError if the file cannot be opened or holds no audio that decodes.
    """
    findings = Findings()
    info: SourceInfo | None = None
    with reporting(path, *_UNREADABLE):
        for part, container, stream in _opened(path, parts, findings):
            duration = _duration(container, stream)
            if info is None:
                info = _probed(path, part, container, stream, findings)
                if info and duration is not None and align == "video":
                    duration += findings.late
            if info is not None and duration is not None:
                info = replace(info, duration=(info.duration or 0.0) + duration)
    if info is None:
        raise nothing_decoded(path, findings)
    return info


def _probed(
    path: Path, part: Part, container: InputContainer, stream: AudioStream, findings: Findings
) -> SourceInfo | None:
    """Return what a part is, but for its duration; None if nothing of it decodes."""
    decoder = decoder_for(stream, part)
    first = next(decoded_frames(container, stream, decoder, findings), None)
    if first is None:
        return None
    Timeline(container, stream, findings).missing(first.start, first.seconds)
    codec = decoder.codec.canonical_name
    packet = _first_packet(path, part) if codec == "wavpack" else b""
    return SourceInfo(first.format, codec, bit_depth(stream.codec_context, packet), None)


def nothing_decoded(path: Path, findings: Findings) -> AudioError:
    """Make the error for a stream without a single sample."""
    name = printable(path)
    if findings.unreadable:
        return AudioError(
            f"{name} has samples of the kind {findings.unreadable}, which cannot be read yet; "
            "convert it to WAV or FLAC first"
        )
    if findings.skipped_packets:
        return AudioError(f"{name} cannot be decoded: all its audio is damaged")
    return AudioError(f"{name} contains no audio samples; check the file")


def decode(path: Path, parts: list[Part], align: Align, findings: Findings) -> Iterator[Decoded]:
    """Yield the frames of a file of these parts, and silence where `align` "video" wants it.

    Packets that do not decode are left out, and so is what cannot be opened of a file that was
    put together from several. Raises AudioError if nothing can be opened.
    """
    check_regular_file(path)
    with reporting(path, *_UNREADABLE):
        for part, container, stream in _opened(path, parts, findings):
            yield from _aligned(container, stream, part, align, findings)


def _opened(
    path: Path, parts: list[Part], findings: Findings
) -> Iterator[tuple[Part, InputContainer, AudioStream]]:
    """Open the parts one after another; what cannot be opened beside others is damage."""
    problem: AudioError | None = None
    is_open = False
    for part in parts:
        with ExitStack() as stack:
            try:
                container, stream = stack.enter_context(open_audio(path, part))
            except AudioError as error:
                problem = problem or error
                findings.skipped_packets += 1
                continue
            is_open = True
            yield part, container, stream
    if problem is not None and not is_open:
        raise problem


@contextmanager
def open_audio(
    path: Path, part: Part | None = None
) -> Iterator[tuple[InputContainer, AudioStream]]:
    """Open a file, or its first part, at its default (else first) audio stream.

    Raises AudioError if there is none.
    """
    part = part or parts_of(path)[0]
    url = f"file:{path}"
    with reporting(path, *_UNREADABLE):
        if (part.start, part.end) != (0, path.stat().st_size):
            url = f"subfile,,start,{part.start},end,{part.end},,:{url}"
        options = {"protocol_whitelist": _PROTOCOLS, **(_PROBED if part.is_plain else {})}
        container = av.open(url, format=part.container, metadata_errors="replace", options=options)
        with container:
            yield container, choose_stream(container, path)


def _duration(container: InputContainer, stream: AudioStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / av.time_base


def _first_packet(path: Path, part: Part) -> bytes:
    with open_audio(path, part) as (container, stream):
        return bytes(next(container.demux(stream)))


def _aligned(
    container: InputContainer, stream: AudioStream, part: Part, align: Align, findings: Findings
) -> Iterator[Decoded]:
    timeline = Timeline(container, stream, findings)
    decoder = decoder_for(stream, part)
    pieces = decoded_frames(container, stream, decoder, findings)
    if part.samples is not None:
        decoder.flags2 |= Flags2.skip_manual
        pieces = _first_samples(pieces, part.samples)
    for piece in pieces:
        silence = timeline.missing(piece.start, piece.seconds)
        if align == "video":
            yield from _silence(piece.format, round(silence * piece.format.sample_rate))
        yield piece


def _first_samples(pieces: Iterator[Decoded], count: int) -> Iterator[Decoded]:
    for piece in pieces:
        yield piece._replace(samples=piece.samples[:, :count])
        count = max(0, count - piece.samples.shape[1])


def _silence(source: SourceFormat, length: int) -> Iterator[Decoded]:
    for start in range(0, length, source.sample_rate):
        count = min(source.sample_rate, length - start)
        yield Decoded(source, np.zeros((len(source.channel_names), count), np.float32))


def decoder_for(stream: AudioStream, part: Part) -> AudioCodecContext:
    """Return FFmpeg's decoder for the stream, or that of the codec which the part has."""
    chosen = stream.codec_context
    if part.codec in (None, chosen.name):
        return chosen
    decoder = cast(AudioCodecContext, av.CodecContext.create(part.codec, "r"))
    decoder.sample_rate = chosen.sample_rate
    decoder.layout = f"{chosen.layout.nb_channels} channels"  # names come from the stream
    return decoder


def decoded_frames(
    container: InputContainer,
    stream: AudioStream,
    decoder: AudioCodecContext,
    findings: Findings,
) -> Iterator[Decoded]:
    """Yield the stream's frames, leaving out packets that do not decode.

    Encoder delay is removed by FFmpeg. So is the padding at the end, except in MP4 files: there
    the last packet's duration tells where the audio ends, and the last frame is cut to it.
    """
    is_mp4 = container.format.name.startswith("mov,")
    names = keep_channel_order(stream)
    held: Decoded | None = None
    end: float | None = None
    for packet in _packets(container, stream, findings):
        try:
            frames = [frame for frame in decoder.decode(packet) if _is_usable(frame)]
        except (av.FFmpegError, ValueError):
            findings.skipped_packets += 1
            continue
        if packet.pts is not None and packet.duration and packet.time_base is not None:
            end = float((packet.pts + packet.duration) * packet.time_base)
        for frame in frames:
            piece = decoded(frame, names)
            if piece is None:
                findings.unreadable = frame.format.name
                continue
            if held is not None:
                yield held
            held = piece
    if held is not None:
        yield held.before(end) if is_mp4 and end is not None else held


def _packets(
    container: InputContainer, stream: AudioStream, findings: Findings
) -> Iterator["Packet[AudioStream]"]:
    try:
        yield from container.demux(stream)
    except av.InvalidDataError:
        # A file that breaks off or goes astray still gives what came before.
        findings.skipped_packets += 1


def _is_usable(frame: AudioFrame) -> bool:
    return frame.samples > 0 and _is_possible(frame.sample_rate)


def _is_possible(sample_rate: int) -> bool:
    """Return whether sound can have this rate."""
    return sample_rate in SAMPLE_RATES or sample_rate in _DSD_RATES


def check_regular_file(path: Path) -> None:
    """Raise AudioError if there is no file to read, or no plain one (a pipe would wait forever)."""
    name = printable(path)
    try:
        status = path.stat()
    except FileNotFoundError:
        raise AudioError(f"{name} does not exist; check the path") from None
    except (OSError, ValueError) as error:
        raise AudioError(f"{name} cannot be opened: {reason(error)}") from error
    if stat.S_ISDIR(status.st_mode):
        raise AudioError(f"{name} is a folder; name an audio file inside it")
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(f"{name} is not a regular file; save the audio to one first")
    if status.st_size == 0:
        raise AudioError(f"{name} is empty (0 bytes); check the file")
    if not os.access(path, os.R_OK):
        raise AudioError(f"{name} cannot be opened: no permission to read it")


def choose_stream(container: InputContainer, path: Path) -> AudioStream:
    """Return the default (else first) audio stream. Raises AudioError if there is none to read."""
    name = printable(path)
    if container.format.name in _PLAYLISTS:
        raise AudioError(f"{name} is a playlist; name the audio files themselves")
    streams = container.streams.audio
    if not streams:
        raise AudioError(f"{name} has no audio stream; choose a file with sound")
    marked = [stream for stream in streams if stream.disposition & Disposition.default]
    stream = (marked or list(streams))[0]
    if stream.codec_context is None:
        raise AudioError(f"{name} uses an unknown audio codec; convert it to WAV or FLAC first")
    rate = stream.codec_context.sample_rate
    if rate and not _is_possible(rate):
        raise AudioError(f"{name} claims a sample rate of {rate} Hz; check that it is undamaged")
    return stream
