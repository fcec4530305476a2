"""Which threads torch's operations use."""

import ctypes
import sys

import torch


def use_this_thread_only() -> None:
    """Let torch's operations use no other thread when called from this one.

    By default each thread that calls torch gets as many helpers as there are cores, which go on
    watching for work when there is none, and take the cores from the network's. Other threads, and
    `torch.get_num_threads()` there, are as before. Does nothing where torch has no OpenMP.
    """
    if sys.platform == "win32":
        return
    torch.get_num_threads()  # sets a new thread up, which would undo what follows
    set_threads = getattr(ctypes.CDLL(None), "omp_set_num_threads", None)
    if set_threads:
        set_threads(1)
