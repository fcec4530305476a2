"""Where samples are missing on a file's own clock: before the first one, and in between."""

from typing import Literal

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition, Stream

from htdemucs.audio.findings import NOTABLE, Findings

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
