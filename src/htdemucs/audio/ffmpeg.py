"""Turning what the operating system and FFmpeg report into one plain line.

MERGED: FFmpeg's frames as arrays of float32 samples.
"""

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

from htdemucs.audio.convert import NO_NAME
from htdemucs.errors import AudioError


def printable(path: Path) -> str:
    """Make a path fit for a one-line message, whatever bytes its name holds."""
    text = str(path).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(character if character.isprintable() else "?" for character in text)


def reason(error: Exception) -> str:
    """Say what went wrong, without the error's number and the paths it repeats."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


@contextmanager
def reporting(path: Path, problem: str, remedy: str) -> Iterator[None]:
    """Raise what FFmpeg or the system refuses as "<path> <problem> (<reason>); <remedy>"."""
    try:
        yield
    except (av.FFmpegError, OSError, ValueError) as error:
        raise AudioError(f"{printable(path)} {problem} ({reason(error)}); {remedy}") from error


# PyAV 18 looks for a null pointer after a frame's last plane, and FFmpeg writes none from 8 on:
# asking such a frame for its planes reads, and crashes on, memory that is not its own.
_UNSAFE_PLANES = 8
_ARRAYS = frozenset({"u8", "s16", "s32", "flt", "dbl"})  # sample formats that PyAV hands over


class SourceFormat(NamedTuple):
    """Sample rate and channels of decoded samples."""

    sample_rate: int
    channel_names: tuple[str, ...]  # FFmpeg's: FL, FR, FC, LFE, …; NONE where it is not known


class Decoded(NamedTuple):
    """Samples of one frame, (C, L) float32, and their time in the file in seconds."""

    format: SourceFormat
    samples: NDArray[np.float32]
    start: float | None = None

    @property
    def seconds(self) -> float:
        """Return how long they last."""
        return self.samples.shape[1] / self.format.sample_rate

    def before(self, end: float) -> "Decoded":
        """Return what is before `end`, in seconds; all of it if `end` is not inside."""
        if self.start is None:
            return self
        length = round((end - self.start) * self.format.sample_rate)
        return self._replace(samples=self.samples[:, :length]) if length > 0 else self


def decoded(frame: AudioFrame, stream_names: tuple[str, ...]) -> Decoded | None:
    """Return a frame's samples; None if they cannot be converted.

    `stream_names` are the channel names where the frame itself has none.
    """
    names, _ = _channel_names(frame.layout)
    if set(names) == {NO_NAME} and len(names) == len(stream_names):
        names = stream_names
    try:
        samples = _samples(frame)
    except (av.FFmpegError, ValueError):
        return None
    start = None
    if frame.pts is not None and frame.time_base is not None:
        start = float(frame.pts * frame.time_base)
    return Decoded(SourceFormat(frame.sample_rate, names), samples, start)


def keep_channel_order(stream: AudioStream) -> tuple[str, ...]:
    """Return the stream's channel names; let its frames come without them if they are unusual.

    PyAV 18 frees the list of an unusual order once for each object that describes it, though the
    list is the decoder's or the frame's own: the process would crash.
    """
    names, is_unusual = _channel_names(stream.codec_context.layout)
    if is_unusual:
        stream.codec_context.options = {"ch_layout": f"{len(names)} channels"}
    return names


def _channel_names(layout: AudioLayout) -> tuple[tuple[str, ...], bool]:
    is_unusual = " channels (" in layout.name
    if is_unusual:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(layout))  # it shall never free anything
    return tuple(channel.name for channel in layout.channels), is_unusual


def _samples(frame: AudioFrame) -> NDArray[np.float32]:
    """(C, L) float32; an integer of b bits x becomes x / 2^(b-1), exactly up to 24 bits."""
    kind = frame.format.name.removesuffix("p")
    if kind not in _ARRAYS:
        [frame] = av.AudioResampler(format="dbl").resample(frame)
        kind = "dbl"
    elif frame.format.is_planar and frame.layout.nb_channels >= _UNSAFE_PLANES:
        [frame] = av.AudioResampler(format=kind).resample(frame)
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(frame.samples, -1).T
    with np.errstate(over="ignore", invalid="ignore"):
        samples = values.astype(np.float32)
    match kind:
        case "u8":
            return (samples - 128) / np.float32(2**7)
        case "s16":
            return samples / np.float32(2**15)
        case "s32":
            return samples / np.float32(2**31)
    return samples
