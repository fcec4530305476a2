"""Random numbers as a function of (seed, purpose, index), so that no generator's state is stored.

A purpose is a name, such as "excerpt"; an index is a step, an example or a source. A resumed run
draws the same numbers as an uninterrupted one, however many processes share the work, and a new
purpose changes the numbers of no other.
"""

import zlib

import numpy as np
import torch


def generator(seed: int, purpose: str, *index: int) -> np.random.Generator:
    """Return the generator of one purpose at one index."""
    # The index's length is in the seed, because zeros at a seed's end change nothing.
    entropy = [seed, zlib.crc32(purpose.encode()), len(index), *index]
    return np.random.Generator(np.random.PCG64(entropy))


def seed_torch(seed: int, purpose: str, *index: int) -> None:
    """Seed torch's global generators, which dropout and initialisation use."""
    torch.manual_seed(int(generator(seed, purpose, *index).integers(2**63)))
