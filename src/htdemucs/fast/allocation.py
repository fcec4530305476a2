"""Reuse the memory of one segment's activations for the next segment."""

import ctypes
import sys

# glibc's malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGE = 1 << 30  # bytes


def keep_freed_memory() -> None:
    """Make the C library keep large blocks of freed memory, for the rest of this process.

    By default it returns them to the system, which has to zero every page again for the next
    segment: that costs a fast network a tenth of its time. Without glibc this does nothing.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_MMAP_THRESHOLD, _LARGE)
        mallopt(_TRIM_THRESHOLD, _LARGE)
        mallopt(_TOP_PAD, 1 << 26)
