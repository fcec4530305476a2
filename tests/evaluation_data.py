"""Small data folders to evaluate, and a scoring that kills its process."""

import os

import torch

from helpers import TINY
from htdemucs import AudioEncoding
from htdemucs.audio import AudioWriter
from htdemucs.evaluation import EvaluationOptions, evaluate
from htdemucs.evaluation.workers import ScoringJob

RATE = TINY["sample_rate"]
STEMS = ("bass", "drums", "other", "vocals")
LENGTHS = {"one": 3 * RATE + 123, "two": 2 * RATE}


def write(path, waveform, encoding=None):
    """Every value as it is, unless the encoding says otherwise."""
    encoding = encoding or AudioEncoding("wav", bit_depth=32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with AudioWriter(path, RATE, waveform.shape[0], encoding) as writer:
        writer.write(waveform.float())
    return path


def noise(seed, length, channels=2):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(channels, length, generator=generator)


def write_track(folder, seed, length, mixture=True):
    stems = {stem: noise(seed + i, length) for i, stem in enumerate(STEMS)}
    for stem, waveform in stems.items():
        write(folder / f"{stem}.wav", waveform)
    if mixture:
        write(folder / "mixture.wav", torch.stack(list(stems.values())).sum(0))
    return stems


class CrashingJob(ScoringJob):
    """Dies with the track named two; here and not in a test, so that other processes find it."""

    def score(self, folder, estimator, on_seconds):
        if folder.name == "two":
            os._exit(9)
        return super().score(folder, estimator, on_seconds)


def run(data, folder=None, model="tiny", **options):
    """Score a folder of estimates, else the model."""
    return evaluate(data, EvaluationOptions(model, estimates=folder, **options))
