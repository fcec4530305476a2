"""A researcher's path: fine-tune the small model for karaoke, test the gain, and use it in demucs.

    python examples/fine_tune.py [FOLDER]

About four minutes on two cores, on generated music; with your own music, change `data.train` and
`steps`. FOLDER (build/fine_tune by default) gets the music in the layout of MoisesDB, the
configuration, the models, the scores, and `karaoke.th`, which the `demucs` package reads.
"""

import json
import random
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import soxr
import torch
from torch import Tensor

from htdemucs import AudioEncoding, Separator
from htdemucs.audio import AudioWriter
from song import SAMPLE_RATE, stems

TRAINING_SONGS, TEST_SONGS = 10, 12
CONFIG = """
out: {out}
init_from: mini
sources: [vocals, band]
renamed: {{band: [drums, bass, other]}}  # begins as their sum
data:
  train: [{{path: {music}, mapping: {mapping}}}]
  valid: [{valid}]
  segment: 4
batch_size: 4
steps: 60
valid_every: 30
log_every: 10
best_by: nsdr
optim: {{lr: 3e-4, warmup: 5}}
"""
# As the shipped mapping of MoisesDB, but with everything that is not sung as one source.
MAPPING = """
track: data.json
files: "*/*"
label: folder
sources: {vocals: [vocals], band: ["*"]}
"""


@cache
def composition() -> dict[str, Tensor]:
    """Return the stems that all songs are made of."""
    return stems()


def compose(seed: int) -> dict[str, Tensor]:
    """Return the stems of a song in another key and tempo, with other levels: (2, L) each."""
    draw = random.Random(seed)
    rate = SAMPLE_RATE * 2 ** (draw.randint(-5, 5) / 12)
    return {
        name: draw.uniform(0.5, 1.2)
        * torch.from_numpy(soxr.resample(sound.T.numpy(), rate, SAMPLE_RATE).T.copy())
        for name, sound in composition().items()
    }


def write(path: Path, waveform: Tensor) -> None:
    """Write a WAV file of 32-bit floats."""
    with AudioWriter(path, SAMPLE_RATE, 2, AudioEncoding("wav", bit_depth=32)) as writer:
        writer.write(waveform)


def write_moisesdb(folder: Path, songs: range) -> None:
    """Write songs as MoisesDB stores them: SONG/data.json and SONG/STEM/ID.wav."""
    for seed in songs:
        parts = []
        for name, sound in compose(seed).items():
            write(folder / f"song-{seed}" / name / f"{name}-{seed}.wav", sound)
            tracks = [{"id": f"{name}-{seed}", "extension": "wav"}]
            parts.append({"stemName": name, "tracks": tracks})
        about = {"artist": "htdemucs", "song": f"Song {seed}", "stems": parts}
        (folder / f"song-{seed}" / "data.json").write_text(json.dumps(about))


def write_pairs(folder: Path, songs: range) -> None:
    """Write songs for validation and tests: SONG/vocals.wav and SONG/band.wav."""
    for seed in songs:
        sounds = compose(seed)
        vocals = sounds.pop("vocals")
        write(folder / f"song-{seed}" / "vocals.wav", vocals)
        write(folder / f"song-{seed}" / "band.wav", torch.stack([*sounds.values()]).sum(0))


def separate_before(folder: Path, songs: range) -> None:
    """Separate the songs with the model that training starts from, whose stems are summed."""
    separator = Separator("mini", shifts=0)
    for seed in songs:
        mixture = torch.stack([*compose(seed).values()]).sum(0)
        separated = separator.separate(mixture, SAMPLE_RATE)
        vocals = separated["vocals"]
        rest = torch.stack([separated[name] for name in ("drums", "bass", "other")]).sum(0)
        write(folder / f"song-{seed}" / "vocals.wav", vocals)
        write(folder / f"song-{seed}" / "band.wav", rest)


def run(*words: object) -> None:
    """Run a command of htdemucs, after showing it."""
    arguments = [str(word) for word in words]
    print("\n$ htdemucs " + " ".join(arguments), flush=True)
    subprocess.run([sys.executable, "-m", "htdemucs", *arguments], check=True)


def main(folder: Path) -> None:
    """Take all steps in a folder."""
    songs = range(TRAINING_SONGS + TEST_SONGS + 2)
    training, valid = songs[:TRAINING_SONGS], songs[TRAINING_SONGS : TRAINING_SONGS + 2]
    test = songs[TRAINING_SONGS + 2 :]
    music, run_folder = folder / "moisesdb", folder / "run"
    print(f"writing {len(songs)} songs to {folder}")
    write_moisesdb(music, training)
    write_pairs(folder / "valid", valid)
    write_pairs(folder / "test", test)
    mapping = folder / "karaoke.yaml"
    mapping.write_text(MAPPING)
    config = CONFIG.format(out=run_folder, music=music, mapping=mapping, valid=folder / "valid")
    (folder / "config.yaml").write_text(config)

    run("train", folder / "config.yaml")

    separate_before(folder / "before", test)
    scores = [folder / f"{name}.json" for name in ("before", "after")]
    options = ("--no-oracle", "--shifts", 0, "--json")
    run("evaluate", folder / "test", "--estimates", folder / "before", *options, scores[0])
    run("evaluate", run_folder / "best", folder / "test", *options, scores[1])
    run("evaluate", "--compare", *scores)

    run("convert", run_folder / "best", folder / "karaoke.th")
    if find_spec("demucs") is None:
        print(f"demucs is not installed; to use the model there: demucs --repo {folder} -n karaoke")
        return
    compare_with_demucs(run_folder / "best", folder, test[0])


def compare_with_demucs(model: Path, repo: Path, seed: int) -> None:
    """Separate a song with demucs and with this package, and print how far they agree."""
    from demucs.api import Separator as PublishedSeparator

    mixture = torch.stack([*compose(seed).values()]).sum(0)
    _, theirs = PublishedSeparator("karaoke", repo=repo, shifts=0).separate_tensor(mixture)
    ours = Separator(model, shifts=0, precision="fp32").separate(mixture, SAMPLE_RATE)
    error = torch.stack([theirs[name] - ours[name] for name in ours])
    power = torch.stack([*theirs.values()]).square().sum()
    print(f"\ndemucs and htdemucs agree to {10 * torch.log10(power / error.square().sum()):.0f} dB")


if __name__ == "__main__":
    default = Path(__file__).parents[1] / "build" / "fine_tune"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
