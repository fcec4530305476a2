"""Build the data set: `python -m recipes.mini.build --out DATA --hours 8 --seed 0 --jobs 2`.

Every phrase and every song appears whole or not at all, so the same command continues where it
was stopped, and training may start on the songs that are there.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from recipes.mini import attribution, plan, sources

THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and build. Return 0 when everything is there."""
    options = _parser().parse_args(arguments)
    try:
        versions = sources.check()
    except sources.MissingPackageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    os.environ |= dict.fromkeys(THREAD_LIMITS, "1")  # the processes are the parallelism
    bank = options.out / ".bank"
    _build_bank(bank, options)
    for split in options.splits:
        _build_split(split, bank, options)
    attribution.write(options.out, versions, options.seed)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m recipes.mini.build", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--hours", type=float, default=8.0, help="length of the training set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--splits", nargs="+", choices=plan.SPLITS, default=list(plan.SPLITS))
    return parser


def _build_bank(bank: Path, options: argparse.Namespace) -> None:
    from recipes.mini.singing import voices

    missing = [entry for entry in voices.bank_paths(bank) if not entry[2].exists()]
    if missing:
        voices.unpack_models()
    work = [partial(voices.add_phrase, *entry, options.seed) for entry in missing]
    _run(work, "phrases", options.jobs)


def _build_split(split: str, bank: Path, options: argparse.Namespace) -> None:
    folder = options.out / split
    planned = [
        song for song in plan.songs(options.seed, split, options.hours)
        if not (folder / song.name).exists()
    ]  # fmt: skip
    _run(
        [partial(_build_song, song, bank, folder) for song in planned],
        f"{split} songs",
        options.jobs,
    )


def _build_song(song: plan.SongPlan, bank: Path, folder: Path) -> None:
    """Make one song and move it into place."""
    from recipes.mini import songs
    from recipes.mini.mixing import audio, mixdown
    from recipes.mini.tracks import write_track

    track = songs.make(song, bank)
    written = dict(track.stems)
    if song.held_out:
        written["mixture"] = mixdown.exact_mixture(track.stems)
    about = {
        "split": song.split, "index": song.index, "seed": song.seed, "kind": song.kind,
        "seconds": round(len(track.stems["drums"]) / audio.SAMPLE_RATE, 3),
        "made_with": track.made_with,
    }  # fmt: skip
    write_track(folder / song.name, written, about)


def _run(work: Iterable[Callable[[], object]], what: str, jobs: int) -> None:
    """Run every piece of work in `jobs` processes with a line of progress.

    Raises what the first failing piece raised, after the running ones have ended.
    """
    work = list(work)
    started = time.monotonic()
    with ProcessPoolExecutor(jobs) as pool:
        futures = [pool.submit(piece) for piece in work]
        for done, future in enumerate(as_completed(futures), start=1):
            if future.exception():
                pool.shutdown(cancel_futures=True)
            future.result()
            left = (time.monotonic() - started) / done * (len(work) - done)
            print(f"\r{what}: {done} of {len(work)}, {left / 60:.0f} min left ", end="", flush=True)
    if work:
        print()


if __name__ == "__main__":
    sys.exit(main())
