"""Random numbers as a function of where they are used, so that nothing needs to be remembered.

Every draw belongs to a named purpose and a place (a step, an example, a source). A resumed run
makes the same draws as an uninterrupted one, however many processes share the work.
"""

import zlib

import numpy as np
import torch


def generator(seed: int, purpose: str, *place: int) -> np.random.Generator:
    """A generator of its own for one purpose at one place."""
    # How long a place is counts, since zeros at the end of a seed do not.
    entropy = [seed, zlib.crc32(purpose.encode()), len(place), *place]
    return np.random.Generator(np.random.PCG64(entropy))


def seed_torch(seed: int, purpose: str, *place: int) -> None:
    """Set torch's own generators, which layers draw from, for one purpose at one place."""
    torch.manual_seed(int(generator(seed, purpose, *place).integers(2**63)))
