"""Synthesise the example song, so that the repository holds nobody else's music.

Running this file writes `examples/song.flac` again, with the same bytes.
"""

import math
from pathlib import Path

import torch
from torch import Tensor

from htdemucs import AudioEncoding
from htdemucs.audio import AudioWriter

SAMPLE_RATE = 44100  # Hz
BEAT = 60 / 112  # seconds
CHORDS = ((57, 60, 64), (53, 57, 60), (48, 52, 55), (55, 59, 62))  # MIDI notes: Am F C G
MELODY = (76, 74, 72, 69, 72, 74, 72, 67)  # one note every two beats
SECONDS = 16 * BEAT + 1


def frequency(note: int) -> float:
    """Return the frequency of a MIDI note in Hz."""
    return float(440 * 2 ** ((note - 69) / 12))


def times(seconds: float) -> Tensor:
    """() -> (L,): seconds from the start of a sound."""
    return torch.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE


def place(track: Tensor, start: float, sound: Tensor) -> None:
    """Add (L,) to (L',) from `start` seconds on."""
    first = int(start * SAMPLE_RATE)
    end = min(first + len(sound), len(track))
    track[first:end] += sound[: end - first]


def drums(generator: torch.Generator) -> Tensor:
    """Return drums: kick on 1 and 3, snare on 2 and 4, a hat every half beat."""
    track = torch.zeros(int(SECONDS * SAMPLE_RATE))
    t = times(0.3)
    noise = torch.rand(len(t), generator=generator) * 2 - 1
    kick = torch.sin(2 * math.pi * (45 * t + 6 * (1 - torch.exp(-30 * t)))) * torch.exp(-12 * t)
    snare = (0.7 * noise + 0.5 * torch.sin(2 * math.pi * 190 * t)) * torch.exp(-18 * t)
    hat = (noise - noise.roll(1)) * torch.exp(-60 * t)
    for beat in range(16):
        place(track, beat * BEAT, snare * 0.5 if beat % 2 else kick)
        for half in (0, 0.5):
            place(track, (beat + half) * BEAT, hat * 0.2)
    return track


def tone(note: int, seconds: float, harmonics: int, decay: float) -> Tensor:
    """Return a note with falling harmonics and a soft start and end."""
    t = times(seconds)
    waves = [torch.sin(2 * math.pi * frequency(note) * k * t) / k for k in range(1, harmonics + 1)]
    ramp = (t / 0.01).clamp(max=1) * ((seconds - t) / 0.03).clamp(0, 1)
    return torch.stack(waves).sum(0) * ramp * torch.exp(-decay * t)


def bass() -> Tensor:
    """Return a bass: the chords' roots, two octaves down, on every half beat."""
    track = torch.zeros(int(SECONDS * SAMPLE_RATE))
    for step in range(32):
        root = CHORDS[step // 8][0] - 24
        place(track, step * BEAT / 2, tone(root + 12 * (step % 4 == 3), BEAT / 2, 5, 3))
    return track


def chords() -> Tensor:
    """Return the chords, each for a bar."""
    track = torch.zeros(int(SECONDS * SAMPLE_RATE))
    for bar, chord in enumerate(CHORDS):
        for note in chord:
            place(track, bar * 4 * BEAT, tone(note, 4 * BEAT, 8, 0.5))
    return track


def voice() -> Tensor:
    """Return a melody as if sung: with vibrato, and two formants that move between vowels."""
    track = torch.zeros(int(SECONDS * SAMPLE_RATE))
    for i, note in enumerate(MELODY):
        t = times(2 * BEAT * 0.95)
        vibrato = 0.004 * torch.sin(2 * math.pi * 5.5 * t) * (t / 0.3).clamp(max=1)
        phase = 2 * math.pi * torch.cumsum(frequency(note) * (1 + vibrato), 0) / SAMPLE_RATE
        first, second = (700.0, 1200.0) if i % 2 else (400.0, 2000.0)  # Hz
        sound = torch.zeros_like(t)
        for k in range(1, 16):
            pitch = frequency(note) * k
            gain = math.exp(-(((pitch - first) / 250) ** 2))
            gain += 0.6 * math.exp(-(((pitch - second) / 350) ** 2)) + 0.15 / k
            sound += gain * torch.sin(k * phase)
        ramp = (t / 0.04).clamp(max=1) * ((t[-1] - t) / 0.1).clamp(0, 1)
        place(track, i * 2 * BEAT, sound * ramp)
    return track


def stems() -> dict[str, Tensor]:
    """Return the stems, each (2, L), by name."""
    placed = {
        "drums": (drums(torch.Generator().manual_seed(0)), 0.35, 0.5),
        "bass": (bass(), 0.14, 0.5),
        "other": (chords(), 0.05, 0.3),
        "vocals": (voice(), 0.12, 0.55),
    }
    return {
        name: torch.stack([gain * (1 - pan) * sound, gain * pan * sound])
        for name, (sound, gain, pan) in placed.items()
    }


def song() -> Tensor:
    """() -> (2, L): the mixture."""
    return torch.stack(list(stems().values())).sum(0)


if __name__ == "__main__":
    target = Path(__file__).with_name("song.flac")
    with AudioWriter(target, SAMPLE_RATE, 2, AudioEncoding("flac")) as writer:
        writer.write(song())
    print(f"wrote {target}")
