"""Every stem of a file, named after it; the rest by subtraction."""

import sys
from pathlib import Path

import demucs.api

song, out = Path(sys.argv[1]), Path(sys.argv[2])
separator = demucs.api.Separator(model="htdemucs_6s", segment=1, progress=False)
origin, separated = separator.separate_audio_file(str(song))
for stem, source in separated.items():
    path = out / f"{stem}_{song.name}"
    demucs.api.save_audio(source, path, samplerate=separator.samplerate, as_float=True)
background = origin - separated["vocals"]
demucs.api.save_audio(
    background, str(out / "background.wav"), separator.samplerate, bits_per_sample=24
)
