"""A job with a share of progress that a second run cancels."""

import json
import sys
from pathlib import Path

import torch
from demucs.api import Separator, save_audio

song, out = Path(sys.argv[1]), Path(sys.argv[2])
shares = []


def on_segment(info):
    if info["state"] != "end" or not info["audio_length"]:
        return
    done = info["shift_idx"] + info["segment_offset"] / info["audio_length"]
    shares.append(round((info["model_idx_in_bag"] + done / 2) / info["models"], 3))
    if info["job"] == "second":
        raise KeyboardInterrupt


device = "cuda" if torch.cuda.is_available() else "cpu"
separator = Separator("htdemucs_ft", device=device, shifts=2, overlap=0.1)
separator.update_parameter(callback=on_segment, callback_arg={"job": "first"})
_, stems = separator.separate_audio_file(song)
save_audio(
    stems["drums"].cpu(), out / "drums.wav", separator.samplerate, clip="none", as_float=True
)
separator.update_parameter(callback_arg={"job": "second"})
try:
    separator.separate_audio_file(song)
except KeyboardInterrupt:
    shares.append("cancelled")
(out / "shares.json").write_text(json.dumps(shares))
