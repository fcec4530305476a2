"""Settings of torch and the C library: threads, memory, compilation."""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import torch

from htdemucs.errors import ConfigError
from htdemucs.fsutil import user_cache

P = ParamSpec("P")
R = TypeVar("R")

# Parameters of glibc's mallopt, from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
_LARGE = 1 << 30  # bytes


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads in the whole process until the block ends.

    For work that is too small to share: adding up a second of audio takes five times as long on a
    busy machine if it waits for other threads. With a fixed number of threads, sums are also the
    same on every machine.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def use_this_thread_only() -> None:
    """Make torch's operations use one thread when the calling thread calls them.

    By default OpenMP starts as many helper threads as there are cores for each thread that calls
    torch. The helpers wait busily for work and take the cores from the network's threads. Other
    threads, and `torch.get_num_threads()` in them, do not change. Without OpenMP this does nothing.
    """
    if sys.platform == "win32":
        return
    torch.get_num_threads()  # initialises torch in this thread, which would undo the next lines
    set_threads = getattr(ctypes.CDLL(None), "omp_set_num_threads", None)
    if set_threads:
        set_threads(1)


def keep_freed_memory() -> None:
    """Make the C library keep large blocks of freed memory, from now on in this process.

    By default it returns them to the system, which must zero every page again for the next
    segment: a fast network loses a tenth of its time to that. Call this after models are loaded:
    it first returns the memory that loading freed, into which activations would not fit. All
    threads then share one arena, so that decoders and encoders use the memory between activations.
    Without glibc this does nothing.
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


def compile_function(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that runs `torch.compile` on `function`, a network's, on its first call.

    Compiling for the device of the inputs takes a minute or more. The next process reads the
    result from TORCHINDUCTOR_CACHE_DIR, by default a folder in the user's cache.

    Calling the function raises `ConfigError` if torch cannot compile on this machine.
    """
    # Set before the import below, which would set it to a temporary folder.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(user_cache() / "htdemucs" / "compiled"))
    from torch._dynamo.exc import TorchDynamoException  # takes half a second

    run = torch.compile(function)

    def call(*inputs: P.args, **options: P.kwargs) -> R:
        try:
            return run(*inputs, **options)
        except TorchDynamoException as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ConfigError(f"torch cannot compile here ({reason}); do not compile") from error

    return call
