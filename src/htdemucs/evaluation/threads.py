"""Set the number of torch's threads for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
