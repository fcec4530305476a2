"""Separating audio while it arrives, from a pipe to a pipe."""

import queue
import threading
import time
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from htdemucs.audio import AudioPipe, PipeWriter, Resampler, pad_or_trim
from htdemucs.events import EventCallback, ProgressTracker, Started, ignore_events, result_events
from htdemucs.results import TrackResult
from htdemucs.separation import Normalization, Separator
from htdemucs.separation.normalization import Running

NAME = "-"  # of the track and of its files, in events
MAX_PENDING = 128  # blocks that are read while the network computes: 16 seconds


def separate_pipe(
    separator: Separator,
    pipe: AudioPipe,
    writer: PipeWriter,
    normalization: Normalization | Running = "running",
    *,
    on_progress: EventCallback | None = None,
) -> None:
    """Separate a pipe until it ends. The writer's channels are those of all stems.

    The output has the same length and sample rate as the input. `on_progress` is called with the
    events of the track, whose total is unknown.

    Raises:
        AudioError: the input is damaged beyond use.
        BrokenPipeError: the output was closed by its reader.
    """
    on_event, rate = on_progress or ignore_events, pipe.source_sample_rate
    started = time.monotonic()
    on_event(Started(NAME))
    progress, written = ProgressTracker(NAME, None), 0
    resampler = Resampler(separator.sample_rate, rate, len(separator.stems) * pipe.channels)
    for stems in separator.stream(_read_ahead(pipe), normalization):
        block = resampler.push(torch.cat(list(stems.values())).cpu())
        writer.write(block)
        written += block.shape[-1]
        on_event(progress.at(written / rate))
    writer.write(pad_or_trim(resampler.flush(), pipe.source_length - written))
    result = TrackResult(
        track=NAME,
        status="separated",
        files=dict.fromkeys(separator.stems, NAME),
        duration=pipe.source_length / rate,
        seconds=time.monotonic() - started,
        sample_rate=rate,
        length=pipe.source_length,
        source_length=pipe.source_length,
        gain=1.0,
        warnings=pipe.warnings,
    )
    for event in result_events(result):
        on_event(event)


def _read_ahead(blocks: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield the same blocks, which a daemon thread reads ahead.

    Unlike `writer.read_ahead`, it does not wait for the thread at the end: a read of a pipe may
    never return.
    """
    pending: queue.Queue[Tensor | BaseException | None] = queue.Queue(MAX_PENDING)

    def read() -> None:
        try:
            for block in blocks:
                pending.put(block)
            pending.put(None)
        except BaseException as error:
            pending.put(error)

    threading.Thread(target=read, daemon=True).start()
    while (item := pending.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item
