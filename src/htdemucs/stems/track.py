"""From one track to the files of its stems."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from htdemucs.audio import AudioFile, SampleCache
from htdemucs.events import (
    EventCallback,
    Finished,
    ProgressTracker,
    Started,
    ignore_events,
    results,
)
from htdemucs.separation import Normalization, Separator, measure
from htdemucs.stems.observer import Observer, ahead
from htdemucs.stems.output_options import OutputOptions
from htdemucs.stems.paths import OutputPaths
from htdemucs.stems.writer import WAITING, Output, TrackFiles, read_ahead

LOG = logging.getLogger(__name__)
BLOCK_LENGTH = 1 << 18  # samples read back from a spool at a time


@dataclass(frozen=True)
class SeparatedFile:
    """The stems of a track, written.

    Attributes:
        files: path of each file by its stem's name.
        sample_rate, length: of the files: Hz, samples.
        source_length: samples at the track's own rate.
        bit_depth: of the files; None in lossy formats.
        gain: factor on all stems, below 1 where one would clip.
        peaks: greatest absolute sample of each file before the gain.
        warnings: sentences about what was unusual or damaged in the track.
        resumed: seconds of the track that an earlier attempt had finished.
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


class ResumeKey(NamedTuple):
    """The spool that keeps unfinished work, and the key that names this work.

    `finish` is called with the result while no other process can begin with the same files; then
    the spool is deleted. Without it the spool stays.
    """

    spool: Path
    key: str
    finish: Callable[[SeparatedFile], object] | None = None


def separate_file(
    separator: Separator,
    path: str | PathLike[str],
    out_dir: str | PathLike[str],
    *,
    options: OutputOptions | None = None,
    on_progress: EventCallback | None = None,
) -> SeparatedFile:
    """Separate a file into `out_dir`.

    Stems have the track's own sample rate and, in lossless formats, exactly its length. See
    `OutputOptions` for names, formats and levels. `on_progress` is called with the events of the
    track (`htdemucs.events`): Started, Progress, Warned, Written, Finished.

    Raises:
        AudioError: the file cannot be read, or a stem cannot be written.
        SeparationError: the options do not fit the model.
    """
    options = options or OutputOptions()
    places = options.places(Path(path), Path(out_dir))
    tell, track, started = on_progress or ignore_events, str(Path(path)), time.monotonic()
    tell(Started(track))
    done = separate_to(separator, Path(path), places, options, tell)
    finished = Finished(
        track=track,
        status="separated",
        files={stem: str(file) for stem, file in done.files.items()},
        duration=done.length / done.sample_rate,
        seconds=time.monotonic() - started,
        gain=done.gain,
    )
    for event in results(finished, done.warnings):
        tell(event)
    return done


def separate_to(
    separator: Separator,
    path: Path,
    places: OutputPaths,
    options: OutputOptions,
    tell: EventCallback = ignore_events,
    resumption: ResumeKey | None = None,
    watcher: Observer | None = None,
) -> SeparatedFile:
    """Separate a file to the places given; otherwise as `separate_file`, but tell only progress.

    With a `resumption` finished samples are kept in its spool after every segment, and work that
    the spool holds under the same key is not done again. The stems are bit-identical,
    also with a `watcher`, who hears all of the track's blocks in order.
    """
    options.needed_stems(separator.stems)  # refuses an unknown stem
    source = _source(path, separator, options)
    with SampleCache(places.folder, channels=1) as mixture:
        normalization = measure(_kept(source, mixture))
        LOG.debug(
            "%s: %s, %d samples; %s", source, source.codec, source.source_length, normalization
        )
        separator.check_length(normalization.length)
        files = TrackFiles(separator.stems, source, places, options, resumption is not None)
        watcher = watcher or Observer()
        return _written(separator, files, mixture, normalization, tell, resumption, watcher)


def _written(
    separator: Separator,
    files: TrackFiles,
    mixture: SampleCache,
    normalization: Normalization,
    tell: EventCallback,
    resumption: ResumeKey | None,
    watcher: Observer,
) -> SeparatedFile:
    """Separate the decoded track that a spool holds."""
    source, options, rate = files.source, files.options, separator.sample_rate
    with ExitStack() as stack:
        again = resumption is not None or options.may_rescale(files.encoding)
        spool = stack.enter_context(_spool(files, resumption))
        finished = done = spool.length
        pace = ProgressTracker(str(source.path), normalization.length / rate, finished / rate)
        tell(pace.at(finished / rate))
        kept = watcher.answers
        way = partial(ahead, separator, source, normalization, kept)
        watcher.begin(source, normalization.length, way)
        output = stack.enter_context(_from_spool(spool, files, watcher))
        blocks = stack.enter_context(closing(read_ahead(_again(mixture, source), WAITING)))
        for separated in separator.stream(blocks, normalization, skip=finished, answers=kept):
            block = torch.stack(list(separated.values())).cpu()
            if again:
                spool.write(block.flatten(0, 1))
            output.write(block)
            start, done = done, done + block.shape[-1]
            tell(pace.at(done / rate))
            watcher.heard(start, block)
        peaks = output.finish()
        gain = options.gain(max(peaks.values()), files.encoding)
        if gain != 1:  # seldom: everything is encoded once more
            output.abort()
            output = stack.enter_context(_from_spool(spool, files, Observer(), gain))
            output.finish()
        output.close()
        result = _result(files, gain, peaks, finished / source.sample_rate)
        if resumption is not None and resumption.finish is not None:
            resumption.finish(result)
            spool.delete()
    return result


def _source(path: Path, separator: Separator, options: OutputOptions) -> AudioFile:
    rate, channels = separator.sample_rate, separator.audio_channels
    return AudioFile(path, sample_rate=rate, channels=channels, align=options.align)


def _kept(source: AudioFile, spool: SampleCache) -> Iterator[Tensor]:
    """Yield a track's blocks, and keep them as they lie in memory: all but the last are alike."""
    for block in source:
        spool.write(block.reshape(1, -1))
        yield block


def _again(spool: SampleCache, source: AudioFile) -> Iterator[Tensor]:
    """Yield the blocks that were kept."""
    for block in spool.blocks(source.channels * source.sample_rate):
        yield block.view(source.channels, -1)


def _spool(files: TrackFiles, resumption: ResumeKey | None) -> SampleCache:
    channels = len(files.stems) * files.source.channels
    if resumption is None:
        return SampleCache(next(iter(files.targets.values())).parent, channels)
    return SampleCache.open(resumption.spool, channels, resumption.key)


def _from_spool(
    spool: SampleCache, files: TrackFiles, watcher: Observer, gain: float = 1.0
) -> Output:
    """Return an output that has written all samples of the spool, which the watcher has heard."""
    output, start = Output(files, gain), 0
    try:
        for samples in spool.blocks(BLOCK_LENGTH):
            block = samples.unflatten(0, (-1, files.source.channels))
            output.write(block)
            watcher.heard(start, block)
            start += block.shape[-1]
    except BaseException:
        output.abort()
        raise
    return output


def _result(
    files: TrackFiles, gain: float, peaks: dict[str, float], resumed: float
) -> SeparatedFile:
    source = files.source
    return SeparatedFile(
        files=files.targets,
        sample_rate=files.sample_rate,
        length=files.length,
        source_length=source.source_length,
        bit_depth=files.encoding.stored_bit_depth,
        gain=gain,
        peaks=peaks,
        warnings=source.warnings,
        resumed=resumed,
    )
