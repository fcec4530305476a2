"""A test's own small network, with the parameters of a file."""

import sys
from pathlib import Path

import soundfile as sf
import torch
from demucs.apply import BagOfModels, apply_model
from demucs.htdemucs import HTDemucs
from demucs.states import load_model

out, repo = Path(sys.argv[2]), Path(sys.argv[3])
package = torch.load(repo / "aaaaaaa0.th", map_location="cpu", weights_only=False)
keywords = package["kwargs"]
model = HTDemucs(
    sources=list(keywords["sources"]),
    channels=keywords["channels"],
    samplerate=keywords["samplerate"],
    dconv_mode=3,
    bottom_channels=32,
    t_layers=3,
    t_heads=4,
    segment=1.0,
).eval()
model.load_state_dict(package["state"])
bag = BagOfModels([model, load_model(package)])
generator = torch.Generator().manual_seed(2)
noise = 0.1 * torch.randn(1, 2, 15_000, generator=generator)
with torch.no_grad():
    stems = apply_model(bag, noise, shifts=0)[0]
sf.write(out / "drums.wav", stems[0].numpy().T, bag.samplerate, subtype="FLOAT")
whole = model(noise[..., :7_500])[0, 1].detach().numpy().T
sf.write(out / "whole.wav", whole, model.samplerate, "FLOAT")
