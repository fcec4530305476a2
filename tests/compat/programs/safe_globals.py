"""A file is loaded without running its code, with the class that it names."""

import sys
from fractions import Fraction
from pathlib import Path

import soundfile as sf
import torch
from demucs.htdemucs import HTDemucs
from demucs.separate import *  # noqa: F403

out, repo = Path(sys.argv[2]), Path(sys.argv[3])
with torch.serialization.safe_globals([HTDemucs, Fraction]):
    package = torch.load(out.parent / "safe.th", weights_only=True)
model = package["klass"](**package["kwargs"]).eval()
model.load_state_dict(package["state"])
assert isinstance(model, HTDemucs)
assert callable(get_parser)  # noqa: F405
noise = 0.1 * torch.randn(1, 2, 9_000, generator=torch.Generator().manual_seed(2))
with torch.no_grad():
    sf.write(out / "drums.wav", model(noise)[0, 0].numpy().T, model.samplerate, "FLOAT")
