"""The command with the program's own writer and bar, as programs without torchcodec have it."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import demucs.apply
import demucs.audio
import demucs.separate
import soundfile as sf

song, out = sys.argv[1], Path(sys.argv[2])
shares, saved = [], []
original_bar, original_save = demucs.apply.tqdm, demucs.audio.save_audio


def save(wav, path, samplerate, bitrate=320, clip="rescale", as_float=False, **more):
    saved.append([Path(path).name, samplerate, bitrate, clip, as_float, sorted(more.items())])
    sf.write(str(path), 0.5 * wav.cpu().numpy().T, samplerate, subtype="FLOAT")


def bar(things, **_):
    things = list(things)
    for number, thing in enumerate(things, 1):
        yield thing
        shares.append(number / len(things))


demucs.apply.tqdm = SimpleNamespace(tqdm=bar)
demucs.audio.save_audio = demucs.separate.save_audio = save
words = ["--shifts=0", "-d", "cpu", "--int24", "-o", str(out), "--two-stems=vocals", song]
demucs.separate.main([*words, "-n", "htdemucs_ft", "--clip-mode", "none"])
demucs.separate.main([*words, "--other-method=minus"])
demucs.apply.tqdm = original_bar
demucs.audio.save_audio = demucs.separate.save_audio = original_save
(out / "seen.json").write_text(json.dumps([shares, sorted(saved)]))
