"""Damage files in many ways, and try to separate each of them.

    python -m tests.fuzz [--count 2000] [--seed 0] [--keep FOLDER]

Prints counts by format and outcome. A violation is a traceback, a hang, a crash, memory that grows,
a file outside the output folder, or wrong stems. Its input is copied to the --keep folder, and the
exit code is 1.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.cases import cases
from tests.fuzz.oracle import Judge
from tests.fuzz.seeds import make_seeds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-violations"))
    arguments = parser.parse_args()
    counts: Counter[tuple[str, str]] = Counter()
    violations, slowest, started = 0, 0.0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="htdemucs-fuzz-") as name, Judge() as judge:
        seeds = make_seeds(Path(name) / "seeds")
        for case in cases(seeds, arguments.count, arguments.seed):
            path = case.write(Path(name) / "case")
            start = time.monotonic()
            outcome, message = judge(path)
            slowest = max(slowest, time.monotonic() - start)
            counts[case.format, outcome] += 1
            if outcome == "VIOLATION":
                violations += 1
                arguments.keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, arguments.keep / f"{case.number}-{case.name}")
                print(f"{case.number} {case.mutation} of {case.source}: {message}", flush=True)
    outcomes = ("separated", "refused", "VIOLATION")
    for kind in sorted({kind for kind, _ in counts}):
        print(f"{kind:6}", *(f"{counts[kind, o]:6} {o}" for o in outcomes))
    totals = [sum(n for (_, o), n in counts.items() if o == outcome) for outcome in outcomes]
    print("total ", *(f"{n:6} {o}" for n, o in zip(totals, outcomes, strict=True)))
    print(f"{time.monotonic() - started:.0f} s in all, the slowest file {slowest:.1f} s")
    return int(violations > 0)


if __name__ == "__main__":
    sys.exit(main())
