"""The command's function with a line of words, then the files it must have written."""

import shlex
import sys
from pathlib import Path

import demucs.separate

song, out = Path(sys.argv[1]), Path(sys.argv[2])
words = f'--two-stems vocals -n htdemucs_ft --shifts 0 --float32 -d cpu -o "{out}" "{song}"'
demucs.separate.main(shlex.split(words))
folder = out / "htdemucs_ft" / song.stem
for name in ("vocals", "no_vocals"):
    (folder / f"{name}.wav").rename(out / f"{name}.wav")
folder.rmdir()
