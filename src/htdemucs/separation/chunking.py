"""Cut a stream into overlapping segments, and add the network's outputs for them together again.

Positions are samples from the start of the track. Outside the track there is silence.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from htdemucs.model import Bag
from htdemucs.separation.normalization import Normalization, RunningStats


@dataclass(frozen=True)
class Segment:
    """An excerpt of the track with the network's input for it.

    Attributes:
        start: position of the first sample.
        length: samples.
        window: (C, W), the network's input. The segment lies in its middle, and so it does in the
            network's output.
        shift: index of the pass over the track that the segment is from.
    """

    start: int
    length: int
    window: Tensor
    shift: int = 0

    @property
    def end(self) -> int:
        """Position after the last sample."""
        return self.start + self.length


@dataclass(frozen=True)
class GridOptions:
    """How a `SegmentGrid` cuts.

    Attributes:
        length: samples in a segment.
        stride: samples between the starts of neighbouring segments.
        window_length: returns the samples in the window of a segment of that many samples.
        margin: the most samples of a window on one side of its segment.
    """

    length: int
    stride: int
    window_length: Callable[[int], int]
    margin: int


class SegmentGrid:
    """Cuts a stream into segments that start every `stride` samples, from `start` on.

    If the track ends inside a segment, the segment is shorter. The window around a segment contains
    the audio next to it; for this, a margin of past samples stays in memory.
    """

    def __init__(self, options: GridOptions, start: int = 0, shift: int = 0) -> None:
        self._options, self._shift = options, shift
        self._after = -((options.length - options.window_length(options.length)) // 2)
        self._next = start  # of the next segment
        self._history: list[Tensor] = []  # (C, samples) each; concatenated when a segment is cut
        self._history_start = 0
        self._received = 0

    def push(self, block: Tensor) -> Iterator[Segment]:
        """Add a block (C, L) and yield the segments that it completes."""
        self._history.append(block)
        self._received += block.shape[-1]
        while self._next + self._options.length + self._after <= self._received:
            yield self._cut(self._options.length)
        needed = min(self._next - self._options.margin, self._received)
        outdated = needed - self._history_start
        if outdated > 0:
            self._history = [self._whole_history()[..., outdated:].clone()]
            self._history_start += outdated

    def flush(self) -> Iterator[Segment]:
        """End the stream and yield the remaining segments, which its end may shorten."""
        while self._next < self._received and self._received > 0:
            yield self._cut(min(self._options.length, self._received - self._next))

    def _cut(self, length: int) -> Segment:
        start = self._next
        self._next += self._options.stride
        window_length = self._options.window_length(length)
        window_start = start - (window_length - length) // 2
        window = self._excerpt(window_start, window_start + window_length)
        return Segment(start, length, window, self._shift)

    def _excerpt(self, start: int, end: int) -> Tensor:
        history = self._whole_history()
        first, last = max(start, self._history_start), min(end, self._received)
        if first >= last:  # the segment lies in a shift's lead-in, before the track
            return history.new_zeros(*history.shape[:-1], end - start)
        inside = history[..., first - self._history_start : last - self._history_start]
        return F.pad(inside, (first - start, end - last))

    def _whole_history(self) -> Tensor:
        if len(self._history) > 1:
            self._history = [torch.cat(self._history, dim=-1)]
        return self._history[0]


class OverlapAdd:
    """Weights segments with a triangle, adds them, and divides by the sum of the weights.

    Samples before the start of the next segment can no longer change, so they are returned
    immediately. At most one segment stays in memory.

    Args:
        segment_length: samples in a segment.
        stride: samples between the starts of neighbouring segments.
        start: position of the first segment; a shift's lead-in begins before the track.
        first: position of the first sample that is returned.
    """

    def __init__(self, segment_length: int, stride: int, start: int = 0, first: int = 0) -> None:
        self.stride, self._first = stride, first
        self._weight = triangle(segment_length)
        self._start = start  # position of the first sample in memory
        self._sum: Tensor | None = None  # (S, C, samples)
        self._weight_sum = torch.zeros(0)  # (samples,)

    def push(self, start: int, output: Tensor) -> Tensor:
        """Add an output (S, C, L) at position `start`; return finished samples (S, C, samples)."""
        length = output.shape[-1]
        self._weight = self._weight.to(output.device)
        weight = self._weight[:length]
        if self._sum is None:
            self._sum = output.new_zeros(*output.shape[:-1], 0)
            self._weight_sum = weight[:0]
        missing = max(0, start + length - self._start - self._sum.shape[-1])
        self._sum = F.pad(self._sum, (0, missing))
        self._weight_sum = F.pad(self._weight_sum, (0, missing))
        here = slice(start - self._start, start - self._start + length)
        self._sum[..., here] += weight * output
        self._weight_sum[here] += weight
        return self._pop(start + self.stride - self._start)

    def flush(self) -> Tensor | None:
        """End the stream and return the rest of its samples; None if nothing was added."""
        return None if self._sum is None else self._pop(self._sum.shape[-1])

    def _pop(self, count: int) -> Tensor:
        assert self._sum is not None
        finished = self._sum[..., :count] / self._weight_sum[:count]
        before_first = min(max(self._first - self._start, 0), finished.shape[-1])
        self._start += finished.shape[-1]
        self._sum = self._sum[..., count:].clone()
        self._weight_sum = self._weight_sum[count:].clone()
        return finished[..., before_first:]


def triangle(length: int) -> Tensor:
    """() -> (length,): rises from the first sample to the middle, then falls; its peak is 1."""
    half = length // 2
    weight = torch.cat([torch.arange(1, half + 1), torch.arange(length - half, 0, -1)])
    return weight / weight.max()


class ShiftPass:
    """One pass over the track: its grid, its overlap-add, and its finished samples.

    Args:
        options: of the grid.
        start: position of the first segment.
        shift: index of the pass.
        running: normalise each segment by the statistics of the track up to its end.
        first: position of the first sample that `pop` returns.
    """

    def __init__(
        self, options: GridOptions, start: int, shift: int, running: bool, first: int = 0
    ) -> None:
        self._grid = SegmentGrid(options, start, shift)
        self._stats = RunningStats() if running else None
        self._measured = 0  # samples of the track that are in the statistics
        self._normalizations: deque[Normalization] = deque()  # of segments without an output yet
        self._overlap_add = OverlapAdd(options.length, options.stride, start, first)
        self._finished: list[Tensor] = []

    def push(self, block: Tensor) -> Iterator[Segment]:
        """Add a block (C, L) and yield the segments that it completes."""
        yield from map(self._normalize, self._grid.push(block))

    def flush(self) -> Iterator[Segment]:
        """End the stream and yield the remaining segments, which its end may shorten."""
        yield from map(self._normalize, self._grid.flush())

    def _normalize(self, segment: Segment) -> Segment:
        if self._stats is None:
            return segment
        first = (segment.window.shape[-1] - segment.length) // 2
        new = first + max(0, self._measured - segment.start)
        self._stats.update(segment.window[..., new : first + segment.length])
        self._measured = max(self._measured, segment.end)
        self._normalizations.append(self._stats.normalization())
        return replace(segment, window=self._normalizations[-1].apply(segment.window))

    def add(self, segment: Segment, output: Tensor) -> None:
        """Add the network's output (S, C, W) for the oldest segment that has none yet."""
        if self._normalizations:
            output = self._normalizations.popleft().undo(output)
        output = middle(output, segment.length, segment.length)
        self._finished.append(self._overlap_add.push(segment.start, output))

    def finish(self) -> None:
        """End the pass after its last output."""
        rest = self._overlap_add.flush()
        if rest is not None:
            self._finished.append(rest)

    @property
    def finished(self) -> int:
        """Finished samples that `pop` has not returned yet."""
        return sum(piece.shape[-1] for piece in self._finished)

    def pop(self, count: int) -> Tensor:
        """Remove and return the next finished samples, (S, C, count)."""
        whole = torch.cat(self._finished, dim=-1)
        self._finished = [whole[..., count:]]
        return whole[..., :count]


def segments_of(blocks: Iterable[Tensor], passes: Iterable[ShiftPass]) -> Iterator[Segment]:
    """Yield the segments of every pass, each as soon as the blocks complete it."""
    for block in blocks:
        for shift_pass in passes:
            yield from shift_pass.push(block)
    for shift_pass in passes:
        yield from shift_pass.flush()


class MemberWindows:
    """The windows of a bag's members, which differ in length and lie around the same segment.

    Args:
        bag: the model.
        segment_length: samples in a segment.
    """

    def __init__(self, bag: Bag, segment_length: int) -> None:
        self._configs = [member.config for member in bag.members]
        self._segment_length = segment_length
        self.margin = max(config.margin(segment_length) for config in self._configs)

    def lengths(self, length: int) -> list[int]:
        """Return the length of each member's window around `length` samples."""
        return [config.window_length(length, self._segment_length) for config in self._configs]

    def longest(self, length: int) -> int:
        """Return the length of the longest of these windows."""
        return max(self.lengths(length))

    def batch_key(self, length: int) -> Hashable:
        """Return a key for segments of a length; those with equal keys can share a batch."""
        lengths = set(self.lengths(length))
        return lengths.pop() if len(lengths) == 1 else length

    def run(self, bag: Bag, windows: Tensor, length: int) -> Tensor:
        """(B, C, the longest window) -> (B, S, C, W), with the `length` samples in the middle

        W is `length`, or the members' window if all have the same.
        """
        lengths = self.lengths(length)
        if len(set(lengths)) == 1:
            return bag(windows)
        return bag.weighted_mean(
            middle(member(middle(windows, window, length)), length, length)
            for member, window in zip(bag.members, lengths, strict=True)
        )


def middle(x: Tensor, size: int, length: int) -> Tensor:
    """(..., L) -> (..., size): of two windows around the same `length` samples, the shorter one."""
    first = (x.shape[-1] - length) // 2 - (size - length) // 2
    return x[..., first : first + size]
