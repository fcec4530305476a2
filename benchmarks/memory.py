"""Measure peak memory for tracks of several lengths, with a network of the released size.

    python -m benchmarks.memory SONG [--minutes 5 60]

Each track is the song, repeated to fill the minutes.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.checkpoints import NAME, released_size
from benchmarks.processes import machine, measure
from htdemucs import AudioEncoding, AudioFile
from htdemucs.audio import AudioWriter


def repeat(song: Path, minutes: int, target: Path) -> Path:
    """Write a FLAC of `minutes` that repeats a song, and return its path."""
    audio = AudioFile(song)
    missing = minutes * 60 * audio.sample_rate
    with AudioWriter(target, audio.sample_rate, audio.channels, AudioEncoding("flac")) as writer:
        while missing:
            for block in audio:
                writer.write(block[:, :missing])
                missing -= min(missing, block.shape[1])
    return target


def main() -> None:
    """Run the command on each length and print a row for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("song", type=Path)
    parser.add_argument("--minutes", type=int, nargs="+", default=[5, 60])
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repo = released_size(folder / "repo")
        for minutes in options.minutes:
            song = repeat(options.song, minutes, folder / f"{minutes}.flac")
            words: list[str | Path] = [
                "-n",
                NAME,
                "--repo",
                repo,
                "-d",
                "cpu",
                "-o",
                folder / "out",
                song,
            ]
            usage = measure([sys.executable, "-m", "htdemucs", "separate", *words])
            print(f"{minutes:4} min {usage.peak_mib:8.0f} MiB {usage.seconds:8.1f} s", flush=True)


if __name__ == "__main__":
    main()
