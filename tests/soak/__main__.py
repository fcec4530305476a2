"""Separate a folder again and again, killed at random moments, until nothing is missing.

    python -m tests.soak FOLDER [--kills 20] [--seed 0] [-n mini] [-- OPTIONS OF separate]

First once without disturbance, then with `kill -9` at random moments. Prints what happened, and
exits with 1 if a single byte of a single file differs, or anything is left over.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
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


def killed(
    folder: Path, out: Path, words: list[str], kills: int, longest: float, draw: random.Random
) -> int:
    """Start and kill the command; give how often it was killed before it had ended by itself."""
    count = 0
    for attempt in range(10 * kills):
        if count == kills:
            break
        process = separate(folder, out, words)
        # From before the first file is opened to where some tracks are done.
        try:
            process.wait(draw.uniform(0, longest) if attempt else 0)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        count += process.returncode == -signal.SIGKILL
        done = len(list(out.rglob(MANIFEST)))
        print(f"attempt {attempt + 1}: {count} kills, {done} tracks finished", flush=True)
        if process.returncode == 0:
            break
    return count


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
        whole, disturbed = Path(name) / "whole", Path(name) / "disturbed"
        started = time.monotonic()
        first = summary(separate(arguments.folder, whole, words))
        seconds = time.monotonic() - started
        count, duration = first["separated"], first["duration"]
        print(f"undisturbed: {count} tracks of {duration:.0f} s in {seconds:.0f} s", flush=True)
        # Twice the time that is needed, shared by the attempts: most are killed, and all is done.
        longest = max(3.0, 4 * seconds / arguments.kills)
        kills = killed(arguments.folder, disturbed, words, arguments.kills, longest, draw)
        last = summary(separate(arguments.folder, disturbed, words))
        again = summary(separate(arguments.folder, disturbed, words))
        expected, found = stems(whole), stems(disturbed)
        differing = [path for path in expected | found if expected.get(path) != found.get(path)]
        resumed = sum(track["resumed"] for track in last["tracks"])
        print(
            f"{kills} kills; then {last['skipped']} tracks skipped, {last['separated']} separated "
            f"({resumed:.0f} s of them gone on with), {last['failed']} failed; "
            f"the next time {again['skipped']} skipped\n"
            f"{len(expected)} files compared, {len(differing)} differ or are too many: {differing}"
        )
        return int(bool(differing) or again["separated"] > 0 or last["failed"] != first["failed"])


if __name__ == "__main__":
    sys.exit(main())
