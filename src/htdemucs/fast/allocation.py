"""Reuse the memory of one segment's activations for the next segment."""

import ctypes
import sys

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
