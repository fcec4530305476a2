"""Limit the threads that torch's operations use.

MERGED: Reuse the memory of one segment's activations for the next segment.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def use_this_thread_only() -> None:
    """Make torch's operations run on this thread alone when this thread calls them.

    By default each thread that calls torch gets as many helpers as there are cores. The helpers
    busily wait for work, and so take the cores from the network's threads. Other threads, and
    `torch.get_num_threads()` in them, do not change. If torch has no OpenMP, this does nothing.
    """
    if sys.platform == "win32":
        return
    torch.get_num_threads()  # torch sets up a new thread; later this would undo the next line
    set_threads = getattr(ctypes.CDLL(None), "omp_set_num_threads", None)
    if set_threads:
        set_threads(1)


# glibc's malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
_LARGE = 1 << 30  # bytes


def keep_freed_memory() -> None:
    """Make the C library keep large blocks of freed memory, from now on in this process.

    By default it returns them to the system, which has to zero every page again for the next
    segment: that costs a fast network a tenth of its time. Call it once models are loaded: what
    loading has freed is returned, because activations would not fit into it. All threads share the
    memory, so that decoding and encoding use what lies between activations. Without glibc this does
    nothing.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    mallopt = getattr(library, "mallopt", None)
    if mallopt:
        library.malloc_trim(0)
        mallopt(_MMAP_THRESHOLD, _LARGE)
        mallopt(_TRIM_THRESHOLD, _LARGE)
        mallopt(_TOP_PAD, 1 << 26)
        mallopt(_ARENA_MAX, 1)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads in the whole process until the block ends.

    Adding up a second of audio is too little work to share: on a busy machine, waiting for the
    other threads takes five times as long as the work. It also makes sums the same on every
    machine, whatever its number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
