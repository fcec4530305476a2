"""One pass over a track: the segments that it is cut into, and the finished samples."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from htdemucs.separation.normalization import Level, Normalization
from htdemucs.separation.overlap_add import Cut, OverlapAdd, Segment, SegmentGrid


class Pass:
    """One pass over the track: its grid, its overlap-add, and its finished samples.

    Args:
        cut, start: of the grid.
        running: bring each segment to the level of the track so far, and its answer back.
    """

    def __init__(self, cut: Cut, start: int, running: bool) -> None:
        self._grid = SegmentGrid(cut, start)
        self._level = Level() if running else None
        self._heard = 0  # samples of the track that are in the level
        self._levels: deque[Normalization] = deque()  # of the segments whose answers are to come
        self._overlap_add = OverlapAdd(cut.length, cut.stride, start)
        self._done: list[Tensor] = []

    def push(self, block: Tensor) -> Iterator[tuple["Pass", Segment]]:
        """Add a block (C, L) and yield this pass with each segment that it completes."""
        yield from ((self, self._levelled(segment)) for segment in self._grid.push(block))

    def flush(self) -> Iterator[tuple["Pass", Segment]]:
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


def segments_of(blocks: Iterable[Tensor], passes: list[Pass]) -> Iterator[tuple[Pass, Segment]]:
    """Yield the segments of every pass, each as soon as the blocks complete it."""
    for block in blocks:
        for one in passes:
            yield from one.push(block)
    for one in passes:
        yield from one.flush()
