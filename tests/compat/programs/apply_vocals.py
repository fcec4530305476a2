"""Vocals at the level of the song, with the normalisation by hand."""

import sys

import soundfile as sf
import torch
from demucs.apply import apply_model
from demucs.pretrained import get_model

model = get_model("htdemucs")
model.to("cpu")
model.eval()
samples, rate = sf.read(sys.argv[1], dtype="float32")
wav = torch.from_numpy(samples.T)
if wav.shape[0] == 1:
    wav = wav.repeat(2, 1)
ref = wav.mean(0)
wav = (wav - ref.mean()) / ref.std()
with torch.no_grad():
    sources = apply_model(model, wav[None], device="cpu", split=True, overlap=0.25, progress=True)[
        0
    ]
sources = sources * ref.std() + ref.mean()
vocals = sources[model.sources.index("vocals")]
sf.write(f"{sys.argv[2]}/vocals.wav", vocals.numpy().T, model.samplerate, subtype="FLOAT")
