"""From an audio file to files of stems."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from htdemucs.audio import AudioFile, Spool
from htdemucs.separation.naming import Places
from htdemucs.separation.normalization import measure
from htdemucs.separation.options import OutputOptions
from htdemucs.separation.output import WAITING, Job, Output
from htdemucs.separation.pipeline import read_ahead

if TYPE_CHECKING:
    from htdemucs.separation.separator import Progress, Separator

BLOCK_LENGTH = 1 << 18  # samples read back from a spool at a time


class Resumption(NamedTuple):
    """Where unfinished work is kept, and the key that says what it belongs to."""

    spool: Path
    key: str


@dataclass(frozen=True)
class SeparatedFile:
    """What came of a track.

    Attributes:
        files: by the name of what they hold.
        sample_rate, length: of the files: Hz, samples.
        source_length: samples at the track's own rate.
        bit_depth: of the files; None in lossy formats.
        gain: on everything, so that nothing clips.
        peaks: greatest absolute sample of each file before the gain.
        warnings: what was wrong with the track.
        resumed: seconds that an earlier attempt had finished.
    """

    files: dict[str, Path]
    sample_rate: int
    length: int
    source_length: int
    bit_depth: int | None
    gain: float
    peaks: dict[str, float]
    warnings: tuple[str, ...]
    resumed: float


def separate_file(
    separator: "Separator",
    path: Path,
    places: Places,
    options: OutputOptions,
    on_progress: "Callable[[Progress], None] | None" = None,
    resumption: Resumption | None = None,
) -> SeparatedFile:
    """Separate the file at `path`.

    With a `resumption` what is separated is kept on disk at every segment, and an earlier attempt
    under the same key gone on with: the result is the same to the bit.

    Raises:
        AudioError: the file cannot be read, or a stem cannot be written.
        SeparationError: the options do not fit the model.
    """
    options.needed_stems(separator.stems)  # refuses a stem that is not there
    source = AudioFile(path, sample_rate=separator.sample_rate, channels=separator.audio_channels)
    normalization = measure(source)
    separator.check_length(normalization.length)
    job = Job(separator.stems, source, places, options, resumption is not None)
    with ExitStack() as stack:
        spool = stack.enter_context(_spool(job, resumption))
        finished = spool.length
        output = stack.enter_context(_from_spool(spool, job))
        blocks = stack.enter_context(closing(read_ahead(source, WAITING)))
        for separated in separator.stream(blocks, normalization, skip=finished):
            block = torch.stack([stem.cpu() for stem in separated.values()])
            spool.write(block.flatten(0, 1))
            output.write(block)
            if on_progress:
                on_progress(separator.progress(spool.length, normalization.length))
        peaks = output.finish()
        gain = options.gain(max(peaks.values()), job.encoding)
        if gain != 1:  # seldom: everything is encoded once more
            output.abort()
            output = stack.enter_context(_from_spool(spool, job, gain))
            output.finish()
        output.close()
    return _result(job, gain, peaks, finished / source.sample_rate)


def _spool(job: Job, resumption: Resumption | None) -> Spool:
    channels = len(job.stems) * job.source.channels
    if resumption is None:
        return Spool(next(iter(job.targets.values())).parent, channels)
    return Spool.kept(resumption.spool, channels, resumption.key)


def _from_spool(spool: Spool, job: Job, gain: float = 1.0) -> Output:
    """An output that has all that the spool holds."""
    output = Output(job, gain)
    try:
        for block in spool.blocks(BLOCK_LENGTH):
            output.write(block.unflatten(0, (-1, job.source.channels)))
    except BaseException:
        output.abort()
        raise
    return output


def _result(job: Job, gain: float, peaks: dict[str, float], resumed: float) -> SeparatedFile:
    source = job.source
    return SeparatedFile(
        files=job.targets,
        sample_rate=job.sample_rate,
        length=job.length,
        source_length=source.source_length,
        bit_depth=job.encoding.depth,
        gain=gain,
        peaks=peaks,
        warnings=source.notes,
        resumed=resumed,
    )
