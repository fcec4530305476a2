"""Separates the example song, offline, with randomly initialised weights.

The official weights are not part of this package. Until its own small model is, this shows the
main job on a full-size network in the official checkpoint format; what comes out is not music.
"""

import subprocess
import sys
from pathlib import Path

import torch

from htdemucs import HTDemucs
from htdemucs.weights import official

EXAMPLES = Path(__file__).parent
BUILD = EXAMPLES.parent / "build" / "demo"


def main() -> None:
    """Write a random checkpoint if there is none yet, then run the command people use."""
    checkpoint = BUILD / "random.safetensors"
    if not checkpoint.exists():
        torch.manual_seed(0)
        official.write(HTDemucs(), checkpoint)
    print("Weights: random (in the official format), so the stems are noise, not instruments.")
    print("For real stems: htdemucs separate SONG (downloads the official htdemucs, 84 MB).")
    command = ["separate", str(EXAMPLES / "song.flac"), "-n", str(checkpoint), "-o", str(BUILD)]
    print("$ htdemucs " + " ".join(command))
    subprocess.run([sys.executable, "-m", "htdemucs", *command], check=True)
    for stem in sorted((BUILD / checkpoint.stem / "song").iterdir()):
        print(f"  {stem.relative_to(EXAMPLES.parent)}  {stem.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
