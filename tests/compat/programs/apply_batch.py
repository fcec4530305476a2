"""A batch of songs of different lengths, and a callback if `apply_model` has one."""

import inspect
import json
import sys
from pathlib import Path

import soundfile as sf
import torch
from demucs.apply import apply_model
from demucs.audio import convert_audio
from demucs.pretrained import get_model

out = Path(sys.argv[2])
model = get_model("htdemucs")
samples, rate = sf.read(sys.argv[1], dtype="float32")
mono = torch.from_numpy(samples.T).mean(0)
songs = [mono, mono[:9_000]]
wavs = [convert_audio(song[None], rate, model.samplerate, model.audio_channels).T for song in songs]
batch = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True).transpose(1, 2)
seen, options = [], {}
if "callback" in inspect.signature(apply_model).parameters:
    options["callback"] = seen.append
stems = apply_model(model, batch, **options)
for number, (song, stem) in enumerate(zip(songs, stems, strict=True)):
    vocals, rest = stem[-1, :, : len(song)].mean(0), stem[:-1, :, : len(song)].sum(0).mean(0)
    sf.write(out / f"{number}.wav", torch.stack([vocals, rest]).numpy().T, rate, subtype="FLOAT")
(out / "seen.json").write_text(json.dumps([seen[0], seen[-1]]))
