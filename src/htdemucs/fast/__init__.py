"""The networks of `model/`, faster on the device that they run on; `model/` defines the results.

Start with `precision.py`: `prepare` turns a model into the fastest module for its device. On CPUs
that is `network.py`, the same arithmetic in another memory layout, with the layers of `layers.py`
and `transformer.py` on the compiled kernels (`native/`, called from `kernels.py`) and on oneDNN
(`onednn.py`). On GPUs it is the network in half precision. `runtime.py` has settings of torch and
the C library. To add a kernel: write it in `native/`, declare it in `kernels.py`, and compare it
with torch's operation in `tests/fast/test_kernels.py`. This package imports `model/` only.
"""

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
