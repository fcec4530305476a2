"""A song in chunks of a second, by the first member of a bag."""

import sys

import soundfile as sf
import torch
from demucs.apply import BagOfModels, apply_model
from demucs.htdemucs import HTDemucs
from demucs.pretrained import get_model

model = get_model("htdemucs_ft")
if isinstance(model, BagOfModels):
    assert model.max_allowed_segment == 1
    assert len(model.weights) == len(model.models)
    model = model.models[0]
assert isinstance(model, HTDemucs)
samples, rate = sf.read(sys.argv[1], dtype="float32")
chunks = torch.from_numpy(samples.T).split(int(rate * float(model.segment)), dim=-1)
drums = []
for chunk in chunks:
    drums.append(apply_model(model, chunk[None], shifts=0, split=False)[0, 0])
with torch.inference_mode():
    whole = model(chunks[0][None])[0, 0]
sf.write(f"{sys.argv[2]}/drums.wav", torch.cat(drums, -1).numpy().T, rate, subtype="FLOAT")
sf.write(f"{sys.argv[2]}/first.wav", whole.numpy().T, rate, subtype="FLOAT")
