"""The command's function, given its words in this process's own place for them."""

import sys

from demucs.separate import main as demucs_main

song, out = sys.argv[1:3]
before = sys.argv
sys.argv = ["demucs", "-n", "htdemucs", "--shifts=0", "--int24", "-j", "2", "--out", out, song]
sys.argv += ["--filename", "{track}-{stem}.{ext}", "--clip-mode", "clamp"]
try:
    demucs_main()
except SystemExit as ending:
    if ending.code:
        raise
finally:
    sys.argv = before
