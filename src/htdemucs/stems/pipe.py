"""From audio that is still coming in to stems, which go out as they are finished."""

import queue
import threading
import time
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from htdemucs.audio import AudioPipe, PipeWriter, Resampler, pad_or_trim
from htdemucs.events import (
    EventCallback,
    Finished,
    ProgressTracker,
    Started,
    ignore_events,
    results,
)
from htdemucs.separation import Normalization, Separator
from htdemucs.separation.levels import Running

NAME = "-"  # of the track and of its files, in events
AHEAD = 128  # blocks that are read while the network computes: 16 seconds


def separate_pipe(
    separator: Separator,
    pipe: AudioPipe,
    writer: PipeWriter,
    normalization: Normalization | Running = "running",
    *,
    on_progress: EventCallback | None = None,
) -> None:
    """Separate a pipe to its end, if it has one; the writer's channels are those of all stems.

    What is written is as long as the input, and at its sample rate. `on_progress` is called with
    the events of the track, whose total is unknown.

    Raises:
        AudioError: the input is damaged beyond use.
        BrokenPipeError: nobody reads the output.
    """
    tell, started, rate = on_progress or ignore_events, time.monotonic(), pipe.source_sample_rate
    tell(Started(NAME))
    pace, written = ProgressTracker(NAME, None), 0
    back = Resampler(separator.sample_rate, rate, len(separator.stems) * pipe.channels)
    for stems in separator.stream(_ahead(pipe), normalization):
        block = back.push(torch.cat(list(stems.values())).cpu())
        writer.write(block)
        written += block.shape[-1]
        tell(pace.at(written / rate))
    tail = back.flush()
    writer.write(pad_or_trim(tail, pipe.source_length - written))
    finished = Finished(
        track=NAME,
        status="separated",
        files=dict.fromkeys(separator.stems, NAME),
        duration=pipe.source_length / rate,
        seconds=time.monotonic() - started,
        gain=1.0,
    )
    for event in results(finished, pipe.warnings):
        tell(event)


def _ahead(blocks: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield blocks that a thread of its own reads ahead; it may wait for ever, and is left then."""
    coming: queue.Queue[Tensor | BaseException | None] = queue.Queue(AHEAD)

    def read() -> None:
        try:
            for block in blocks:
                coming.put(block)
            coming.put(None)
        except BaseException as error:
            coming.put(error)

    threading.Thread(target=read, daemon=True).start()
    while (item := coming.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item
