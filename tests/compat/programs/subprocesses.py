"""The command as a process, its percentages read from standard error."""

import re
import subprocess
import sys

song, out = sys.argv[1:3]
for module, stem in (("demucs", "vocals"), ("demucs.separate", "drums")):
    words = ["-m", module, f"--two-stems={stem}", "--shifts", "0", "-d", "cpu", "--float32"]
    words = [sys.executable, *words, "-o", f"{out}/{stem}", song]
    ended = subprocess.run(words, check=True, capture_output=True, text=True)
    percentages = [int(digits) for digits in re.findall(r"(\d+)%\|", ended.stderr)]
    assert percentages[-1] == 100
    assert percentages == sorted(percentages)
