"""A separator around a model that was loaded before, as programs that keep several do."""

import sys
from pathlib import Path

from demucs import pretrained
from demucs.api import Separator
from demucs.apply import BagOfModels
from demucs.audio import save_audio


class Ready(Separator):
    def __init__(self, model: BagOfModels, **parameters):
        self._model = model
        self._audio_channels = model.audio_channels
        self._samplerate = model.samplerate
        defaults = {"device": "cpu", "shifts": 1, "overlap": 0.25, "split": True, "jobs": 0}
        defaults |= {"segment": None, "progress": True, "callback": None, "callback_arg": None}
        self.update_parameter(**defaults | parameters)


song, out = Path(sys.argv[1]), Path(sys.argv[2])
separator = Ready(pretrained.get_model("htdemucs"), shifts=0)
_, stems = separator.separate_audio_file(song)
options = {"samplerate": separator.samplerate, "bitrate": 128, "clip": "none", "as_float": True}
for name in ("vocals", "drums"):
    save_audio(stems[name].cpu(), out / f"{name}.wav", preset=2, bits_per_sample=16, **options)
