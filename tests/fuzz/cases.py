"""The damaged files of a run. The same seed number gives the same files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.fuzz.mutations import MUTATIONS

WRONG_NAMES = 0.1  # chance of another format's extension


@dataclass(frozen=True)
class Case:
    """A damaged file."""

    number: int
    source: str
    mutation: str
    name: str
    data: bytes

    @property
    def format(self) -> str:
        """The extension of the file before the damage."""
        return self.source.rpartition(".")[2]

    def write(self, folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        path = folder / self.name
        path.write_bytes(self.data)
        return path


def cases(seeds: Sequence[Path], count: int, seed: int) -> Iterator[Case]:
    """Yield `count` cases: all seed files and mutations in turn, some with a second mutation."""
    names = list(MUTATIONS)
    extensions = sorted({path.suffix for path in seeds})
    for number in range(count):
        draw = np.random.default_rng([seed, number])
        source = seeds[number % len(seeds)]
        mutations = [names[(number // len(seeds)) % len(names)]]
        if draw.random() < 0.3:
            mutations.append(str(draw.choice(names)))
        data = source.read_bytes()
        for name in mutations:
            data = MUTATIONS[name](data, draw) if data else data
        wrong = draw.random() < WRONG_NAMES
        suffix = str(draw.choice(extensions)) if wrong else source.suffix
        yield Case(number, source.name, "+".join(mutations), f"case{suffix}", data)
