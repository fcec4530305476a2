"""Separate a folder again and again, killed at random moments, until nothing is missing.

    python -m tests.soak FOLDER [--kills 20] [--seed 0] [-n mini] [-- OPTIONS OF separate]

First once without disturbance, then with `kill -9` at random moments. Prints what happened, and
exits with 1 if a single byte of a single file differs, or anything is left over. Where a folder is
finished before it was killed often enough, it is begun again.
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
    """Of every file but the manifests, which hold times: its hash."""
    found = sorted(p for p in out.rglob("*") if p.is_file() and p.name != MANIFEST)
    return {str(p.relative_to(out)): sha256(p.read_bytes()).hexdigest() for p in found}


def disturb(folder: Path, out: Path, words: list[str], delays: Iterator[float]) -> int:
    """Start the command and kill it, until it once ends by itself; give how often it was killed."""
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
        print(f"kill after {delay:.1f} s: {done} tracks finished, {begun} begun", flush=True)
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
        # From before the first file is opened to where many tracks are done.
        delays = iter(lambda: draw.uniform(0, 3 * seconds / arguments.kills + 3), None)
        kills = rounds = wrong = 0
        while kills < arguments.kills:
            disturbed = Path(name) / f"disturbed {rounds}"
            rounds += 1
            kills += disturb(arguments.folder, disturbed, words, delays)
            wrong += judge(arguments.folder, whole, disturbed, words, first)
            shutil.rmtree(disturbed)
        print(f"{rounds} rounds, {kills} kills, {wrong} of them not the same in the end")
        return int(wrong > 0)


def judge(
    folder: Path, whole: Path, disturbed: Path, words: list[str], first: dict[str, Any]
) -> bool:
    """Finish what was disturbed, and say whether it differs from what was not."""
    last = summary(separate(folder, disturbed, words))
    again = summary(separate(folder, disturbed, words))
    expected, found = stems(whole), stems(disturbed)
    differing = [path for path in expected | found if expected.get(path) != found.get(path)]
    print(
        f"in the end {last['skipped']} tracks skipped, {last['separated']} separated, "
        f"{last['failed']} failed; the next time {again['skipped']} skipped; "
        f"{len(expected)} files compared, {len(differing)} differ or are too many: {differing}",
        flush=True,
    )
    return bool(differing) or again["separated"] > 0 or last["failed"] != first["failed"]


if __name__ == "__main__":
    sys.exit(main())
