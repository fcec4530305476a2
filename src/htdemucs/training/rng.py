"""Random draws as a function of their place, so that no generator's state needs to be stored.

Every draw belongs to a named purpose and a place (a step, an example, a source). A resumed run
makes the same draws as an uninterrupted one, however many processes share the work.
"""

import zlib

import numpy as np
import torch


def generator(seed: int, purpose: str, *place: int) -> np.random.Generator:
    """Return the generator of one purpose at one place."""
    # The length of a place is in the seed, because zeros at a seed's end change nothing.
    entropy = [seed, zlib.crc32(purpose.encode()), len(place), *place]
    return np.random.Generator(np.random.PCG64(entropy))


def seed_torch(seed: int, purpose: str, *place: int) -> None:
    """Set torch's own generators, which layers draw from, for one purpose at one place."""
    torch.manual_seed(int(generator(seed, purpose, *place).integers(2**63)))
