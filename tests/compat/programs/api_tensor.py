"""A singer once more, from and to NumPy."""

import sys

import numpy as np
import soundfile as sf
import torch
from demucs.api import Separator

samples, rate = sf.read(sys.argv[1], dtype="float32", always_2d=True)
separator = Separator(device="cpu", split=True, jobs=2)
mix = torch.from_numpy(np.ascontiguousarray(samples.T))
origin, stems = separator.separate_tensor(mix, rate)
assert set(separator.model.sources) == set(stems)
assert origin.shape == (separator.audio_channels, len(samples))
instrumental = sum(stem for name, stem in stems.items() if name != "vocals")
for name, wav in (("vocals", stems["vocals"]), ("instrumental", instrumental)):
    sf.write(f"{sys.argv[2]}/{name}.wav", wav.cpu().numpy().T, rate, subtype="FLOAT")
