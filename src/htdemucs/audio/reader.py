"""Audio files as streams of float32 blocks."""

from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from htdemucs.audio.channels import assumption, mixing_matrix
from htdemucs.audio.decoding import SAMPLE_RATES, decode, nothing_decoded, parts_of, probe
from htdemucs.audio.failures import printable
from htdemucs.audio.findings import Findings
from htdemucs.audio.frames import Decoded, SourceFormat
from htdemucs.audio.resample import Resampler, fitted, resampled_length
from htdemucs.audio.timeline import Align
from htdemucs.errors import AudioError

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
        for piece in joined(decode(self.path, self._parts, self.align, findings)):
            if section is None or section.source != piece.format:
                if section is not None:
                    self._count(section)
                    yield section.flush()
                section = Section(piece.format, self.sample_rate, self.channels)
                findings.assumption = findings.assumption or section.assumption
            yield section.push(torch.from_numpy(repaired(piece.samples, findings)))
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


def in_step(
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
        yield torch.stack([fitted(block, longest) for block in blocks])


def joined(pieces: Iterable[Decoded], seconds: float = 1) -> Iterator[Decoded]:
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


def repaired(samples: NDArray[np.float32], findings: Findings) -> NDArray[np.float32]:
    """Replace samples that are no sound by 0, and count them."""
    sound = np.abs(samples) <= LOUDEST  # false of NaN too
    broken = samples.size - int(np.count_nonzero(sound))
    if not broken:
        return samples
    findings.repaired_samples += broken
    return np.where(sound, samples, np.float32(0))
