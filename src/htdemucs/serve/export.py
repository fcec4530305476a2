"""Finished stems in other formats, mixed, or in one file: what can be downloaded."""

import dataclasses
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from htdemucs.audio import Align, AudioEncoding, AudioFile, AudioWriter, zip_blocks
from htdemucs.errors import AudioError, SeparationError
from htdemucs.serve.preview import Samples, Stretched
from htdemucs.stems.output_options import HEADROOM, OutputOptions
from htdemucs.stems.paths import OutputPaths
from htdemucs.stems.writer import OutputFiles, StemWriter

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

BLOCK = 1 << 17  # frames read at a time
CHUNK = 1 << 18  # bytes of a zip file sent at a time


@dataclass(frozen=True)
class Song:
    """A finished track.

    Attributes:
        stems: the file of each stem.
        original: the track's own file; None if it is gone.
        gain: by which the stems were made softer than the network gave them.
        align: as they were aligned.
    """

    stems: Mapping[str, Path]
    original: Path | None = None
    gain: float = 1.0
    align: Align = "start"

    def blocks(self) -> Iterator[Tensor]:
        """Return blocks (S, C, L) at the files' own rate, which all of them share."""
        first = AudioFile(next(iter(self.stems.values())))
        rate, channels = first.sample_rate, first.channels
        paths = self.stems.values()
        files = [AudioFile(path, sample_rate=rate, channels=channels) for path in paths]
        return zip_blocks(files, BLOCK)


@dataclass(frozen=True)
class Mix:
    """What a mixer is set to.

    Attributes:
        gains: factor for each stem that is not at 1; 0 mutes it.
        balances: -1 (left only) to 1 (right only) for each stem that is not in the middle.
        first, last: seconds of the track; None: its end.
        tempo: 2 is twice as fast.
        semitones: of pitch.
    """

    gains: Mapping[str, float] = field(default_factory=dict)
    balances: Mapping[str, float] = field(default_factory=dict)
    first: float = 0.0
    last: float | None = None
    tempo: float = 1.0
    semitones: float = 0.0

    def __post_init__(self) -> None:
        if not (0.5 <= self.tempo <= 2 and abs(self.semitones) <= 12):
            raise SeparationError("tempo must be 0.5 to 2, and pitch -12 to 12 semitones")
        if self.first < 0 or (self.last is not None and self.last <= self.first):
            raise SeparationError("the region's end must lie behind its beginning")
        if not all(0 <= gain <= 8 for gain in self.gains.values()):
            raise SeparationError("gains must be 0 to 8")
        if not all(abs(balance) <= 1 for balance in self.balances.values()):
            raise SeparationError("balances must be -1 to 1")

    def matrix(self, stems: tuple[str, ...], channels: int) -> Tensor:
        """Return the factor of each stem's channel, (S, C, 1).

        Raises:
            SeparationError: it names a stem that is not there.
        """
        if unknown := (self.gains.keys() | self.balances.keys()) - set(stems):
            raise SeparationError(f"no stem {min(unknown)}; there are {', '.join(stems)}")
        factors = torch.tensor([self.gains.get(stem, 1.0) for stem in stems])[:, None, None]
        if channels != 2:
            return factors
        p = torch.tensor([self.balances.get(stem, 0.0) for stem in stems])
        sides = torch.stack([(1 - p).clamp(max=1), (1 + p).clamp(max=1)], dim=1)
        return factors * sides[..., None]


def export_stems(song: Song, options: OutputOptions, paths: OutputPaths) -> dict[str, Path]:
    """Write the stems as `options` says; return the files.

    Raises:
        AudioError: a file cannot be read, or the original is wanted and gone.
        SeparationError: the options do not fit the stems.
    """
    stems = tuple(song.stems)
    options.needed_stems(stems)
    options = dataclasses.replace(options, align=song.align)
    if song.original is None:
        if options.needs_mixture:
            raise AudioError("the track's own file is not there any more; export without it")
        options = dataclasses.replace(options, copy_tags=False)
    first = AudioFile(next(iter(song.stems.values())))
    path = song.original or first.path
    source = AudioFile(
        path, sample_rate=first.sample_rate, channels=first.channels, align=song.align
    )
    for _ in source:  # its length is known at its end
        pass
    files = OutputFiles(stems, source, paths, options, exclusive=True)
    peaks = _write(song, files, song.gain)
    gain = options.gain(max(peaks.values()), files.encoding)
    if gain != 1:  # sums may clip where the stems did not
        _write(song, files, song.gain * gain)
    return files.paths


def _write(song: Song, files: OutputFiles, gain: float) -> dict[str, float]:
    with StemWriter(files, gain) as writer:
        for block in song.blocks():
            writer.write(block / song.gain)
        peaks = writer.finish()
        writer.close()
    return peaks


def export_mix(song: Song, mix: Mix, encoding: AudioEncoding, path: Path) -> None:
    """Write the mixer's sound; softer where it would clip.

    Raises:
        AudioError: a file cannot be read or written.
        SeparationError: the mix names a stem that is not there.
    """
    first = AudioFile(next(iter(song.stems.values())))
    rate, channels = first.sample_rate, first.channels
    peak = max((float(block.abs().max()) for block in _mixed(song, mix, rate, channels)), default=0)
    gain = 1.0 if encoding.is_float else 1 / max(1.0, HEADROOM * peak)
    with AudioWriter(path, rate, channels, encoding) as writer:
        for block in _mixed(song, mix, rate, channels):
            writer.write(gain * block)


def _mixed(song: Song, mix: Mix, rate: int, channels: int) -> Iterator[Tensor]:
    """Yield (C, L), L above 0, of the mix's region at its tempo and pitch."""
    matrix = mix.matrix(tuple(song.stems), channels)
    first = round(mix.first * rate)
    last = None if mix.last is None else round(mix.last * rate)
    blocks = _region(((matrix * block).sum(0) for block in song.blocks()), first, last)
    if mix.tempo == 1 and mix.semitones == 0:
        yield from blocks
        return
    reader = _Forward(blocks, channels)
    stretched = Stretched(reader.read, rate, mix.tempo, mix.semitones)
    start = 0
    while (end := _end(reader, mix.tempo)) is None or start < end:
        sound = stretched.read(start, BLOCK, start + BLOCK)
        if (end := _end(reader, mix.tempo)) is not None:
            sound = sound[:, : max(0, end - start)]
        start += BLOCK
        if sound.shape[1]:
            yield torch.from_numpy(np.ascontiguousarray(sound))


def _end(reader: "_Forward", tempo: float) -> int | None:
    return None if reader.end is None else round(reader.end / tempo)


def _region(blocks: Iterator[Tensor], first: int, last: int | None) -> Iterator[Tensor]:
    start = 0
    for block in blocks:
        end = start + block.shape[-1]
        stop = end if last is None else min(end, last)
        if stop > max(first, start):
            yield block[:, max(first - start, 0) : stop - start]
        if last is not None and end >= last:
            return
        start = end


class _Forward:
    """Blocks as samples at positions that go forward, a little backward too.

    Attributes:
        end: how many frames there are in all; None until it has been reached.
    """

    def __init__(self, blocks: Iterator[Tensor], channels: int) -> None:
        self._blocks = blocks
        self._held: Samples = np.zeros((channels, 0), np.float32)
        self._start = 0
        self.end: int | None = None

    def read(self, start: int, frames: int) -> Samples:
        """Return so many frames; silent before the first and after the last."""
        while self.end is None and self._start + self._held.shape[1] < start + frames:
            block = next(self._blocks, None)
            if block is None:
                self.end = self._start + self._held.shape[1]
            else:
                self._held = np.concatenate([self._held, block.numpy()], axis=1)
        before = max(0, min(-start, frames))
        inside = self._held[:, max(0, start - self._start) : max(0, start + frames - self._start)]
        sound = np.pad(inside, ((0, 0), (before, 0)))[:, :frames]
        sound = np.pad(sound, ((0, 0), (0, frames - sound.shape[1])))
        forget = max(0, start - self._start)
        self._held, self._start = self._held[:, forget:], self._start + forget
        return sound


def zipped(files: Mapping[str, Path]) -> Iterator[bytes]:
    """Yield a zip file of files by the names they get in it, stored, while they are read."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name, path in files.items():
            entry = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
            with path.open("rb") as file, archive.open(entry, "w", force_zip64=True) as target:
                while chunk := file.read(CHUNK):
                    target.write(chunk)
                    yield sink.take()
            yield sink.take()
    yield sink.take()


class _Sink:
    """What a zip file is written to: it cannot go back."""

    def __init__(self) -> None:
        self._held = bytearray()

    def write(self, data: "ReadableBuffer", /) -> int:
        self._held += data
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Do nothing: `take` has all."""

    def close(self) -> None:
        """Do nothing."""

    def take(self) -> bytes:
        taken = bytes(self._held)
        self._held.clear()
        return taken
