"""Compare this package with the published one on the same files with the same weights.

    python -m benchmarks.compare SONG... [--rounds 3] [--json OUT] [--plot OUT.svg] [--kernels avx2]

The programs run alternately. Prints medians, ratios and peak memory for one segment through the
network (also with OpenVINO and ONNX Runtime, if installed), whole files to four stems, and one stem
of a bag of four. With --kernels, both programs are limited to these instructions, and the other
runtimes are omitted.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.checkpoints import BAG, NAME, released_size
from benchmarks.forward import PUBLISHED
from benchmarks.plot import draw
from benchmarks.processes import BUILDS, Usage, limit, machine, measure

Command = list[str | Path]
ONE_STEM = ("--two-stems", "vocals", "--other-method", "none")


def separations(songs: list[Path], repo: Path, out: Path) -> dict[str, dict[str, Command]]:
    """Return the commands of each comparison; both programs get the same arguments."""

    def program(module: str, *words: str | Path) -> Command:
        command: Command = [sys.executable, "-m", *module.split(), *words]
        return [*command, "-d", "cpu", "-o", out / "stems", *songs]

    ours, theirs = "htdemucs separate --no-skip-existing", "demucs.separate"
    fp32 = ("--precision", "fp32")
    one, bag = ("-n", NAME, "--repo", repo), ("-n", BAG, "--repo", repo, *ONE_STEM)
    return {
        "four stems": {
            PUBLISHED: program(theirs, *one),
            "htdemucs, fp32": program(ours, *one, *fp32),
            "htdemucs": program(ours, *one),
        },
        "one stem of a bag of four": {
            PUBLISHED: program(theirs, *bag),
            "htdemucs, fp32": program(ours, *bag, *fp32),
            "htdemucs": program(ours, *bag),
        },
        "four stems with the small model": {
            "htdemucs": program(ours, "-n", "mini"),
        },
    }


def run(songs: list[Path], rounds: int) -> dict[str, Any]:
    """Run all measurements and return them, for a JSON file."""
    result: dict[str, Any] = {"machine": machine(), "songs": len(songs), "rounds": rounds}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        repo = released_size(scratch / "repo")
        forward = subprocess.run(
            [sys.executable, "-m", "benchmarks.forward", repo, str(max(rounds, 5))],
            check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        result["forward"] = json.loads(forward.stdout.splitlines()[-1])
        _print_forward(result["forward"])
        for title, commands in separations(songs, repo, scratch).items():
            usages: dict[str, list[Usage]] = {name: [] for name in commands}
            for _ in range(rounds):
                for label, command in commands.items():
                    usages[label].append(measure(command))
            result[title] = {
                label: {
                    "seconds": median(usage.seconds for usage in usages[label]),
                    "peak_mib": median(usage.peak_mib for usage in usages[label]),
                }
                for label in usages
            }
            _print_files(title, result[title])
    return result


def _print_forward(forward: Mapping[str, Any]) -> None:
    times, rates = forward["seconds"], forward["matrix_rate"]
    print("\n| one segment (7.8 s) | s | speed | difference | of the matrix rate |")
    print("|---|---|---|---|---|")
    for name, seconds in times.items():
        rate = rates["bf16" if "bf16" in name else "fp32"]
        print(
            f"| {name} | {seconds:.2f} | {times[PUBLISHED] / seconds:.2f}x "
            f"| {forward['error_db'][name]:.0f} dB | {forward['flop'] / seconds / rate:.0%} |"
        )
    print(
        f"\n{forward['flop'] / 1e9:.0f} GFLOP; measured matrix rate "
        + ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in rates.items()),
        flush=True,
    )


def _print_files(title: str, runs: Mapping[str, Mapping[str, float]]) -> None:
    print(f"\n| {title} | s | speed | peak |\n|---|---|---|---|")
    for label, usage in runs.items():
        ratio = runs[PUBLISHED]["seconds"] / usage["seconds"] if PUBLISHED in runs else None
        speed = f"{ratio:.2f}x" if ratio else ""
        print(
            f"| {label} | {usage['seconds']:.1f} | {speed} | {usage['peak_mib']:.0f} MiB |",
            flush=True,
        )


def main() -> None:
    """Run all measurements, print tables, and write the files of --json and --plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("songs", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--kernels", choices=BUILDS)
    options = parser.parse_args()
    if options.kernels:
        limit(options.kernels)
    print(machine())
    result = run(options.songs, options.rounds)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        options.plot.write_text(draw(result), encoding="utf-8")


if __name__ == "__main__":
    main()
