"""Draw `docs/stems.svg`: spectrograms of the example song and of its stems from `make demo`."""

import math
import sys
from pathlib import Path

import torch
from torch import Tensor

from htdemucs.audio import AudioFile
from htdemucs.evaluation.plots import spectrogram

ROOT = Path(__file__).parents[1]
STEMS = ROOT / "build" / "demo" / "mini" / "song"
NAMES = ("drums", "bass", "other", "vocals")
N_FFT, HOP_LENGTH = 4096, 1024
ROWS = 160  # of a picture, spaced by equal ratios of frequency
LOWEST, HIGHEST = 40.0, 16_000.0  # Hz
WIDTH, HEIGHT, GAP, LABEL = 420, 130, 8, 70  # pixels


def main() -> None:
    """Write the picture."""
    if not STEMS.is_dir():
        sys.exit("run make demo first")
    paths = {"song": ROOT / "examples" / "song.flac"}
    paths |= {name: STEMS / f"{name}.wav" for name in NAMES}
    powers = {name: rows(path) for name, path in paths.items()}
    loudest = float(powers["song"].max())
    parts = []
    for i, (name, power) in enumerate(powers.items()):
        y = i * (HEIGHT + GAP)
        parts.append(
            f'<text x="{LABEL - 10}" y="{y + HEIGHT / 2 + 5}" text-anchor="end">{name}</text>'
            f'<image x="{LABEL}" y="{y}" width="{WIDTH}" height="{HEIGHT}" '
            f'preserveAspectRatio="none" href="{spectrogram(power, loudest)}"/>'
        )
    width, height = LABEL + WIDTH, len(powers) * (HEIGHT + GAP)
    target = ROOT / "docs" / "stems.svg"
    target.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="14" fill="#888">'
        f"{''.join(parts)}</svg>\n",
        encoding="utf-8",
    )
    print(f"wrote {target}")


def rows(path: Path) -> Tensor:
    """Return the power of a file, (ROWS, frames), low frequencies first."""
    file = AudioFile(path)
    waveform = torch.cat(list(file), dim=-1)
    window = torch.hann_window(N_FFT)
    frames = torch.stft(waveform, N_FFT, HOP_LENGTH, window=window, return_complex=True)
    power = frames.abs().square().mean(0)
    edges = torch.logspace(math.log10(LOWEST), math.log10(HIGHEST), ROWS)
    bins = (edges / file.source_sample_rate * N_FFT).round().long()
    return power[bins]


if __name__ == "__main__":
    main()
