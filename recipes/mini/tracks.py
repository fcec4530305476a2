"""A track's folder: one WAV file a stem, and `track.json`; it appears whole or not at all."""

import json
import shutil
from pathlib import Path
from typing import Any

import soundfile

from recipes.mini.mixing.audio import SAMPLE_RATE
from recipes.mini.mixing.mixdown import Stems

ABOUT = "track.json"  # what a track was made with


def write_track(folder: Path, stems: Stems, about: dict[str, Any]) -> None:
    """Write int16 stems (L, 2) and what is to be known about them."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, samples in stems.items():
        soundfile.write(partial / f"{name}.wav", samples, SAMPLE_RATE, subtype="PCM_16")
    text = json.dumps(about, indent=1, ensure_ascii=False)
    (partial / ABOUT).write_text(text, encoding="utf-8")
    partial.rename(folder)
