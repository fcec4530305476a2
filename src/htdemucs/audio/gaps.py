"""Missing samples by the timestamps of a file: before its first sample, and in between."""

from collections.abc import Iterator
from typing import Literal

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition

from htdemucs.audio.decode_report import TOLERANCE, DecodeReport
from htdemucs.audio.ffmpeg import DecodedFrame

Align = Literal["start", "video"]

# Containers that store the time of each packet; for others FFmpeg counts samples or bytes.
_TIMESTAMPED = ("flv", "matroska", "mov", "mpegts")
_RESET = 1.0  # seconds: timestamps that go back further were restarted
_TRANSPORT_RESET = 10.0  # seconds: transport streams may also jump forward; FFmpeg's limit
_MAX_TIME = 24 * 3600.0  # seconds: later timestamps are taken for damage
_DURATION_ERROR = 10.0  # seconds by which the duration in a header may be too short


def fill_gaps(
    frames: Iterator[DecodedFrame],
    container: InputContainer,
    stream: AudioStream,
    report: DecodeReport,
    *,
    fill: bool,
) -> Iterator[DecodedFrame]:
    """Yield the frames, and if `fill` is set, silence where samples are missing.

    What is missing is added to the report in either case.
    """
    detector = GapDetector(container, stream, report)
    for frame in frames:
        missing = detector.missing_before(frame)
        if fill:
            rate, channels = frame.format.sample_rate, len(frame.format.channel_names)
            length = round(missing * rate)
            for start in range(0, length, rate):
                silence = np.zeros((channels, min(rate, length - start)), np.float32)
                yield DecodedFrame(frame.format, silence)
        yield frame


class GapDetector:
    """Compares the timestamps of frames with the number of samples before them.

    Time 0 is where the video or the audio begins, whichever is first; without video, where the
    audio begins. Encoder delay that the file declares is not counted.
    """

    def __init__(
        self, container: InputContainer, stream: AudioStream, report: DecodeReport
    ) -> None:
        name = container.format.name
        self._is_timestamped = name.startswith(_TIMESTAMPED)
        self._max_jump = _TRANSPORT_RESET if name.startswith("mpegts") else _MAX_TIME
        self._max_time = _MAX_TIME
        if container.duration is not None:
            self._max_time = min(container.duration / av.time_base + _DURATION_ERROR, _MAX_TIME)
        self._origin = _first_timestamp(container, stream)
        self._elapsed = 0.0  # seconds of samples and of silence so far
        self._previous_end: float | None = None  # the time at which the previous frame ended
        self._report = report

    def missing_before(self, frame: DecodedFrame) -> float:
        """Return the seconds without samples between the previous frame and this one."""
        missing, start = 0.0, frame.start
        if start is None:
            start = self._previous_end
        elif self._previous_end is None:
            missing = self._before_first(start)
        else:
            missing = self._between(self._previous_end, start)
        self._elapsed += missing + frame.seconds
        self._previous_end = None if start is None else start + frame.seconds
        return missing

    def _before_first(self, start: float) -> float:
        if self._origin is None:
            self._origin = start
        late = start - self._origin
        if not 0 < late <= self._max_time:
            self._origin = start
            return 0.0
        self._report.late += late
        return late

    def _between(self, end: float, start: float) -> float:
        origin = start if self._origin is None else self._origin
        jump, missing = start - end, start - origin - self._elapsed
        if not self._is_timestamped or min(jump, missing) <= TOLERANCE:
            if jump < -_RESET:
                self._origin = start - self._elapsed
            return 0.0
        if jump > self._max_jump or start - origin > self._max_time:
            self._origin = start - self._elapsed
            return 0.0
        self._report.gaps += missing
        return missing


def _first_timestamp(container: InputContainer, stream: AudioStream) -> float | None:
    """Return when the video or the audio begins, in seconds; None without video."""
    videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not videos:
        return None
    starts = [
        float(s.start_time * s.time_base)
        for s in (videos[0], stream)
        if s.start_time is not None and s.time_base is not None
    ]
    return min(starts, default=None)
