"""Sentences for the listener about what reading a file has found.

MERGED: Where samples are missing on a file's own clock: before the first one, and in between.
MERGED: FFmpeg's decoding of a file's audio stream: float32 samples and their format.
MERGED: Audio files as streams of float32 blocks.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Literal, cast, get_args

import av
import numpy as np
import torch
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.codec.context import Flags2
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from numpy.typing import NDArray
from torch import Tensor

from htdemucs.audio.bit_depth import bit_depth
from htdemucs.audio.concatenated import Part, find_parts
from htdemucs.audio.convert import (
    Resampler,
    assumption,
    mixing_matrix,
    pad_or_trim,
    resampled_length,
)
from htdemucs.audio.ffmpeg import (
    Decoded,
    SourceFormat,
    decoded,
    keep_channel_order,
    printable,
    reason,
    reporting,
)
from htdemucs.errors import AudioError

NOTABLE = 0.010  # seconds that audio may be away from the picture without a word


@dataclass
class Findings:
    """Counts and times of one pass over a file.

    Attributes:
        skipped_packets: packets left out because they do not decode.
        repaired_samples: samples that are no sound, replaced by 0.
        unreadable: kinds of samples that decode, but cannot be converted.
        assumption: how channels were mixed that do not say where they belong.
        late: seconds from the file's beginning to the first sample, where neither is silence.
        gaps: seconds in all that lack samples after the first one.
    """

    skipped_packets: int = 0
    repaired_samples: int = 0
    unreadable: str | None = None
    assumption: str | None = None
    late: float = 0.0
    gaps: float = 0.0

    def notes(self, *, filled: bool) -> tuple[str, ...]:
        """Return the sentences; `filled` tells that silence was put where samples are missing."""
        notes = []
        if self.skipped_packets:
            notes.append(f"{_counted(self.skipped_packets, 'damaged packet')} left out")
        if self.repaired_samples:
            notes.append(f"{_counted(self.repaired_samples, 'invalid sample')} replaced by 0")
        if self.assumption:
            notes.append(self.assumption)
        missing = []
        if self.late > NOTABLE:
            missing.append(f"starts {self.late:.3f} s late")
        if self.gaps > NOTABLE:
            missing.append(f"has gaps of {self.gaps:.3f} s in all")
        if missing and not filled:
            notes.append(f"the audio {' and '.join(missing)}; set align to video to insert silence")
        return tuple(notes)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun} was" if count == 1 else f"{count} {noun}s were"


Align = Literal["start", "video"]

# Containers whose packets carry a time of their own; in others FFmpeg counts samples or bytes.
_CLOCKED = ("flv", "matroska", "mov", "mpegts")
_RESET = 1.0  # seconds: a clock that goes back further was set anew
_TRANSPORT_RESET = 10.0  # seconds: forward too, in a transport stream; FFmpeg thinks the same
_LONGEST = 24 * 3600.0  # seconds that a file's clock is believed
_ESTIMATE = 10.0  # seconds by which a file's duration may be wrong


class Timeline:
    """Compares the times of frames with the samples that came before them.

    Time 0 is where the picture or the audio begins, whichever is first; in a file without
    pictures, where the audio begins. Encoder delay that the file tells of is no lateness.
    """

    def __init__(self, container: InputContainer, stream: AudioStream, findings: Findings) -> None:
        name = container.format.name
        self._clocked = name.startswith(_CLOCKED)
        self._leap = _TRANSPORT_RESET if name.startswith("mpegts") else _LONGEST
        self._origin = _beginning(container, stream)
        self._longest = _LONGEST
        if container.duration is not None:
            self._longest = min(container.duration / av.time_base + _ESTIMATE, _LONGEST)
        self._given = 0.0  # seconds of samples and silence so far
        self._end: float | None = None  # the time at which the latest frame ended
        self._findings = findings

    def missing(self, start: float | None, length: float) -> float:
        """Return the seconds of silence before a frame, which starts and lasts so many seconds."""
        silence = 0.0
        if start is not None:
            silence = self._first(start) if self._end is None else self._next(start, self._end)
        elif self._end is not None:
            start = self._end
        self._given += silence + length
        self._end = None if start is None else start + length
        return silence

    def _first(self, start: float) -> float:
        if self._origin is None:
            self._origin = start
        late = start - self._origin
        if not 0 < late <= self._longest:
            self._origin = start
            return 0.0
        self._findings.late += late
        return late

    def _next(self, start: float, end: float) -> float:
        origin = start if self._origin is None else self._origin
        jump, behind = start - end, start - origin - self._given
        if not self._clocked or min(jump, behind) <= NOTABLE:
            if jump < -_RESET:
                self._origin = start - self._given
            return 0.0
        if jump > self._leap or start - origin > self._longest:
            self._origin = start - self._given
            return 0.0
        self._findings.gaps += behind
        return behind


def _beginning(container: InputContainer, stream: AudioStream) -> float | None:
    """Return when the pictures or the audio begin, in seconds; None without pictures."""
    pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not pictures:
        return None
    return min(_starts(pictures[0], stream), default=None)


def _starts(*streams: Stream) -> list[float]:
    return [
        float(stream.start_time * stream.time_base)
        for stream in streams
        if stream.start_time is not None and stream.time_base is not None
    ]


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


LOUDEST = 1e30  # a magnitude that no sound has; sums of a few larger ones are beyond float32


class AudioFile:
    """The audio of any file FFmpeg reads, decoded in blocks, as often as wanted.

    Iterating opens the file anew and yields float32 blocks (C, L) of `sample_rate` samples, the
    last one shorter, never empty. Memory does not depend on the file's length.

    - An integer sample x of b bits becomes x / 2^(b-1), exactly up to 24 bits.
    - N samples at rate a become round(N * b / a) samples at rate b (halves rounded up).
    - Mono becomes stereo by copying; more than two channels are mixed down as
      `channels.mixing_matrix` states; mono is the mean of the stereo.
    - NaN, infinite samples and those beyond `LOUDEST` become 0; packets that do not decode are
      left out.
    - Where sample rate or layout change inside a file, the rest is converted like the start.
      Files joined to one, such as chained Ogg streams, are read one after another.

    Attributes:
        path: the file.
        sample_rate, channels: what iterating delivers.
        align: "start" begins with the first sample of the file. "video" puts silence before it
            where the audio starts later than the pictures, and into gaps of the audio, so that
            it stays in step with them; without pictures only gaps are filled.
        source_sample_rate, source_channels: what the file starts with. Rates above those of
            `SAMPLE_RATES`, which DSD has, are halved until they are not.
        codec: FFmpeg's name of the codec, such as "flac" or "pcm_s16le".
        bit_depth: 16, 24 or 32 (the least that keeps every sample); None for a lossy codec.
        duration: seconds as the container tells, an estimate; None if it does not.
        source_length: exact length in samples at `source_sample_rate`, with the silence that
            `align` adds, known once an iteration is complete; 0 before.

    Raises AudioError, here or while iterating, if the file is missing, unreadable, damaged
    beyond use or without sound, or if the request is out of range.
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
        self._parts = parts_of(self.path)
        info = probe(self.path, self._parts, align)
        self.source_sample_rate = info.format.sample_rate
        while self.source_sample_rate not in SAMPLE_RATES:
            self.source_sample_rate //= 2
        self.source_channels = len(info.format.channel_names)
        self.codec = info.codec
        self.bit_depth = info.bit_depth
        self.duration = info.duration
        self.sample_rate = sample_rate or self.source_sample_rate
        self.channels = channels or self.source_channels
        self.source_length = 0
        self._findings = Findings()

    def at_rate(self, sample_rate: int) -> "AudioFile":
        """Return the same audio, mixed and aligned alike, at another sample rate."""
        channels = self.channels if self.channels in (1, 2) else None
        return AudioFile(self.path, sample_rate=sample_rate, channels=channels, align=self.align)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the listener about the latest iteration.

        They say what was damaged and replaced, what was assumed of channels that do not say where
        they belong, and that the audio is not in step with the pictures.
        """
        return self._findings.notes(filled=self.align == "video")

    @property
    def repaired_samples(self) -> int:
        """Count of invalid samples, replaced by 0 during the latest iteration."""
        return self._findings.repaired_samples

    @property
    def skipped_packets(self) -> int:
        """Count of packets left out as damaged during the latest iteration."""
        return self._findings.skipped_packets

    def __repr__(self) -> str:
        return f"AudioFile({printable(self.path)!r}, {self.sample_rate} Hz, {self.channels} ch)"

    def __iter__(self) -> Iterator[Tensor]:
        self._findings = Findings()
        self.source_length = 0
        return reblock(self._converted(self._findings), self.sample_rate)

    def _converted(self, findings: Findings) -> Iterator[Tensor]:
        """Yield blocks at the delivered rate and channels, of any length, also 0."""
        section: Section | None = None
        for piece in coalesce(decode(self.path, self._parts, self.align, findings)):
            if section is None or section.source != piece.format:
                if section is not None:
                    self._count(section)
                    yield section.flush()
                section = Section(piece.format, self.sample_rate, self.channels)
                findings.assumption = findings.assumption or section.assumption
            yield section.push(torch.from_numpy(replace_nonfinite(piece.samples, findings)))
        if section is None:
            raise nothing_decoded(self.path, findings)
        self._count(section)
        yield section.flush()

    def _count(self, section: "Section") -> None:
        self.source_length += resampled_length(
            section.taken, section.source.sample_rate, self.source_sample_rate
        )


class Section:
    """Converts a run of samples of one source format to the delivered rate and channels."""

    def __init__(self, source: SourceFormat, sample_rate: int, channels: int) -> None:
        self.source = source
        self.taken = 0  # samples, at the source's own rate
        self._matrix = mixing_matrix(source.channel_names, channels)
        self.assumption = assumption(source.channel_names, channels)
        self._resampler = Resampler(source.sample_rate, sample_rate, channels)

    def push(self, samples: Tensor) -> Tensor:
        """(C, L) of the source -> (C, L') as delivered; L' may be 0."""
        self.taken += samples.shape[1]
        mixed = samples if self._matrix is None else self._matrix @ samples
        return self._resampler.push(mixed)

    def flush(self) -> Tensor:
        """Give the tail, (C, L')."""
        return self._resampler.flush()


def reblock(blocks: Iterable[Tensor], length: int) -> Iterator[Tensor]:
    """Cut blocks (C, L) of any length anew: (C, length) each, the last one shorter, none empty."""
    held: list[Tensor] = []
    count = 0
    for block in blocks:
        held.append(block)
        count += block.shape[1]
        if count >= length:
            joined = torch.cat(held, dim=1)
            whole = count // length * length
            for start in range(0, whole, length):
                yield joined[:, start : start + length].clone()
            held = [joined[:, whole:]]
            count -= whole
    if count:
        yield torch.cat(held, dim=1)


def zip_blocks(
    files: Sequence[AudioFile], length: int, leading: int | None = None
) -> Iterator[Tensor]:
    """Yield blocks (file, C, L) of files of the same rate and channels; only the last is shorter.

    They end with the longest of the first `leading` files, by default of all; a shorter file is
    silent behind its end.
    """
    waiting = [reblock(file, length) for file in files]
    silence = torch.zeros(files[0].channels, 0)
    while True:
        blocks = [next(blocks, silence) for blocks in waiting]
        longest = max(block.shape[-1] for block in blocks[:leading])
        if not longest:
            return
        yield torch.stack([pad_or_trim(block, longest) for block in blocks])


def coalesce(pieces: Iterable[Decoded], seconds: float = 1) -> Iterator[Decoded]:
    """Join frames of the same format to about so many seconds: fewer, larger steps from here on."""
    held: list[NDArray[np.float32]] = []
    count = 0
    source: SourceFormat | None = None
    for piece in pieces:
        if source is not None and (piece.format != source or count >= seconds * source.sample_rate):
            yield Decoded(source, np.concatenate(held, axis=1))
            held, count = [], 0
        source = piece.format
        held.append(piece.samples)
        count += piece.samples.shape[1]
    if source is not None:
        yield Decoded(source, np.concatenate(held, axis=1))


def replace_nonfinite(samples: NDArray[np.float32], findings: Findings) -> NDArray[np.float32]:
    """Replace samples that are no sound by 0, and count them."""
    sound = np.abs(samples) <= LOUDEST  # false of NaN too
    broken = samples.size - int(np.count_nonzero(sound))
    if not broken:
        return samples
    findings.repaired_samples += broken
    return np.where(sound, samples, np.float32(0))
