"""FFmpeg through PyAV: its errors as one line of text, and its frames as float32 samples."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.stream import AudioStream
from numpy.typing import NDArray

from htdemucs.audio.convert import UNKNOWN_CHANNEL
from htdemucs.errors import DISK_FULL, AudioError, reason
from htdemucs.fsutil import is_disk_full


def display_path(path: Path | str) -> str:
    """Return a path or URL for a one-line message, whatever bytes its name holds."""
    text = str(path).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(character if character.isprintable() else "?" for character in text)


@contextmanager
def audio_errors(path: Path, problem: str, remedy: str, *, writes: bool = False) -> Iterator[None]:
    """Raise errors of FFmpeg and the system as AudioError "<path> <problem> (<reason>); <remedy>".

    Use it as a context manager. With `writes` the error does not mean that a track is unreadable.
    """
    try:
        yield
    except (av.FFmpegError, OSError, ValueError) as error:
        raised = AudioError(f"{display_path(path)} {problem} ({reason(error)}); {remedy}")
        if is_disk_full(error):
            raised.code = DISK_FULL
        elif writes:
            raised.code = None
        raise raised from error


class SourceFormat(NamedTuple):
    """Sample rate and channels of decoded samples."""

    sample_rate: int
    channel_names: tuple[str, ...]  # FFmpeg's: FL, FR, FC, LFE, …; NONE if unknown


class DecodedFrame(NamedTuple):
    """Samples of one frame of FFmpeg, (C, L) float32, and its timestamp in seconds."""

    format: SourceFormat
    samples: NDArray[np.float32]
    start: float | None = None

    @property
    def seconds(self) -> float:
        """The duration."""
        return self.samples.shape[1] / self.format.sample_rate

    def before(self, end: float) -> "DecodedFrame":
        """Return what lies before `end`, in seconds; all of it if `end` is not inside."""
        if self.start is None:
            return self
        length = round((end - self.start) * self.format.sample_rate)
        return self._replace(samples=self.samples[:, :length]) if length > 0 else self


def to_decoded_frame(frame: AudioFrame, stream_names: tuple[str, ...]) -> DecodedFrame | None:
    """Return a frame's samples; None if they cannot be converted.

    `stream_names` are the channel names for frames that have none.
    """
    names, _ = _channel_names(frame.layout)
    if set(names) == {UNKNOWN_CHANNEL} and len(names) == len(stream_names):
        names = stream_names
    try:
        samples = _to_float32(frame)
    except (av.FFmpegError, ValueError):
        return None
    start = None
    if frame.pts is not None and frame.time_base is not None:
        start = float(frame.pts * frame.time_base)
    return DecodedFrame(SourceFormat(frame.sample_rate, names), samples, start)


def keep_channel_order(stream: AudioStream) -> tuple[str, ...]:
    """Return the stream's channel names; if their order is unusual, its frames come without names.

    PyAV 18 frees the list of an unusual order once for each object that describes it, though the
    list belongs to the decoder or the frame: the process would crash.
    """
    names, is_unusual = _channel_names(stream.codec_context.layout)
    if is_unusual:
        stream.codec_context.options = {"ch_layout": f"{len(names)} channels"}
    return names


def _channel_names(layout: AudioLayout) -> tuple[tuple[str, ...], bool]:
    is_unusual = " channels (" in layout.name
    if is_unusual:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(layout))  # so that it never frees the list
    return tuple(channel.name for channel in layout.channels), is_unusual


# PyAV 18 looks for a null pointer after a frame's last plane, and FFmpeg writes none from 8 on:
# reading the planes of such a frame reads memory behind them, and crashes.
_UNSAFE_PLANES = 8
_NUMPY_FORMATS = frozenset({"u8", "s16", "s32", "flt", "dbl"})  # sample formats PyAV can convert


def _to_float32(frame: AudioFrame) -> NDArray[np.float32]:
    """(C, L) float32; an integer x of b bits becomes x / 2^(b-1), exactly up to 24 bits."""
    packed_format = frame.format.name.removesuffix("p")
    if packed_format not in _NUMPY_FORMATS:
        [frame] = av.AudioResampler(format="dbl").resample(frame)
        packed_format = "dbl"
    elif frame.format.is_planar and frame.layout.nb_channels >= _UNSAFE_PLANES:
        [frame] = av.AudioResampler(format=packed_format).resample(frame)
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(frame.samples, -1).T
    with np.errstate(over="ignore", invalid="ignore"):
        samples = values.astype(np.float32)
    match packed_format:
        case "u8":
            return (samples - 128) / np.float32(2**7)
        case "s16":
            return samples / np.float32(2**15)
        case "s32":
            return samples / np.float32(2**31)
    return samples
