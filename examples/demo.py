"""Separate the example song, offline, with the small model that comes with the package."""

import shlex
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent
BUILD = EXAMPLES.parent / "build" / "demo"


def main() -> None:
    """Run the command and list the stems."""
    command = ["separate", str(EXAMPLES / "song.flac"), "-n", "mini", "-o", str(BUILD)]
    print("$ htdemucs " + shlex.join(command))
    subprocess.run([sys.executable, "-m", "htdemucs", *command], check=True)
    for stem in sorted((BUILD / "mini" / "song").glob("*.wav")):
        print(f"  {stem.relative_to(EXAMPLES.parent)}  {stem.stat().st_size / 1e6:.1f} MB")
    print("mini is small and learnt from synthesised songs: it shows how things work.")
    program = Path(sys.executable).with_name("htdemucs")
    shown = str(program) if program.exists() else "htdemucs"
    print("Listen and mix in a browser:")
    print("  " + shlex.join([shown, "serve", "-n", "mini", "--library", str(BUILD), "--open"]))
    print("For real work: htdemucs separate SONG (downloads the official htdemucs, 84 MB).")


if __name__ == "__main__":
    main()
