"""A file read and written by the package itself, one stem a source."""

import sys
from pathlib import Path

from demucs import pretrained
from demucs.apply import apply_model
from demucs.audio import AudioFile, convert_audio, save_audio

model = pretrained.get_model(name=pretrained.DEFAULT_MODEL).cpu()
try:
    wav = AudioFile(sys.argv[1]).read(
        streams=0, samplerate=model.samplerate, channels=model.audio_channels
    )
except OSError:  # the published package needs ffprobe
    import soundfile as sf
    import torch

    wav = torch.from_numpy(sf.read(sys.argv[1], dtype="float32")[0].T)
wav = convert_audio(wav, model.samplerate, model.samplerate, model.audio_channels)
stems = apply_model(model, wav.unsqueeze(0), shifts=2, num_workers=2).squeeze(0)
for stem, name in zip(stems, model.sources, strict=True):
    save_audio(stem, Path(sys.argv[2]) / f"{name}.wav", samplerate=model.samplerate, as_float=True)
