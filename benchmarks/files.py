"""Files in, files out: this package and the published one in turn, with the same weights.

    python -m benchmarks.files SONG... [--rounds 2] [--shifts 1]

Prints seconds and peak memory of each run, their medians, and ratios.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.checkpoints import NAME, released_size
from benchmarks.processes import Usage, machine, measure


def commands(songs: list[Path], repo: Path, out: Path, shifts: int) -> dict[str, list[str | Path]]:
    """The same words for both."""
    words: list[str | Path] = ["-n", NAME, "--repo", repo, "-d", "cpu", "--shifts", str(shifts)]
    return {
        "demucs 4.1.0": [sys.executable, "-m", "demucs.separate", *words, "-o", out / "a", *songs],
        "htdemucs": [sys.executable, "-m", "htdemucs", "separate", *words, "-o", out / "b", *songs],
    }


def main() -> None:
    """Run, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("songs", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--shifts", type=int, default=1)
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        repo = released_size(Path(folder) / "repo")
        taken: dict[str, list[Usage]] = {}
        for _ in range(options.rounds):
            for name, command in commands(
                options.songs, repo, Path(folder), options.shifts
            ).items():
                usage = measure(command)
                taken.setdefault(name, []).append(usage)
                print(f"{name:14} {usage.seconds:8.1f} s {usage.peak_mib:8.0f} MiB", flush=True)
    seconds = {name: median(usage.seconds for usage in runs) for name, runs in taken.items()}
    peak = {name: median(usage.peak_mib for usage in runs) for name, runs in taken.items()}
    theirs, ours = taken
    print(
        f"speed  {seconds[theirs] / seconds[ours]:.2f}x   memory {peak[ours] / peak[theirs]:.2f}x"
    )


if __name__ == "__main__":
    main()
