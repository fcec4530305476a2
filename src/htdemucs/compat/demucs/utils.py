"""`demucs.utils`: the helpers that programs import with `demucs.apply`."""

import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any, NoReturn

from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "DummyPoolExecutor",
    "center_trim",
    "fatal",
    "sizeof_fmt",
    "temp_filenames",
    "unfold",
]


def center_trim(tensor: Tensor, reference: Tensor | int) -> Tensor:
    """(..., L) -> (..., length of the reference): the middle; an odd sample goes on the right.

    Raises:
        ValueError: the tensor is shorter than the reference.
    """
    length = reference.shape[-1] if isinstance(reference, Tensor) else reference
    surplus = tensor.shape[-1] - length
    if surplus < 0:
        raise ValueError(f"a tensor of {tensor.shape[-1]} samples cannot be trimmed to {length}")
    return tensor.narrow(-1, surplus // 2, length)


def unfold(a: Tensor, kernel_size: int, stride: int) -> Tensor:
    """(..., L) -> (..., ceil(L / stride), kernel_size), padded with zeros on the right"""
    frames = math.ceil(a.shape[-1] / stride)
    missing = (frames - 1) * stride + kernel_size - a.shape[-1]
    return F.pad(a, (0, missing)).unfold(-1, kernel_size, stride)


def fatal(*messages: object) -> NoReturn:
    """Print messages on standard error, and exit with status 1."""
    print(*messages, file=sys.stderr)
    sys.exit(1)


def sizeof_fmt(num: float, suffix: str = "B") -> str:
    """Return a number of bytes with a binary prefix, such as 1.5KiB."""
    prefixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"]
    while abs(num) >= 1024 and len(prefixes) > 1:
        num /= 1024
        del prefixes[0]
    return f"{num:.1f}{prefixes[0]}{suffix}"


@contextmanager
def temp_filenames(count: int, delete: bool = True) -> Iterator[list[str]]:
    """Yield the names of new temporary files; delete them at the end."""
    names = []
    for _ in range(count):
        descriptor, name = tempfile.mkstemp()
        os.close(descriptor)
        names.append(name)
    try:
        yield names
    finally:
        for name in names if delete else ():
            os.unlink(name)  # noqa: PTH108  an error if the program deleted it, as published


class DummyPoolExecutor:
    """A pool that runs each task in the calling thread when its result is asked for."""

    def __init__(self, workers: int = 0) -> None:
        del workers
        self._open = True

    def submit(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> "_Task":
        """Return a task."""
        return _Task(self, lambda: func(*args, **kwargs))

    def shutdown(self, *_: Any, **__: Any) -> None:
        """Cancel the tasks whose results nobody asked for."""
        self._open = False

    def __enter__(self) -> "DummyPoolExecutor":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _Task:
    def __init__(self, pool: DummyPoolExecutor, call: Callable[[], Any]) -> None:
        self._pool, self._call = pool, call

    def result(self) -> Any:
        """Run the task, and return its result."""
        if not self._pool._open:
            raise CancelledError
        return self._call()
