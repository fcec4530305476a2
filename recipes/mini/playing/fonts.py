"""MIDI to sound: soundfonts played by `fluidsynth`."""

import struct
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from recipes.mini.composing import midi
from recipes.mini.mixing.audio import SAMPLE_RATE

DRUM_BANK = 128
MELODIC_BANKS = range(100)  # 127 holds an older instrument's presets in an order of their own
KIT_PROGRAMS = range(50)  # above them: sound effects, marching bands and metronomes


@dataclass(frozen=True)
class Preset:
    """An instrument of a soundfont."""

    font: Path
    bank: int
    program: int
    name: str

    def __str__(self) -> str:
        return f"{self.font.name}: {self.name} ({self.bank}:{self.program})"


@cache
def presets(font: Path) -> tuple[Preset, ...]:
    """Read every preset of a soundfont from its `phdr` chunk."""
    with font.open("rb") as file:
        data = file.read(12)
        found: list[Preset] = []
        while header := file.read(8):
            name, size = struct.unpack("<4sI", header)
            if name != b"LIST":
                file.seek(size + size % 2, 1)
            elif file.read(4) != b"pdta":
                file.seek(size - 4 + size % 2, 1)
            else:
                _, size = struct.unpack("<4sI", file.read(8))  # phdr is pdta's first chunk
                data = file.read(size)
                for label, program, bank, *_ in struct.iter_unpack("<20sHHHIII", data[:-38]):
                    text = label.split(b"\0")[0].decode("latin-1").strip()
                    found.append(Preset(font, bank, program, text))
                break
    return tuple(found)


def kits(font: Path) -> list[Preset]:
    """Return the font's drum kits."""
    return [p for p in presets(font) if p.bank == DRUM_BANK and p.program in KIT_PROGRAMS]


def choose(rng: np.random.Generator, font: Path, programs: tuple[int, ...]) -> Preset:
    """Draw an instrument among the font's presets with one of these General MIDI programs."""
    found = [p for p in presets(font) if p.program in programs and p.bank in MELODIC_BANKS]
    return found[rng.integers(len(found))]


def render(parts: list[midi.Part], instruments: list[Preset], seconds: float) -> np.ndarray:
    """Play parts with one font: (L, 2) float32 of exactly `seconds`, without reverb or chorus."""
    length = round(seconds * SAMPLE_RATE)
    with tempfile.TemporaryDirectory() as folder:
        song, sound = Path(folder, "song.mid"), Path(folder, "song.raw")
        midi.write(song, parts, [(preset.bank, preset.program) for preset in instruments])
        subprocess.run(
            ["fluidsynth", "-n", "-i", "-q", "-F", str(sound), "-T", "raw", "-O", "float",
             "-r", str(SAMPLE_RATE), "-R", "0", "-C", "0", "-g", "0.3",
             "-o", "synth.dynamic-sample-loading=1", "-o", "synth.polyphony=128",
             "-o", "synth.midi-bank-select=gs",
             str(instruments[0].font), str(song)],
            check=True, capture_output=True, timeout=300,
        )  # fmt: skip
        samples = np.fromfile(sound, dtype=np.float32).reshape(-1, 2)[:length]
    return np.pad(samples, ((0, length - len(samples)), (0, 0)))
