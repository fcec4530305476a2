"""Separate a folder again and again, and kill the command at random moments, until all is finished.

    python -m tests.soak FOLDER [--kills 20] [--seed 0] [-n mini] [-- OPTIONS OF separate]

The first run is not disturbed; the others meet `kill -9` at random moments. If a folder is finished
before enough kills, it is separated again from the start. Prints every kill and the comparisons,
and exits with 1 if a byte of a file differs from the first run, or if there is a file too many.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

MANIFEST = "htdemucs.json"


def separate(folder: Path, out: Path, words: list[str]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "htdemucs", "separate", folder, "-o", out, "-q", "--json"]
    return subprocess.Popen([*command, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def summary(process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    output, _ = process.communicate()
    if process.returncode not in (0, 1):
        raise SystemExit(f"separate ended with {process.returncode}")
    return dict(json.loads(output))


def stems(out: Path) -> dict[str, str]:
    """Return the hash of every file by its path, except manifests, which hold times."""
    files = sorted(p for p in out.rglob("*") if p.is_file() and p.name != MANIFEST)
    return {str(p.relative_to(out)): sha256(p.read_bytes()).hexdigest() for p in files}


def disturb(folder: Path, out: Path, words: list[str], delays: Iterator[float]) -> int:
    """Start and kill the command until it ends by itself once; return the number of kills."""
    kills = 0
    for delay in delays:
        process = separate(folder, out, words)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        if process.returncode != -signal.SIGKILL:
            break
        kills += 1
        done, begun = (len(list(out.rglob(name))) for name in (MANIFEST, ".htdemucs-*.work"))
        print(f"kill after {delay:.1f} s: {done} tracks finished, {begun} started", flush=True)
    return kills


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("words", nargs="*", help="options of separate, after --")
    arguments = parser.parse_args()
    words = arguments.words or ["-n", "mini"]
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="htdemucs-soak-") as name:
        whole = Path(name) / "whole"
        started = time.monotonic()
        first = summary(separate(arguments.folder, whole, words))
        seconds = time.monotonic() - started
        count, duration = first["separated"], first["duration"]
        print(f"undisturbed: {count} tracks of {duration:.0f} s in {seconds:.0f} s", flush=True)
        # Some kills come before the first file is opened, some when many tracks are done.
        delays = iter(lambda: draw.uniform(0, 3 * seconds / arguments.kills + 3), None)
        kills = rounds = wrong = 0
        while kills < arguments.kills:
            disturbed = Path(name) / f"disturbed {rounds}"
            rounds += 1
            kills += disturb(arguments.folder, disturbed, words, delays)
            wrong += judge(arguments.folder, whole, disturbed, words, first)
            shutil.rmtree(disturbed)
        print(f"{rounds} rounds with {kills} kills; {wrong} rounds ended with other files")
        return int(wrong > 0)


def judge(
    folder: Path, whole: Path, disturbed: Path, words: list[str], first: dict[str, Any]
) -> bool:
    """Finish the disturbed run, and return whether it differs from the first run."""
    last = summary(separate(folder, disturbed, words))
    again = summary(separate(folder, disturbed, words))
    expected, actual = stems(whole), stems(disturbed)
    differing = [path for path in expected | actual if expected.get(path) != actual.get(path)]
    print(
        f"last run: {last['skipped']} tracks skipped, {last['separated']} separated, "
        f"{last['failed']} failed; another run: {again['skipped']} skipped; "
        f"{len(expected)} files compared, {len(differing)} differ or are too many: {differing}",
        flush=True,
    )
    return bool(differing) or again["separated"] > 0 or last["failed"] != first["failed"]


if __name__ == "__main__":
    sys.exit(main())
