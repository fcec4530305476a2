"""Tempo and pitch without each other, for listening: rendered piece by piece as the page asks."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]  # (channels, frames)
Read = Callable[[int, int], Samples]  # first frame, number of frames -> as many; silent outside

PIECE = 4.0  # seconds rendered at once
MARGIN = 0.15  # seconds around a piece that are rendered and not used
FADE = 0.03  # seconds in which a piece takes over from the last one
LAG = 0.012  # seconds by which a piece may be moved to fit the last one
BEYOND = MARGIN + FADE + 2 * LAG  # seconds of the stretched track that are read behind its pieces
MOST_KEPT = 16


class Stretched:
    """A track at another tempo and pitch.

    Positions count frames of the stretched track: frame n is the track's frame n * tempo. Reading
    on where the last read ended gives one unbroken sound. Pieces are rendered by themselves, so
    where one meets the next, the next is moved by a few milliseconds to where it fits best, and
    faded in.

    Args:
        read: reads the track, all channels of all stems; they are stretched together.
        sample_rate: Hz.
        tempo: 2 is twice as fast.
        semitones: of pitch.
    """

    def __init__(self, read: Read, sample_rate: int, tempo: float, semitones: float) -> None:
        self._read, self._rate = read, sample_rate
        self._tempo, self._semitones = tempo, semitones
        self._next = -1  # where the held samples begin
        self._held: Samples | None = None  # rendered, not yet given
        self._tail: Samples | None = None  # how the last piece goes on

    def read(self, start: int, frames: int, end: int) -> Samples:
        """Return so many frames from `start` on, or as many as there are before `end`."""
        frames = max(0, min(frames, end - start))
        if start != self._next or self._held is None:
            self._next, self._held, self._tail = start, None, None
        while self._held is None or self._held.shape[1] < frames:
            first = self._next + (0 if self._held is None else self._held.shape[1])
            piece = self._piece(first, min(round(PIECE * self._rate), end - first))
            self._held = piece if self._held is None else np.concatenate([self._held, piece], 1)
        given, self._held = self._held[:, :frames], self._held[:, frames:]
        self._next = start + frames
        return given

    def _piece(self, start: int, length: int) -> Samples:
        """Render the next piece so that it goes on where the last one ended."""
        fade, lag = round(FADE * self._rate), round(LAG * self._rate)
        sound = self._render(start - lag, lag + length + fade + lag)
        first = lag
        if self._tail is not None:
            first = _best_fit(self._tail.sum(0), sound[:, : 2 * lag + fade].sum(0))
        piece = sound[:, first : first + length + fade].copy()
        if self._tail is not None:
            rise = np.linspace(0, 1, fade, dtype=np.float32)
            piece[:, :fade] = rise * piece[:, :fade] + (1 - rise) * self._tail
        self._tail = piece[:, length:]
        return piece[:, :length]

    def _render(self, start: int, frames: int) -> Samples:
        from python_stretch import Signalsmith

        margin = round(MARGIN * self._rate)
        begin = round((start - margin) * self._tempo)
        end = round((start + frames + margin) * self._tempo)
        sound: Samples = self._read(begin, end - begin)
        if self._tempo != 1 or self._semitones != 0:
            stretch = Signalsmith.Stretch()
            stretch.preset(len(sound), self._rate)
            stretch.setTimeFactor(self._tempo)
            stretch.setTransposeSemitones(self._semitones)
            sound = np.asarray(stretch.process(np.ascontiguousarray(sound)), np.float32)
        first = start - round(begin / self._tempo)
        sound = sound[:, first : first + frames]
        return np.pad(sound, ((0, 0), (0, frames - sound.shape[1])))


def _best_fit(wanted: Samples, sound: Samples) -> int:
    """Return where in `sound` the shorter `wanted` fits best, by normalised correlation."""
    windows = np.lib.stride_tricks.sliding_window_view(sound, len(wanted))
    energy = np.sqrt(np.square(windows, dtype=np.float64).sum(1)) + 1e-9
    fit = (windows @ wanted) / energy
    middle = len(fit) // 2
    return int(fit.argmax()) if fit.max() > fit[middle] + 1e-9 else middle


class Stretchers:
    """The stretched tracks that people listen to now."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: OrderedDict[Hashable, tuple[Lock, Stretched]] = OrderedDict()

    def read(
        self, key: Hashable, make: Callable[[], Stretched], start: int, frames: int, end: int
    ) -> Samples:
        """Read from the stretched track that is kept under this key; else it is made."""
        with self._lock:
            if key not in self._kept:
                self._kept[key] = Lock(), make()
            self._kept.move_to_end(key)
            busy, stretched = self._kept[key]
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        with busy:
            return stretched.read(start, frames, end)
