"""A small MUSDB18-HQ folder, and runs on it."""

import numpy as np
import soundfile
import yaml

from helpers import TINY
from htdemucs.training.dataset import Recording
from htdemucs.training.layouts import folder_track

RATE = TINY["sample_rate"]
SOURCES = ("drums", "bass", "other", "vocals")
VALIDATION = "ANiMAL - Rockshow"  # one of the 14
MODEL = TINY | {"channels": 4, "bottom_channels": 8, "t_layers": 1, "dconv_comp": 2}
SECONDS = 3


def track(folder, seed, seconds=SECONDS, sources=SOURCES, rate=RATE, suffix=".wav", mixture=True):
    """Stems that can be told apart: each in a band of its own, an octave and more wide."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    total = 0
    for i, source in enumerate(sources):
        spectrum = np.fft.rfft(draw.standard_normal((2, seconds * rate)))
        hertz = np.fft.rfftfreq(seconds * rate, 1 / rate)
        spectrum *= (hertz > 60 * 3**i) & (hertz < 180 * 3**i)
        wave = np.fft.irfft(spectrum)
        wave *= 0.1 / wave.std()
        soundfile.write(folder / f"{source}{suffix}", wave.T, rate, "PCM_16")
        total = total + wave
    if mixture:
        soundfile.write(folder / f"mixture{suffix}", total.T, rate, "PCM_16")
    return folder


def recording(folder, length, sources=SOURCES, **fields):
    """A track to cut examples from."""
    files = folder_track(folder, sources).files
    return Recording(folder.name, folder, files, length, 1.0, **fields)


def musdb(root, tracks=3):
    """The layout its users have: `train/` with a standard validation track, and `test/`."""
    for i in range(tracks):
        track(root / "train" / f"Artist {i} - Song", i)
    track(root / "train" / VALIDATION, 100)
    track(root / "test" / "Artist 9 - Song", 200)
    return root


def fields(musdb, out, **changes):
    """A configuration as its file holds it."""
    made = {
        "out": str(out),
        "model": MODEL,
        "data": {"musdb": str(musdb), "workers": 0, "segment": 0.5},
        "augment": {"shift": 0.1, "remix_group": 2},
        "optim": {"lr": 1e-3, "ema": [0.9]},
        "batch_size": 4,
        "steps": 6,
        "valid_every": 100,
        "save_every": 100,
        "log_every": 2,
        "device": "cpu",
        "tensorboard": False,
    }
    return made | changes


def write_config(path, made):
    path.write_text(yaml.safe_dump(made), encoding="utf-8")
    return path
