"""Decoding before the network and encoding after it, at the same time as it."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self, TypeVar

from htdemucs.fast import use_this_thread_only

T = TypeVar("T")
_END: Any = object()


def read_ahead(items: Iterable[T], count: int) -> Generator[T, None, None]:
    """Yield the same items while another thread makes the next `count`.

    An exception in that thread is raised where its item would be yielded. Close the generator to
    end the thread early.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(1, "read ahead", use_this_thread_only) as pool:
        coming = deque(pool.submit(next, iterator, _END) for _ in range(count))
        try:
            while (item := coming.popleft().result()) is not _END:
                coming.append(pool.submit(next, iterator, _END))
                yield item
        finally:
            pool.shutdown(cancel_futures=True)


class Worker:
    """Runs calls in a thread of its own, in order, with at most `count` of them waiting.

    As a context manager it ends with its last call or, on an exception, with the running one. An
    exception in a call is raised by a later `submit` or by `wait`.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool = ThreadPoolExecutor(1, "worker", use_this_thread_only)
        self._waiting: deque[Future[object]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)

    def stop(self) -> None:
        """End with the running call."""
        self._pool.shutdown(cancel_futures=True)

    def submit(self, call: Callable[..., object], *arguments: object) -> None:
        """Run it after those before it."""
        self._waiting.append(self._pool.submit(call, *arguments))
        while len(self._waiting) > self._count:
            self._waiting.popleft().result()

    def wait(self) -> None:
        """Until every call so far has returned."""
        while self._waiting:
            self._waiting.popleft().result()
