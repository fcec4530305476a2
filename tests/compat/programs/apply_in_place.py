"""Tensors changed in place, segments set on networks, and stems taken by their indices."""

import sys

import soundfile as sf
import torch
from demucs.apply import BagOfModels, apply_model
from demucs.audio import convert_audio
from demucs.pretrained import get_model

model = get_model("htdemucs_ft").cpu().eval()
assert isinstance(model, BagOfModels)
for network in model.models:
    network.segment = 0.7
samples, rate = sf.read(sys.argv[1], dtype="float32")
wav = convert_audio(torch.from_numpy(samples.T)[None], rate, model.samplerate, 2)
ref = wav.mean((0, 1))
wav -= ref.mean()
wav /= ref.std()
stems = apply_model(model, wav, device=torch.device("cpu"), shifts=2, num_workers=2)
stems *= ref.std()
stems += ref.mean()
chosen = stems[:, torch.LongTensor([model.sources.index(name) for name in ("vocals", "other")])]
mono = convert_audio(chosen.sum(1), model.samplerate, model.samplerate, 1)
sf.write(f"{sys.argv[2]}/mono.wav", mono[0].numpy().T, rate, subtype="FLOAT")
rest = None
for stem, name in zip(stems[0], model.sources, strict=True):
    if name != "vocals":
        rest = stem if rest is None else rest.add_(stem)
sf.write(f"{sys.argv[2]}/rest.wav", rest.numpy().T, rate, subtype="FLOAT")
