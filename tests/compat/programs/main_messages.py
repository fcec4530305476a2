"""The lines on standard output, from which programs take the number of bars, folder and track."""

import io
import json
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path

from demucs.separate import main

song, out, repo = sys.argv[1:4]
shown = io.StringIO()
with redirect_stdout(shown):
    main(["-n", "htdemucs_ft", "--shifts=0", "--float32", "-d", "cpu", "-o", out, song])
    main(["-n", "aaaaaaa0", "--repo", repo, "--shifts=0", "--float32", "-o", out, song])
patterns = ["Selected model is a bag of ([0-9]+) models", "stored in (.*)", "Separating track (.*)"]
found = [re.findall(pattern, shown.getvalue()) for pattern in patterns]
found[1] = [str(Path(folder).relative_to(Path(out).resolve())) for folder in found[1]]
(Path(out) / "found.json").write_text(json.dumps(found))
