"""Downloads made from a finished track: its stems in other formats, a mix, or a zip file."""

import dataclasses
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from htdemucs.audio import (
    Align,
    AudioEncoding,
    AudioFile,
    AudioWriter,
    Tags,
    read_tags,
    remove_tags,
    write_tags,
    zip_blocks,
)
from htdemucs.errors import AudioError, SeparationError
from htdemucs.serve.jobs import JobCancelledError
from htdemucs.serve.time_stretch import Samples, Stretcher
from htdemucs.stems.output_options import HEADROOM, OutputOptions
from htdemucs.stems.paths import OutputPaths
from htdemucs.stems.writer import OutputFiles, StemWriter

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

BLOCK = 1 << 17  # frames read at a time
ZIP_BLOCK = 1 << 18  # bytes of a zip file sent at a time


@dataclass(frozen=True)
class FinishedTrack:
    """The files of a finished track.

    Attributes:
        stems: the file of each stem; all have the same rate, channels and length.
        original: the track's own file; None if it is gone.
        gain: factor that the stems were multiplied with so that none clips.
        align: how the stems were aligned.
        edits: title, artist and album that replace those of the tags; empty ones remove them.
        is_cancelled: whether the files are not needed any more.
        on_frames: called with the number of frames that were read.
    """

    stems: Mapping[str, Path]
    original: Path | None = None
    gain: float = 1.0
    align: Align = "start"
    edits: Mapping[str, str] = field(default_factory=dict)
    is_cancelled: Callable[[], bool] = lambda: False
    on_frames: Callable[[int], None] = lambda _: None

    def first(self) -> AudioFile:
        """Return the first stem."""
        return AudioFile(next(iter(self.stems.values())))

    def edited(self, tags: Tags) -> Tags:
        """Return tags with the edits; the names to sort edited texts by are left out."""
        fields = {n: v for n, v in tags.fields.items() if n.removesuffix("sort") not in self.edits}
        new = {name: [text] for name, text in self.edits.items() if text}
        return dataclasses.replace(tags, fields=fields | new)

    def blocks(self) -> Iterator[Tensor]:
        """Yield blocks (S, C, L).

        Raises:
            JobCancelledError: the files are not needed any more.
        """
        first = self.first()
        files = [
            AudioFile(path, sample_rate=first.sample_rate, channels=first.channels)
            for path in self.stems.values()
        ]
        for block in zip_blocks(files, BLOCK):
            if self.is_cancelled():
                raise JobCancelledError("the client has left")
            yield block
            self.on_frames(block.shape[-1])


# Stems


def export_stems(
    track: FinishedTrack, options: OutputOptions, paths: OutputPaths
) -> dict[str, Path]:
    """Write the stems as `options` says; return the files.

    Raises:
        AudioError: a file cannot be read, or the original is needed and gone.
        SeparationError: the options do not fit the stems.
    """
    stems = tuple(track.stems)
    options.needed_stems(stems)
    options = dataclasses.replace(options, align=track.align)
    if track.original is None:
        if options.needs_mixture:
            raise AudioError("the track's own file does not exist any more; export without it")
        options = dataclasses.replace(options, copy_tags=False)
    first = track.first()
    source = AudioFile(
        track.original or first.path,
        sample_rate=first.sample_rate,
        channels=first.channels,
        align=track.align,
    )
    for _ in source:  # decodes it to its end, where its length becomes known
        pass
    files = OutputFiles(stems, source, paths, options, exclusive=True)
    files.tags = track.edited(files.tags)

    def write(gain: float) -> dict[str, float]:
        with StemWriter(files, gain) as writer:
            for block in track.blocks():
                writer.write(block / track.gain)
            peaks = writer.finish()
            writer.close()
        return peaks

    peaks = write(track.gain)
    gain = options.gain(max(peaks.values()), files.encoding)
    if gain != 1:  # sums of stems may clip where the stems did not
        write(track.gain * gain)
    return files.paths


def copy_stems(track: FinishedTrack, folder: Path) -> dict[str, Path]:
    """Copy the stems as they are, but with the edits in their tags; return the copies.

    Raises:
        AudioError: a copy cannot be written.
        JobCancelledError: the files are not needed any more.
    """
    copies = {}
    for stem, path in track.stems.items():
        if track.is_cancelled():
            raise JobCancelledError("the client has left")
        copies[stem] = copy = folder / f"{stem}{path.suffix}"
        shutil.copyfile(path, copy)
        title = track.edits.get("title")
        suffixed = {"title": f"{title} ({stem})"} if title else {}
        tags = dataclasses.replace(track, edits={**track.edits, **suffixed}).edited(read_tags(path))
        remove_tags(copy)
        write_tags(tags, copy, format=path.suffix.lower()[1:])
    return copies


# Mixes


@dataclass(frozen=True)
class Mix:
    """The settings of the page's mixer.

    Attributes:
        gains: factor of each stem; stems that are missing have 1, and 0 mutes a stem.
        balances: from -1 (left only) to 1 (right only); stems that are missing have 0.
        first, last: the region in seconds; last None: to the end.
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
            raise SeparationError("the region's end must be after its beginning")
        if not all(0 <= gain <= 8 for gain in self.gains.values()):
            raise SeparationError("gains must be 0 to 8")
        if not all(abs(balance) <= 1 for balance in self.balances.values()):
            raise SeparationError("balances must be -1 to 1")

    def matrix(self, stems: tuple[str, ...], channels: int) -> Tensor:
        """Return the factor of each channel of each stem, (S, C, 1), or (S, 1, 1) unless stereo.

        Raises:
            SeparationError: the mix names a stem that the track does not have.
        """
        if unknown := (self.gains.keys() | self.balances.keys()) - set(stems):
            raise SeparationError(f"no stem {min(unknown)}; there are {', '.join(stems)}")
        gains = torch.tensor([self.gains.get(stem, 1.0) for stem in stems])[:, None, None]
        if channels != 2:
            return gains
        balance = torch.tensor([self.balances.get(stem, 0.0) for stem in stems])
        sides = torch.stack([(1 - balance).clamp(max=1), (1 + balance).clamp(max=1)], dim=1)
        return gains * sides[..., None]


def export_mix(
    track: FinishedTrack, mix: Mix, encoding: AudioEncoding, path: Path, title_suffix: str
) -> None:
    """Write a mix, softer if it would clip, with the tags of the track.

    A title "Song" becomes "Song (title_suffix)".

    Raises:
        AudioError: a file cannot be read or written.
        SeparationError: the mix names a stem that the track does not have.
    """
    first = track.first()
    rate, channels = first.sample_rate, first.channels
    blocks = _mix_blocks(track, mix, rate, channels)
    peak = max((float(block.abs().max()) for block in blocks), default=0)
    gain = 1.0 if encoding.is_float else 1 / max(1.0, HEADROOM * peak)
    with AudioWriter(path, rate, channels, encoding) as writer:
        for block in _mix_blocks(track, mix, rate, channels):
            writer.write(gain * block)
    tags = track.edited(Tags() if track.original is None else read_tags(track.original))
    write_tags(tags, path, format=encoding.format, title_suffix=title_suffix)


def _mix_blocks(track: FinishedTrack, mix: Mix, rate: int, channels: int) -> Iterator[Tensor]:
    """Yield non-empty blocks (C, L) of the mix's region at its tempo and pitch."""
    matrix = mix.matrix(tuple(track.stems), channels)
    first = round(mix.first * rate)
    last = None if mix.last is None else round(mix.last * rate)
    blocks = _cut(((matrix * block).sum(0) for block in track.blocks()), first, last)
    if mix.tempo == 1 and mix.semitones == 0:
        yield from blocks
        return
    reader = _ForwardReader(blocks, channels)
    stretcher = Stretcher(reader.read, rate, mix.tempo, mix.semitones)
    start = 0
    end: int | None = None
    while end is None or start < end:
        samples = stretcher.read(start, BLOCK, start + BLOCK)
        if reader.end is not None:
            end = round(reader.end / mix.tempo)
            samples = samples[:, : max(0, end - start)]
        start += BLOCK
        if samples.shape[1]:
            yield torch.from_numpy(np.ascontiguousarray(samples))


def _cut(blocks: Iterator[Tensor], first: int, last: int | None) -> Iterator[Tensor]:
    """Yield the parts of the blocks that are in [first, last)."""
    start = 0
    for block in blocks:
        end = start + block.shape[-1]
        stop = end if last is None else min(end, last)
        if stop > max(first, start):
            yield block[:, max(first - start, 0) : stop - start]
        if last is not None and end >= last:
            return
        start = end


class _ForwardReader:
    """Reads blocks by position; each read starts at or after the start of the previous one.

    Attributes:
        end: total number of frames; None until a read has reached it.
    """

    def __init__(self, blocks: Iterator[Tensor], channels: int) -> None:
        self._blocks = blocks
        self._buffer: Samples = np.zeros((channels, 0), np.float32)
        self._start = 0  # position of the buffer
        self.end: int | None = None

    def read(self, start: int, frames: int) -> Samples:
        """Return this many frames; silent before the first and after the last."""
        while self.end is None and self._start + self._buffer.shape[1] < start + frames:
            block = next(self._blocks, None)
            if block is None:
                self.end = self._start + self._buffer.shape[1]
            else:
                self._buffer = np.concatenate([self._buffer, block.numpy()], axis=1)
        before = max(0, min(-start, frames))
        first = max(0, start - self._start)
        inside = self._buffer[:, first : max(0, start + frames - self._start)]
        samples = np.pad(inside, ((0, 0), (before, 0)))[:, :frames]
        samples = np.pad(samples, ((0, 0), (0, frames - samples.shape[1])))
        self._buffer, self._start = self._buffer[:, first:], self._start + first
        return samples


# Zip files


def zip_stream(files: Mapping[str, Path]) -> Iterator[bytes]:
    """Yield a zip file block by block while its entries, given by their names, are read."""
    sink = _ZipSink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name, path in files.items():
            entry = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
            with path.open("rb") as file, archive.open(entry, "w", force_zip64=True) as target:
                while block := file.read(ZIP_BLOCK):
                    target.write(block)
                    yield sink.take()
            yield sink.take()
    yield sink.take()


class _ZipSink:
    """A file that cannot seek, for zipfile to write to."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def write(self, data: "ReadableBuffer", /) -> int:
        self._buffer += data
        return memoryview(data).nbytes

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def take(self) -> bytes:
        """Return what was written since the last call."""
        data = bytes(self._buffer)
        self._buffer.clear()
        return data
