"""Separating one track into files: `separate_track`, from decoding to the finished stems."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from htdemucs.audio import AudioFile, SampleCache
from htdemucs.errors import SeparationError
from htdemucs.events import (
    EventCallback,
    ProgressTracker,
    Started,
    ignore_events,
    result_events,
)
from htdemucs.results import TrackResult
from htdemucs.separation import Separator
from htdemucs.stems.first_pass import ResumeKey, first_pass
from htdemucs.stems.observer import CachedMixture, Observer, stream_beside
from htdemucs.stems.output_options import OutputOptions
from htdemucs.stems.paths import OutputPaths
from htdemucs.stems.writer import MAX_PENDING, OutputFiles, StemWriter, read_ahead
from htdemucs.weights import load_model

LOG = logging.getLogger(__name__)
BLOCK_LENGTH = 1 << 18  # samples that are read from the stem cache at a time


def separate_file(
    separator: Separator | str | PathLike[str],
    path: str | PathLike[str],
    out_dir: str | PathLike[str] = "separated",
    *,
    options: OutputOptions | None = None,
    on_progress: EventCallback | None = None,
    format: str | None = None,
    stems: str | Sequence[str] | None = None,
    **changes: Any,
) -> TrackResult:
    """Separate a file into `out_dir`/TRACK.

    Stems have the track's own sample rate, if the format allows it, and exactly its length. They
    replace those of an earlier call and of another track of this name; a `Library` keeps tracks of
    the same name apart.

    Args:
        separator: a separator, or the name or path of a model.
        path: the audio file.
        out_dir: the folder for a folder with the stems.
        options: names, formats and levels of the files.
        on_progress: called with the events of the track (`htdemucs.events`): Started, Progress,
            Warned, Written, Finished. `ProgressBar()` shows them as a bar.
        format: replaces the format of the options; see `AudioEncoding`.
        stems: only these stems, if `separator` is a name or path. A `Separator` has its own.
        **changes: replace other fields of the options, as in `two_stems="vocals"`.

    Raises:
        AudioError: the file cannot be read, or a stem cannot be written.
        SeparationError: the options do not fit the model.
        ModelNotFoundError, DownloadError, CheckpointError: the model cannot be loaded.
    """
    path, on_event = Path(path), on_progress or ignore_events
    options = replace(options or OutputOptions(), **changes)
    if format is not None:
        options = replace(options, encoding=replace(options.encoding, format=format))
    if not isinstance(separator, Separator):
        stems = (stems,) if isinstance(stems, str) else stems
        model = load_model(os.fspath(separator), stems=stems, on_progress=on_progress)
        separator = Separator(model, stems=stems)
    elif stems is not None:
        raise SeparationError("give the stems to the Separator, as in Separator(model, stems=...)")
    paths = options.output_paths(path, Path(out_dir))
    on_event(Started(str(path)))
    result = separate_track(separator, path, paths, options, on_event=on_event)
    for event in result_events(result):
        on_event(event)
    return result


def separate_track(
    separator: Separator,
    path: Path,
    paths: OutputPaths,
    options: OutputOptions,
    *,
    name: str | None = None,
    on_event: EventCallback = ignore_events,
    observer: Observer | None = None,
    resume: ResumeKey | None = None,
    find_result: Callable[[], TrackResult | None] | None = None,
    on_finish: Callable[[TrackResult], None] | None = None,
) -> TrackResult:
    """Separate a file to the given paths. The only events are `Reading` and `Progress`.

    Args:
        separator: the engine.
        path: the track's file.
        paths: the paths of its stems.
        options: which stems are written, and how.
        name: of the track in events and in the result; by default its path.
        on_event: called with the events.
        observer: receives all blocks of stems in order, resumed ones included.
        resume: continue an earlier attempt, and cache finished samples after each segment. The
            stems are bit-identical to those of an uninterrupted run.
        find_result: called once the cache is locked. If it returns a result, another process has
            separated the track in the meantime, and this result is returned.
        on_finish: called when the stems are complete, before the cache is deleted and unlocked:
            until it returns, no other process can separate to the same files.

    Raises:
        AudioError: the file cannot be read, or a stem cannot be written.
        SeparationError: the options do not fit the model.
        TrackBusyError: another process has locked the cache.
    """
    started, name, observer = time.monotonic(), name or str(path), observer or Observer()
    is_some = len(separator.stems) < len(separator.sources) and options.two_stems is None
    if is_some and (options.residual == "spread" or options.stem_file):
        what = "write a stem file" if options.stem_file else "spread the residual"
        raise SeparationError(f"all stems are needed to {what}; do not choose some")
    options.needed_stems(separator.stems)  # raises SeparationError for an unknown stem
    options.encoding_for(None).check_channels(separator.audio_channels)
    rate, channels = separator.sample_rate, separator.audio_channels
    source = AudioFile(path, sample_rate=rate, channels=channels, align=options.align)

    with ExitStack() as stack:
        # Open the cache of stems. It begins with what an earlier attempt has finished.
        cache_channels = len(separator.stems) * channels
        cache = stack.enter_context(
            SampleCache.open(resume.cache_file, cache_channels, resume.key)
            if resume
            else SampleCache(paths.folder, cache_channels)
        )
        if find_result is not None and (result := find_result()) is not None:
            return result

        # Decode the track once: its normalisation is needed before its first segment.
        samples, normalization = stack.enter_context(
            first_pass(source, paths.folder, resume, on_event, name)
        )
        mixture = CachedMixture(samples, source)
        LOG.debug(
            "%s: %s, %d samples; %s", source, source.codec, source.source_length, normalization
        )
        separator.check_length(normalization.length)
        files = OutputFiles(separator.stems, source, paths, options, exclusive=resume is not None)

        use_cache = resume is not None or options.may_rescale(files.encoding)
        resumed = position = cache.length
        progress = ProgressTracker(name, normalization.length / rate, resumed / rate)
        on_event(progress.at(resumed / rate))
        stream_from = partial(stream_beside, separator, mixture, normalization, observer.outputs)
        observer.on_start(source, normalization.length, stream_from)

        # Write what is cached, then separate the rest.
        writer = stack.enter_context(StemWriter(files))
        for start, block in _cached_stems(cache, channels):
            writer.write(block)
            observer.on_block(start, block)
        blocks = read_ahead(iter(mixture), MAX_PENDING)
        stack.enter_context(closing(blocks))
        outputs = observer.outputs
        for stems in separator.stream(blocks, normalization, skip=resumed, cache=outputs):
            block = torch.stack(list(stems.values())).cpu()
            if use_cache:
                cache.write(block.flatten(0, 1))
            writer.write(block)
            start, position = position, position + block.shape[-1]
            on_event(progress.at(position / rate))
            observer.on_block(start, block)
        peaks = writer.finish()

        # If a stem clips, encode all of them again with a lower gain.
        gain = options.gain(max(peaks.values()), files.encoding)
        if gain != 1:
            writer.abort()
            writer = stack.enter_context(StemWriter(files, gain))
            for _, block in _cached_stems(cache, channels):
                writer.write(block)
            writer.finish()
        writer.close()

        result = TrackResult(
            track=name,
            status="separated",
            files={stem: str(file) for stem, file in files.paths.items()},
            duration=files.length / files.sample_rate,
            seconds=time.monotonic() - started,
            resumed=resumed / rate,
            sample_rate=files.sample_rate,
            length=files.length,
            source_length=source.source_length,
            bit_depth=files.encoding.stored_bit_depth,
            gain=gain,
            peaks=peaks,
            warnings=source.warnings,
        )
        if on_finish is not None:
            on_finish(result)
        if resume is not None:
            cache.delete()
    return result


def _cached_stems(cache: SampleCache, channels: int) -> Iterator[tuple[int, Tensor]]:
    """Yield the cached blocks of stems, (S, C, L), and the sample with which each begins."""
    start = 0
    for samples in cache.blocks(BLOCK_LENGTH):
        yield start, samples.unflatten(0, (-1, channels))
        start += samples.shape[-1]
