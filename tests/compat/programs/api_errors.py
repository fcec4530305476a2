"""A second model where the first is missing; a song that is none."""

import json
import sys
from pathlib import Path

from demucs.api import LoadAudioError, Separator
from demucs.repo import ModelLoadingError

song, out, repo = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
told = []
try:
    separator = Separator("best", repo=repo)
except ModelLoadingError:
    told.append("no such model")
    separator = Separator("mine", repo=repo, shifts=0)
text = out / "text.wav"
text.write_text("no audio")
for path in (text, song):
    try:
        separator.separate_audio_file(path)
        told.append(path.name)
    except LoadAudioError as error:
        told.append(type(error).__name__)
(out / "told.json").write_text(json.dumps(told))
