"""What FFmpeg decodes of a file's audio stream, as float32 samples and their format."""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from numpy.typing import NDArray

from htdemucs.audio.failures import printable, reason, reporting
from htdemucs.errors import AudioError

SAMPLE_RATES = range(1_000, 768_001)  # Hz; outside it a header is damaged, not unusual

# Formats that name other files: a track must not be able to read its neighbours.
_PLAYLISTS = frozenset({"concat", "dash", "hls", "imf", "webm_dash_manifest"})
_LOSSLESS_CODECS = frozenset(
    {"alac", "ape", "flac", "mlp", "mp4als", "shorten", "tak", "truehd", "tta", "wavpack"}
)
# PyAV 18 looks for a null pointer after a frame's last plane, and FFmpeg writes none from 8 on:
# asking such a frame for its planes reads, and crashes on, memory that is not its own.
_UNSAFE_PLANES = 8
_PCM_BITS = re.compile(r"pcm_[usf](\d+)")


class SourceFormat(NamedTuple):
    """What a run of decoded samples is."""

    sample_rate: int
    channel_names: tuple[str, ...]  # FFmpeg's: FL, FR, FC, LFE, …


class Decoded(NamedTuple):
    """Samples of one frame, (C, L) float32."""

    format: SourceFormat
    samples: NDArray[np.float32]


@dataclass(frozen=True)
class SourceInfo:
    """What a file says of its audio, and what its first frame shows."""

    format: SourceFormat
    codec: str
    bit_depth: int | None
    duration: float | None  # seconds, as the container estimates it


class Damage:
    """Counts what had to be left out or replaced during one pass over a file."""

    def __init__(self) -> None:
        self.skipped_packets = 0
        self.repaired_samples = 0


def probe(path: Path) -> SourceInfo:
    """Read the headers and the first decodable frame.

    Raises AudioError if the file cannot be opened or holds no audio that decodes.
    """
    with open_audio(path) as (container, stream):
        damage = Damage()
        first = next(decode(container, stream, damage), None)
        if first is None:
            raise nothing_decoded(path, damage)
        context = stream.codec_context
        codec = context.codec.canonical_name
        duration = None
        if stream.duration is not None and stream.time_base is not None:
            duration = float(stream.duration * stream.time_base)
        elif container.duration is not None:
            duration = container.duration / av.time_base
        return SourceInfo(first.format, codec, _bit_depth(codec, context.format.name), duration)


def nothing_decoded(path: Path, damage: Damage) -> AudioError:
    """Make the error for a stream without a single sample."""
    if damage.skipped_packets:
        return AudioError(f"{printable(path)} cannot be decoded: all its audio is damaged")
    return AudioError(f"{printable(path)} contains no audio samples; check the file")


@contextmanager
def open_audio(path: Path) -> Iterator[tuple[InputContainer, AudioStream]]:
    """Open a file at its default (else first) audio stream; AudioError if there is none."""
    check_regular_file(path)
    with reporting(path, "cannot be read", "check that it is an undamaged audio file"):
        # The explicit protocol keeps a name such as "a:b.wav" a name, and the network shut.
        container = av.open(
            f"file:{path}", metadata_errors="replace", options={"protocol_whitelist": "file"}
        )
        with container:
            yield container, _choose_stream(container, path)


def decode(container: InputContainer, stream: AudioStream, damage: Damage) -> Iterator[Decoded]:
    """Yield the stream's frames, leaving out packets that do not decode.

    Encoder delay is removed by FFmpeg. So is the padding at the end, except in MP4 files: there
    the last packet's duration tells where the audio ends, and the last frame is cut to it.
    """
    is_mp4 = container.format.name.startswith("mov,")
    held: tuple[AudioFrame, Decoded] | None = None
    end: int | None = None
    for packet in _packets(container, stream, damage):
        try:
            decoded = [(frame, _decoded(frame)) for frame in packet.decode() if _is_usable(frame)]
        except (av.FFmpegError, ValueError):
            damage.skipped_packets += 1
            continue
        if packet.pts is not None and packet.duration:
            end = packet.pts + packet.duration
        for pair in decoded:
            if held is not None:
                yield held[1]
            held = pair
    if held is not None:
        frame, piece = held
        yield _cut(piece, frame, end) if is_mp4 and end is not None else piece


def _packets(
    container: InputContainer, stream: AudioStream, damage: Damage
) -> Iterator["Packet[AudioStream]"]:
    try:
        yield from container.demux(stream)
    except av.InvalidDataError:
        # A file that breaks off or goes astray still gives what came before.
        damage.skipped_packets += 1


def _is_usable(frame: AudioFrame) -> bool:
    return frame.samples > 0 and frame.sample_rate in SAMPLE_RATES


def _cut(piece: Decoded, frame: AudioFrame, end: int) -> Decoded:
    """Keep the part of a frame before the timestamp `end`; all of it if `end` is not inside."""
    if frame.pts is None or frame.time_base is None:
        return piece
    length = round((end - frame.pts) * frame.time_base * frame.sample_rate)
    return piece._replace(samples=piece.samples[:, :length]) if length > 0 else piece


def _decoded(frame: AudioFrame) -> Decoded:
    names = tuple(channel.name for channel in frame.layout.channels)
    return Decoded(SourceFormat(frame.sample_rate, names), _samples(frame))


def _samples(frame: AudioFrame) -> NDArray[np.float32]:
    """(C, L) float32; an integer of b bits x becomes x / 2^(b-1), exactly up to 24 bits."""
    if frame.format.is_planar and frame.layout.nb_channels >= _UNSAFE_PLANES:
        interleave = av.AudioResampler(format=frame.format.name.removesuffix("p"))
        [frame] = interleave.resample(frame)
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(frame.samples, -1).T
    with np.errstate(over="ignore"):
        samples = values.astype(np.float32)
    match frame.format.name.removesuffix("p"):
        case "u8":
            return (samples - 128) / np.float32(2**7)
        case "s16":
            return samples / np.float32(2**15)
        case "s32":
            return samples / np.float32(2**31)
    return samples


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


def _choose_stream(container: InputContainer, path: Path) -> AudioStream:
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
    if rate and rate not in SAMPLE_RATES:
        raise AudioError(f"{name} claims a sample rate of {rate} Hz; check that it is undamaged")
    return stream


def _bit_depth(codec: str, sample_format: str) -> int | None:
    """16, 24 or 32, the least that holds every sample of a lossless codec; None for lossy ones."""
    pcm = _PCM_BITS.match(codec)
    if pcm is not None:
        return next((depth for depth in (16, 24) if int(pcm[1]) <= depth), 32)
    if codec not in _LOSSLESS_CODECS:
        return None
    return {"s16": 16, "u8": 16, "s32": 24}.get(sample_format.removesuffix("p"), 32)
