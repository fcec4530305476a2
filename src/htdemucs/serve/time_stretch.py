"""Tempo and pitch, each without the other, rendered chunk by chunk while a track is played."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]  # (channels, frames)
ReadSamples = Callable[[int, int], Samples]  # first frame and number; silent outside the track

CHUNK = 4.0  # seconds rendered at a time
MARGIN = 0.15  # seconds rendered around a chunk and discarded
FADE = 0.03  # seconds of the crossfade between two chunks
LAG = 0.012  # seconds by which a chunk may be shifted to fit the previous one
LOOKAHEAD = MARGIN + FADE + 2 * LAG  # seconds of the stretched track needed after a chunk
CACHE_SIZE = 16


class Stretcher:
    """A track at another tempo and pitch.

    Positions count frames of the stretched track: frame n is the track's frame n * tempo. A read
    that starts where the previous one ended continues it without a click. Chunks are rendered
    independently; a chunk is shifted by a few milliseconds to where it fits the previous one best
    and crossfaded with it.

    Args:
        read: reads the track: all channels of all stems, which are stretched together.
        sample_rate: Hz.
        tempo: 2 is twice as fast.
        semitones: of pitch.
    """

    def __init__(self, read: ReadSamples, sample_rate: int, tempo: float, semitones: float) -> None:
        self._read, self._rate = read, sample_rate
        self._tempo, self._semitones = tempo, semitones
        self._position = -1  # of the first buffered sample
        self._buffer: Samples | None = None  # rendered, but not read yet
        self._tail: Samples | None = None  # how the previous chunk continues

    def read(self, start: int, frames: int, end: int) -> Samples:
        """Return `frames` frames from `start` on, or those before `end` if they are fewer."""
        frames = max(0, min(frames, end - start))
        if start != self._position or self._buffer is None:
            self._position, self._buffer, self._tail = start, None, None
        while self._buffer is None or self._buffer.shape[1] < frames:
            first = self._position + (0 if self._buffer is None else self._buffer.shape[1])
            chunk = self._next_chunk(first, min(round(CHUNK * self._rate), end - first))
            self._buffer = (
                chunk if self._buffer is None else np.concatenate([self._buffer, chunk], 1)
            )
        result, self._buffer = self._buffer[:, :frames], self._buffer[:, frames:]
        self._position = start + frames
        return result

    def _next_chunk(self, start: int, length: int) -> Samples:
        """Render a chunk that continues the previous one."""
        fade, lag = round(FADE * self._rate), round(LAG * self._rate)
        samples = self._render(start - lag, lag + length + fade + lag)
        first = lag
        if self._tail is not None:
            first = _best_offset(self._tail.sum(0), samples[:, : 2 * lag + fade].sum(0))
        chunk = samples[:, first : first + length + fade].copy()
        if self._tail is not None:
            rise = np.linspace(0, 1, fade, dtype=np.float32)
            chunk[:, :fade] = rise * chunk[:, :fade] + (1 - rise) * self._tail
        self._tail = chunk[:, length:]
        return chunk[:, :length]

    def _render(self, start: int, frames: int) -> Samples:
        from python_stretch import Signalsmith

        margin = round(MARGIN * self._rate)
        begin = round((start - margin) * self._tempo)
        end = round((start + frames + margin) * self._tempo)
        samples = self._read(begin, end - begin)
        if self._tempo != 1 or self._semitones != 0:
            stretch = Signalsmith.Stretch()
            stretch.preset(len(samples), self._rate)
            stretch.setTimeFactor(self._tempo)
            stretch.setTransposeSemitones(self._semitones)
            samples = np.asarray(stretch.process(np.ascontiguousarray(samples)), np.float32)
        first = start - round(begin / self._tempo)
        samples = samples[:, first : first + frames]
        return np.pad(samples, ((0, 0), (0, frames - samples.shape[1])))


def _best_offset(template: Samples, samples: Samples) -> int:
    """Return where the shorter `template` fits best in `samples`, by normalised correlation."""
    windows = np.lib.stride_tricks.sliding_window_view(samples, len(template))
    energy = np.sqrt(np.square(windows, dtype=np.float64).sum(1)) + 1e-9
    correlation = (windows @ template) / energy
    middle = len(correlation) // 2
    is_better = correlation.max() > correlation[middle] + 1e-9
    return int(correlation.argmax()) if is_better else middle


class StretcherCache:
    """The stretchers of the tracks that are being played, the most recently used ones."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._stretchers: OrderedDict[Hashable, tuple[Lock, Stretcher]] = OrderedDict()

    def read(
        self, key: Hashable, make: Callable[[], Stretcher], start: int, frames: int, end: int
    ) -> Samples:
        """Read from the stretcher with this key, which `make` returns if it is not cached."""
        with self._lock:
            if key not in self._stretchers:
                self._stretchers[key] = Lock(), make()
            self._stretchers.move_to_end(key)
            lock, stretcher = self._stretchers[key]
            while len(self._stretchers) > CACHE_SIZE:
                self._stretchers.popitem(last=False)
        with lock:
            return stretcher.read(start, frames, end)
