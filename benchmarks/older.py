"""Hybrid Demucs and Demucs beside the published ones: one segment of 44 s in one process.

    python -m benchmarks.older [--rounds 4] [--seconds 44]

The networks take turns. They have the released sizes and random weights. Prints medians and ratios.
"""

import argparse
import time
from statistics import median

import torch
from demucs.demucs import Demucs as PublishedDemucs
from demucs.hdemucs import HDemucs as PublishedHDemucs
from torch import nn

from benchmarks.forward import PUBLISHED
from benchmarks.processes import machine
from htdemucs.fast import choose_precision, keep_freed_memory, prepare
from htdemucs.model import Demucs, HDemucs, Network

SOURCES = ["drums", "bass", "other", "vocals"]


def contestants(published: nn.Module, ours: Network) -> dict[str, nn.Module]:
    """Return what takes turns, the published network first."""
    ways = {PUBLISHED: published.eval(), "htdemucs, fp32": prepare(ours.eval(), "fp32")}
    best = choose_precision(ours)
    return ways | {f"htdemucs, {best}": prepare(ours, best)}


@torch.inference_mode()
def measure(ways: dict[str, nn.Module], seconds: float, rounds: int) -> dict[str, float]:
    """Return each one's median seconds; the first round does not count."""
    mixture = 0.1 * torch.randn(1, 2, int(44_100 * seconds))
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, network in ways.items():
            start = time.perf_counter()
            network(mixture)
            taken[name].append(time.perf_counter() - start)
    return {name: median(values[1:]) for name, values in taken.items()}


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=44)
    args = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    print(machine())
    for published, ours in (
        (PublishedHDemucs(SOURCES), HDemucs()),
        (PublishedDemucs(SOURCES), Demucs()),
    ):
        medians = measure(contestants(published, ours), args.seconds, args.rounds)
        for name, seconds in medians.items():
            ratio = medians[PUBLISHED] / seconds
            print(f"{type(ours).__name__}: {name}: {seconds:.2f} s, {ratio:.2f}x", flush=True)


if __name__ == "__main__":
    main()
