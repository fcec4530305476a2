"""How much of a track each network of a model sees for a segment of it.

MERGED: Cut a stream into overlapping segments, and add the model's answers together again.

Positions are samples from the start of the track. Before its start and after its end the track is
silent.
MERGED: One pass over a track: the segments that it is cut into, and the finished samples.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from htdemucs.model import Bag
from htdemucs.separation.levels import Normalization, RunningStats


class Windows:
    """The windows of a bag's members. Each lies around the same middle.

    Args:
        bag: the model.
        segment_length: samples in a segment.
    """

    def __init__(self, bag: Bag, segment_length: int) -> None:
        self._configs = [member.config for member in bag.members]
        self._segment_length = segment_length
        self.margin = max(config.margin(segment_length) for config in self._configs)

    def lengths(self, length: int) -> list[int]:
        """Return how many samples each member sees for `length` samples."""
        return [config.window_length(length, self._segment_length) for config in self._configs]

    def widest(self, length: int) -> int:
        """Return how many samples of the track a segment of `length` samples needs."""
        return max(self.lengths(length))

    def group(self, length: int) -> Hashable:
        """Segments whose lengths are of the same group can be in the same batch."""
        lengths = set(self.lengths(length))
        return lengths.pop() if len(lengths) == 1 else length

    def answer(self, prepared: Bag, mixture: Tensor, length: int) -> Tensor:
        """(B, C, the widest window) -> (B, S, C, W), the segment in the middle

        W is `length`, or the members' window if all have the same.
        """
        lengths = self.lengths(length)
        if len(set(lengths)) == 1:
            return prepared(mixture)
        return prepared.weighted_mean(
            middle(member(middle(mixture, window, length)), length, length)
            for member, window in zip(prepared.members, lengths, strict=True)
        )


def middle(x: Tensor, size: int, length: int) -> Tensor:
    """(..., L) -> (..., size): windows of both sizes lie around the same `length` samples."""
    first = (x.shape[-1] - length) // 2 - (size - length) // 2
    return x[..., first : first + size]


@dataclass(frozen=True)
class Segment:
    """A model-sized excerpt.

    The model's input is `window` (C, W). Of its answer only the middle `length` samples count; they
    belong at position `start`.
    """

    start: int
    length: int
    window: Tensor


@dataclass(frozen=True)
class Cut:
    """How a grid cuts.

    Attributes:
        length: samples in a segment.
        stride: samples between the starts of neighbouring segments.
        window: samples that the model sees for so many samples.
        margin: the most samples of a window on one side of its segment.
    """

    length: int
    stride: int
    window: Callable[[int], int]
    margin: int


class SegmentGrid:
    """Cuts a stream into segments that start every `stride` samples, from `start` on.

    If the track ends inside a segment, the segment is shorter. Each segment lies in the middle of
    its window. The rest of a window is the audio around the segment; for this, a margin of history
    stays in memory.
    """

    def __init__(self, cut: Cut, start: int = 0) -> None:
        self._cut = cut
        self._after = -((cut.length - cut.window(cut.length)) // 2)  # a whole segment's window
        self._next = start
        self._history: list[Tensor] = []  # (C, samples) each; joined when a segment needs them
        self._history_start = 0
        self._received = 0

    def push(self, block: Tensor) -> Iterator[Segment]:
        """Add a block (C, L) and yield the segments that it completes."""
        self._history.append(block)
        self._received += block.shape[-1]
        while self._next + self._cut.length + self._after <= self._received:
            yield self._segment(self._cut.length)
        self._forget(self._next - self._cut.margin)

    def flush(self) -> Iterator[Segment]:
        """End the stream and yield the segments that its end cuts short."""
        while self._next < self._received:
            yield self._segment(min(self._cut.length, self._received - self._next))

    def _segment(self, length: int) -> Segment:
        start = self._next
        self._next += self._cut.stride
        window = self._cut.window(length)
        begin = start - (window - length) // 2
        return Segment(start, length, self._excerpt(begin, begin + window))

    def _excerpt(self, begin: int, end: int) -> Tensor:
        history = self._joined()
        first, last = max(begin, self._history_start), min(end, self._received)
        if first >= last:  # the segment lies in a shift's lead-in, before the track
            return history.new_zeros(*history.shape[:-1], end - begin)
        inside = history[..., first - self._history_start : last - self._history_start]
        return F.pad(inside, (first - begin, end - last))

    def _joined(self) -> Tensor:
        if len(self._history) > 1:
            self._history = [torch.cat(self._history, dim=-1)]
        return self._history[0]

    def _forget(self, until: int) -> None:
        if until > self._history_start:
            self._history = [self._joined()[..., until - self._history_start :].clone()]
            self._history_start = until


class OverlapAdd:
    """Weighs answers with a triangle, adds them, and divides by the sum of the weights.

    Samples before the start of the next segment can no longer change, so they are returned at once.
    At most one segment stays in memory.
    """

    def __init__(self, segment_length: int, stride: int, start: int = 0) -> None:
        self.stride = stride
        self._weight = triangle(segment_length)
        self._start = start  # position of the first sample in memory
        self._sum: Tensor | None = None  # (S, C, samples)
        self._weight_sum = torch.zeros(0)  # (samples,)

    def push(self, start: int, answer: Tensor) -> Tensor:
        """Add an answer (S, C, L) at position `start`; return finished samples (S, C, samples)."""
        length = answer.shape[-1]
        self._weight = self._weight.to(answer.device)
        weight = self._weight[:length]
        if self._sum is None:
            self._sum = answer.new_zeros(*answer.shape[:-1], 0)
            self._weight_sum = weight[:0]
        missing = max(0, start + length - self._start - self._sum.shape[-1])
        self._sum = F.pad(self._sum, (0, missing))
        self._weight_sum = F.pad(self._weight_sum, (0, missing))
        here = slice(start - self._start, start - self._start + length)
        self._sum[..., here] += weight * answer
        self._weight_sum[here] += weight
        return self._take(start + self.stride - self._start)

    def flush(self) -> Tensor | None:
        """End the stream and return the rest of its samples; None if there was no answer."""
        return None if self._sum is None else self._take(self._sum.shape[-1])

    def _take(self, count: int) -> Tensor:
        assert self._sum is not None
        finished = self._sum[..., :count] / self._weight_sum[:count]
        before_track = min(max(-self._start, 0), finished.shape[-1])  # a shift's silent lead-in
        self._start += finished.shape[-1]
        self._sum = self._sum[..., count:].clone()
        self._weight_sum = self._weight_sum[count:].clone()
        return finished[..., before_track:]


def triangle(length: int) -> Tensor:
    """() -> (length,): rises from the first sample to the middle, then falls; its peak is 1."""
    half = length // 2
    weight = torch.cat([torch.arange(1, half + 1), torch.arange(length - half, 0, -1)])
    return weight / weight.max()


class ShiftPass:
    """One pass over the track: its grid, its overlap-add, and its finished samples.

    Args:
        cut, start: of the grid.
        running: bring each segment to the level of the track so far, and its answer back.
    """

    def __init__(self, cut: Cut, start: int, running: bool) -> None:
        self._grid = SegmentGrid(cut, start)
        self._level = RunningStats() if running else None
        self._heard = 0  # samples of the track that are in the level
        self._levels: deque[Normalization] = deque()  # of the segments whose answers are to come
        self._overlap_add = OverlapAdd(cut.length, cut.stride, start)
        self._done: list[Tensor] = []

    def push(self, block: Tensor) -> Iterator[tuple["ShiftPass", Segment]]:
        """Add a block (C, L) and yield this pass with each segment that it completes."""
        yield from ((self, self._levelled(segment)) for segment in self._grid.push(block))

    def flush(self) -> Iterator[tuple["ShiftPass", Segment]]:
        """End the stream and yield this pass with the segments that its end cuts short."""
        yield from ((self, self._levelled(segment)) for segment in self._grid.flush())

    def _levelled(self, segment: Segment) -> Segment:
        if self._level is None:
            return segment
        first = (segment.window.shape[-1] - segment.length) // 2
        fresh = first + max(0, self._heard - segment.start)
        self._level.hear(segment.window[..., fresh : first + segment.length])
        self._heard = max(self._heard, segment.start + segment.length)
        self._levels.append(self._level.normalization())
        return replace(segment, window=self._levels[-1].apply(segment.window))

    def add(self, segment: Segment, answer: Tensor) -> None:
        """Add the model's answer (S, C, W) to the oldest of this pass's segments without one."""
        if self._levels:
            answer = self._levels.popleft().undo(answer)
        edge = (answer.shape[-1] - segment.length) // 2
        answer = answer[..., edge : edge + segment.length]
        self._done.append(self._overlap_add.push(segment.start, answer))

    def finish(self) -> None:
        """End the pass: no more answers come."""
        rest = self._overlap_add.flush()
        if rest is not None:
            self._done.append(rest)

    @property
    def ready(self) -> int:
        """Finished samples that `take` has not returned yet."""
        return sum(piece.shape[-1] for piece in self._done)

    def take(self, count: int) -> Tensor:
        """Remove and return the next finished samples, (S, C, count)."""
        whole = torch.cat(self._done, dim=-1)
        self._done = [whole[..., count:]]
        return whole[..., :count]


def segments_of(
    blocks: Iterable[Tensor], passes: list[ShiftPass]
) -> Iterator[tuple[ShiftPass, Segment]]:
    """Yield the segments of every pass, each as soon as the blocks complete it."""
    for block in blocks:
        for one in passes:
            yield from one.push(block)
    for one in passes:
        yield from one.flush()
