"""The same network, faster on the machine it runs on."""

from htdemucs.fast.precision import PRECISIONS, choose_precision, prepare, prepare_bag
from htdemucs.fast.runtime import keep_freed_memory, use_this_thread_only

__all__ = [
    "PRECISIONS",
    "choose_precision",
    "keep_freed_memory",
    "prepare",
    "prepare_bag",
    "use_this_thread_only",
]
