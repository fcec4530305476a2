"""A network by its file, as programs with models of their own load it."""

import sys
from pathlib import Path

import torch
from demucs.api import list_models
from demucs.apply import apply_model
from demucs.audio import save_audio
from demucs.states import load_model

repo = Path(sys.argv[3])
names = list_models(repo)
model = load_model(str(names["single"]["aaaaaaa0"]))
model.eval()
generator = torch.Generator().manual_seed(1)
noise = 0.1 * torch.randn(1, 2, 12_500, generator=generator)
[stems] = apply_model(model, noise, shifts=0, segment=0.5, overlap=0.5)
for name in sorted(names["bag"]):
    save_audio(stems[3], f"{sys.argv[2]}/{name}.wav", model.samplerate, clip="tanh", as_float=True)
