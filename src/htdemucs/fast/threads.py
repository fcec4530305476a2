"""Limit the threads that torch's operations use."""

import ctypes
import sys

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
