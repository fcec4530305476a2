"""Ranges of frames, [from, to), sorted and apart."""

from collections.abc import Iterable

Ranges = list[list[int]]


def added(ranges: Iterable[Iterable[int]], start: int, stop: int) -> Ranges:
    """Return the ranges together with [start, stop); what touches becomes one."""
    result: Ranges = []
    for first, last in sorted([*map(tuple, ranges), (start, stop)]):
        if first >= last:
            continue
        if result and first <= result[-1][1]:
            result[-1][1] = max(result[-1][1], last)
        else:
            result.append([first, last])
    return result


def end_of(ranges: Iterable[Iterable[int]], frame: int) -> int:
    """Return where the range that holds `frame` ends; `frame` itself if none does."""
    return next((last for first, last in ranges if first <= frame < last), frame)
