"""The preview of a track: what can be heard of its lanes, on disk, filled in any order.

MERGED: Filling the previews of tracks whose files are there already, by decoding these.
MERGED: A picture of a lane: mel bands over columns.
MERGED: Tempo and pitch without each other, for listening: rendered piece by piece as the page asks.
"""

import logging
import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from functools import cache
from pathlib import Path
from queue import Queue
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from htdemucs.audio import AudioFile, zip_blocks
from htdemucs.audio.encoding import to_int16
from htdemucs.errors import AudioError, HTDemucsError
from htdemucs.fast import use_this_thread_only
from htdemucs.fsutil import fresh_folder
from htdemucs.serve.db import TRACKS, Tracks, Values
from htdemucs.serve.settings import Settings

COLUMN = 1024  # frames that share a peak
Frames16 = NDArray[np.int16]


class Preview:
    """16-bit samples of a track's lanes: its stems, then the original.

    A folder with a file for each lane (frame by frame, channel by channel) and one of peaks (column
    by column, lane by lane, minimum and maximum as int8). What was not written reads as silence.

    Args:
        folder: of this preview.
        lanes: number of stems, plus one.
        channels: of each lane.
    """

    def __init__(self, folder: Path, lanes: int, channels: int) -> None:
        self.folder, self.lanes, self.channels = folder, lanes, channels

    def clear(self) -> None:
        """Begin anew, with nothing."""
        fresh_folder(self.folder)

    def write(self, lane: int, start: int, waveform: Tensor) -> None:
        """Put (C, L) into a lane from frame `start` on."""
        samples = to_int16(waveform.numpy()).T
        _write(self._lane(lane), 2 * self.channels * start, samples.astype("<i2").tobytes())

    def draw(self, start: int, stop: int) -> None:
        """Write the peaks of the frames [start, stop), which are in all lanes."""
        first = start // COLUMN
        columns = -(-stop // COLUMN) - first
        samples = self.read(range(self.lanes), first * COLUMN, columns * COLUMN) >> 8
        shaped = samples.reshape(columns, COLUMN, self.lanes, self.channels)
        peaks = np.stack([shaped.min((1, 3)), shaped.max((1, 3))], axis=-1).astype(np.int8)
        _write(self.folder / "peaks", 2 * self.lanes * first, peaks.tobytes())

    def read(self, lanes: "range | list[int]", start: int, frames: int) -> Frames16:
        """Return (L, lane, C) of the lanes from frame `start` on."""
        size = 2 * self.channels
        whole = np.zeros((frames, len(lanes), self.channels), "<i2")
        for place, lane in enumerate(lanes):
            data = _read(self._lane(lane), size * start, size * frames)
            samples = np.frombuffer(data[: len(data) // size * size], "<i2")
            whole[: len(samples) // self.channels, place] = samples.reshape(-1, self.channels)
        return whole

    def peaks(self, start: int, columns: int) -> bytes:
        """Return the peaks of these columns: int8 [column][lane][minimum, maximum]."""
        size = 2 * self.lanes
        return _read(self.folder / "peaks", size * start, size * columns).ljust(
            size * columns, b"\0"
        )

    def _lane(self, lane: int) -> Path:
        return self.folder / f"{lane}.pcm"


def _write(path: Path, position: int, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0)), "wb") as f:
        f.seek(position)
        f.write(data)


def _read(path: Path, position: int, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(position)
            return file.read(size)
    except FileNotFoundError:  # deleted, or not begun
        return b""


LOG = logging.getLogger(__name__)
CHANNELS = 2
SECONDS = 5  # of a step


class PreviewBuilder:
    """Fills one preview after another in a thread of its own."""

    def __init__(self, settings: Settings, tracks: Tracks) -> None:
        self._settings, self._tracks = settings, tracks
        self._asked: set[str] = set()
        self._queue: Queue[str | None] = Queue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def ask(self, row: Values) -> None:
        """Have a track's preview filled, if it is not."""
        folder, whole = self._settings.previews / row["id"], [[0, row["frames"]]]
        if row["ranges"] == whole and folder.is_dir():
            os.utime(folder)  # those listened to least recently go first
            return
        with self._lock:
            if row["id"] in self._asked:
                return
            self._asked.add(row["id"])
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="filler", daemon=True)
                self._thread.start()
        self._queue.put(row["id"])

    def stop(self) -> None:
        """End the thread after the preview that it is filling."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread:
            self._queue.put(None)
            thread.join(10)

    def _work(self) -> None:
        use_this_thread_only()
        while (track := self._queue.get()) is not None:
            try:
                self.fill(track)
            except AudioError as error:  # not tried again
                self._tracks.change(track, error=self._settings.without_folders(str(error)))
                continue
            except (HTDemucsError, FileNotFoundError):  # it was deleted
                pass
            except Exception:
                LOG.exception("no preview of %s", track)
            with self._lock:
                self._asked.discard(track)

    def fill(self, track: str) -> None:
        """Decode a track's files into its preview.

        Raises:
            AudioError: one of them cannot be read.
            NotFoundError: the track was deleted.
        """
        row = self._tracks.row(track)
        preview = Preview(self._settings.previews / track, len(row["stems"]) + 1, CHANNELS)
        preview.clear()
        self.make_room(track)
        condition = TRACKS.c.state == row["state"]
        rate = row["sample_rate"] or AudioFile(row["path"]).source_sample_rate
        self._tracks.change(track, condition, ranges=[], channels=CHANNELS, sample_rate=rate)
        frames = 0
        for frames in decode(row, rate, preview):
            if not self._tracks.change(track, condition, ranges=[[0, frames]]):
                return  # deleted, or being separated now
        self._tracks.change(track, condition, frames=frames)

    def make_room(self, keep: str) -> None:
        """Remove the previews listened to least recently, until there is room for another."""
        folders = [path for path in self._settings.previews.iterdir() if path.is_dir()]
        sizes = {path: sum(f.stat().st_size for f in path.glob("*.pcm")) for path in folders}
        total = sum(sizes.values())
        for path in sorted(folders, key=lambda path: path.stat().st_mtime):
            if total <= self._settings.limits.preview_bytes:
                return
            if path.name != keep and self._tracks.change(
                path.name, TRACKS.c.state.in_(("finished", "found")), ranges=[]
            ):
                shutil.rmtree(path, ignore_errors=True)
                total -= sizes[path]


def decode(row: Values, rate: int, preview: Preview) -> Iterator[int]:
    """Write a track's files into its preview; yield how many frames are in it by now."""
    frames = 0
    for lanes in _lanes(row, rate):
        for lane, waveform in enumerate(lanes):
            preview.write(lane, frames, waveform)
        frames += lanes.shape[-1]
        preview.draw(frames - lanes.shape[-1], frames)
        yield frames


def _lanes(row: Values, rate: int) -> Iterator[Tensor]:
    """Yield (stem..., original; C, L) of a track's files; without its own file, the stems' sum."""
    stems = [row["files"][stem]["path"] for stem in row["stems"]]
    own = [row["path"]] if row["path"] and Path(row["path"]).is_file() else []
    if not stems and not own:  # a file for DJ programs begins with the mixture
        own = [file["path"] for file in row["files"].values()][:1]
    files = [AudioFile(path, sample_rate=rate, channels=CHANNELS) for path in (*stems, *own)]
    for lanes in zip_blocks(files, SECONDS * rate, len(stems) or 1) if files else ():
        yield lanes if own else torch.cat([lanes, lanes.sum(0, keepdim=True)])


BANDS = 96
N_FFT = 4096
FLOOR = -90.0  # dB, the darkest value
TOGETHER = 128  # columns transformed at a time, which bounds the memory
LOWEST = 30.0  # Hz
LOOKS = 4  # windows in a column that stands for many
TOGETHER_WIDE = 4096  # columns of COLUMN frames read at a time
ReadFrames = Callable[[int, int], NDArray[np.int16]]


def wide_spectrogram(
    read: ReadFrames, sample_rate: int, start: int, columns: int, step: int
) -> NDArray[np.uint8]:
    """Return (columns, BANDS) of columns `step` times as wide, each as loud as its loudest.

    Args:
        read: gives (L, C) from a frame on.
        sample_rate: of the samples.
        start: the first column.
        columns: how many.
        step: a power of two; of wide columns only LOOKS places are looked at.
    """
    every = max(1, step // LOOKS)
    looks = step // every
    together = max(1, TOGETHER_WIDE // step)
    parts = []
    for first in range(start, start + columns, together):
        count = min(together, start + columns - first)
        begin = first * step * COLUMN - BEFORE
        missing = max(0, -begin)
        samples = read(begin + missing, frames_around(count * looks, every) - missing)
        bands = spectrogram(samples, sample_rate, count * looks, missing, every)
        parts.append(bands.reshape(count, looks, BANDS).max(1))
    return np.concatenate(parts)


def spectrogram(
    samples: NDArray[np.int16], sample_rate: int, columns: int, missing: int = 0, every: int = 1
) -> NDArray[np.uint8]:
    """(L, C) -> (columns, BANDS); 0 is -90 dB or less, 255 a sine at full scale.

    Of the columns only each `every`-th is there.

    The samples begin `BEFORE` frames before the first column and are `frames_around(columns,
    every)`, of which the first `missing` lie before the track and are left out.
    """
    mono = np.pad(samples.astype(np.float32).mean(1) / (1 << 15), (missing, 0))
    windows = np.lib.stride_tricks.sliding_window_view(mono, N_FFT)[:: every * COLUMN][:columns]
    parts = [windows[first : first + TOGETHER] for first in range(0, columns, TOGETHER)]
    power = np.concatenate([_power(part) @ _bands(sample_rate) for part in parts])
    decibels = 10 * np.log10(np.maximum(power, 1e-12))
    scaled = 255 * (1 - decibels / FLOOR)
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)


def _power(windows: NDArray[np.float32]) -> NDArray[Any]:
    """(column, N_FFT) -> (column, bin); a sine at full scale has 1."""
    window = np.hanning(N_FFT).astype(np.float32)
    return np.square(np.abs(np.fft.rfft(windows * window)) * (2 / window.sum()))


BEFORE = (N_FFT - COLUMN) // 2  # frames before a column that its window reaches


def frames_around(columns: int, every: int = 1) -> int:
    """Return how many frames the windows of so many columns span, each `every`-th being there."""
    return (columns - 1) * every * COLUMN + N_FFT


@cache
def _bands(sample_rate: int) -> NDArray[Any]:
    """Return triangles over bins, (bin, band), equally wide in mel; no band is without a bin."""
    frequencies = np.fft.rfftfreq(N_FFT, 1 / sample_rate)
    edges = _hertz(np.linspace(_mel(LOWEST), _mel(sample_rate / 2), BANDS + 2))
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising = (frequencies[:, None] - low) / (centre - low)
    falling = (high - frequencies[:, None]) / (high - centre)
    weights = np.clip(np.minimum(rising, falling), 0, None)
    nearest = np.abs(frequencies[:, None] - centre).argmin(0)
    weights[nearest, np.arange(BANDS)] = np.maximum(weights[nearest, np.arange(BANDS)], 0.5)
    return weights.astype(np.float32)


def _mel(hertz: float) -> float:
    return float(2595 * np.log10(1 + hertz / 700))


def _hertz(mel: NDArray[Any]) -> NDArray[Any]:
    return 700 * (10 ** (mel / 2595) - 1)


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
