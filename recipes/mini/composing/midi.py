"""Standard MIDI files: parts by stem, from files, game archives and notes."""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mido
import numpy as np

from recipes.mini.composing.notes import collect
from recipes.mini.composing.score import SCALES, Chord, Score, Section

DRUM_CHANNEL = 9
BASS_PROGRAMS = (*range(32, 40), 43)  # General MIDI basses and the contrabass
BENDER_RANGE = 2  # semitones


@dataclass(frozen=True)
class Part:
    """One channel of a song: its messages at absolute times in seconds."""

    stem: str  # "drums", "bass" or "other"
    program: int
    events: tuple[tuple[float, mido.Message], ...]

    @property
    def starts(self) -> list[float]:
        """Seconds at which notes begin."""
        return [time for time, message in self.events if _begins_note(message)]


def _begins_note(message: mido.Message) -> bool:
    return message.type == "note_on" and message.velocity > 0


def read_parts(file: mido.MidiFile, tempo: float | None = None) -> list[Part]:
    """Read the parts of a MIDI file, at its own tempo or at `tempo` (beats a minute)."""
    programs: dict[int, int] = {}
    names: dict[int, str] = {}
    events: dict[int, list[tuple[float, mido.Message]]] = {}
    for time, message, name in _absolute(file, tempo):
        if message.is_meta or not hasattr(message, "channel"):
            continue
        channel = message.channel
        if message.type == "program_change":
            programs.setdefault(channel, message.program)
        elif not (message.type == "control_change" and message.control in (0, 32, 91, 93)):
            events.setdefault(channel, []).append((time, message))
            names.setdefault(channel, name)
    parts = [
        Part(
            _stem(channel, programs.get(channel, 0), names[channel]),
            programs.get(channel, 0),
            tuple(messages),
        )
        for channel, messages in sorted(events.items())
    ]
    return [part for part in parts if part.starts]


def _absolute(
    file: mido.MidiFile, tempo: float | None
) -> Iterator[tuple[float, mido.Message, str]]:
    """Yield (seconds, message, track name), all tracks merged in order of time."""
    merged = []
    for track in file.tracks:
        ticks = 0
        for message in track:
            ticks += message.time
            merged.append((ticks, message, track.name))
    merged.sort(key=lambda entry: entry[0])
    seconds, last, beat = 0.0, 0, 60 / tempo if tempo else 0.5
    for ticks, message, name in merged:
        seconds += (ticks - last) / file.ticks_per_beat * beat
        last = ticks
        if message.type == "set_tempo" and tempo is None:
            beat = message.tempo / 1e6
        yield seconds, message, name


def _stem(channel: int, program: int, name: str) -> str:
    if channel == DRUM_CHANNEL:
        return "drums"
    is_bass = program in BASS_PROGRAMS or name.upper().startswith(("BASS", "WALK"))
    return "bass" if is_bass else "other"


def first_tempo(file: mido.MidiFile) -> float:
    """Return the beats a minute of the file's first tempo message, 120 if it has none."""
    for track in file.tracks:
        for message in track:
            if message.type == "set_tempo":
                return 6e7 / message.tempo
    return 120.0


def archive_songs(path: Path) -> dict[str, bytes]:
    """Return the MIDI songs inside a WAD game archive, by lump name."""
    data = path.read_bytes()
    count, directory = struct.unpack_from("<ii", data, 4)
    songs = {}
    for index in range(count):
        offset, size, name = struct.unpack_from("<ii8s", data, directory + 16 * index)
        lump = data[offset : offset + size]
        if lump.startswith(b"MThd"):
            songs[name.rstrip(b"\0").decode()] = lump
    return songs


def open_song(data: bytes) -> mido.MidiFile:
    """Return a MIDI file from its bytes."""
    return mido.MidiFile(file=io.BytesIO(data), clip=True)


def excerpt(parts: list[Part], start: float, end: float, transpose: int) -> list[Part]:
    """Return parts between two times (s), moved to 0 and transposed; drums keep their pitches."""
    result = []
    for part in parts:
        shift = 0 if part.stem == "drums" else transpose
        events = []
        for time, message in part.events:
            if time >= end or (time < start and _begins_note(message)):
                continue
            moved = message
            if message.type in ("note_on", "note_off"):
                moved = message.copy(note=int(np.clip(message.note + shift, 0, 127)))
            events.append((max(0.0, time - start), moved))
        result.append(Part(part.stem, part.program, tuple(events)))
    return [part for part in result if part.starts]


def note_events(notes: np.ndarray) -> tuple[tuple[float, mido.Message], ...]:
    """Return notes as messages at absolute times (s) on channel 0; pitches are rounded."""
    events = []
    for start, duration, pitch, velocity in notes.tolist():
        key, strength = round(pitch), int(np.clip(round(127 * velocity), 1, 127))
        events.append((start, mido.Message("note_on", note=key, velocity=strength)))
        events.append((start + duration, mido.Message("note_off", note=key)))
    return tuple(sorted(events, key=lambda event: event[0]))


def write(path: Path, parts: list[Part], presets: list[tuple[int, int]]) -> None:
    """Write a MIDI file that plays each part with its (bank, program), at 120 beats a minute."""
    ticks_per_beat = 9600
    file = mido.MidiFile(ticks_per_beat=ticks_per_beat)
    free = [channel for channel in range(16) if channel != DRUM_CHANNEL]
    for index, (part, (bank, program)) in enumerate(zip(parts, presets, strict=True)):
        channel = DRUM_CHANNEL if part.stem == "drums" else free[index % len(free)]
        track = mido.MidiTrack()
        file.tracks.append(track)
        if part.stem != "drums":
            track.append(mido.Message("control_change", channel=channel, control=0, value=bank))
        track.append(mido.Message("program_change", channel=channel, program=program))
        last = 0
        for time, message in part.events:
            ticks = round(time * 2 * ticks_per_beat)
            track.append(message.copy(skip_checks=True, channel=channel, time=ticks - last))
            last = ticks
        # A cut excerpt may leave notes open, which the player would wait for without end.
        track.append(mido.Message("control_change", channel=channel, control=120, value=0))
    file.save(path)


def estimate_score(parts: list[Part], tempo: float, seconds: float) -> Score:
    """Estimate the chords from a song's notes: the three strongest pitch classes of every bar."""
    bar = 240 / tempo
    bars = int(np.ceil(seconds / bar))
    weights = np.full((bars, 12), 1e-6)
    for part in parts:
        if part.stem == "drums":
            continue
        for time, message in part.events:
            if _begins_note(message) and time < seconds:
                weights[int(time / bar), message.note % 12] += 2 if part.stem == "bass" else 1
    profile = weights.sum(axis=0)
    scores = {
        (key, mode): profile[[(key + step) % 12 for step in steps]].sum()
        for key in range(12)
        for mode, steps in SCALES.items()
    }
    key, mode = max(scores, key=lambda entry: scores[entry])
    scale = tuple((key + step) % 12 for step in SCALES[mode])
    chords = []
    for index, row in enumerate(weights):
        tones = tuple(int(tone) for tone in np.argsort(-(row + 1e-3 * profile))[:3])
        chords.append(Chord(index * bar, (index + 1) * bar, tones[0], tones))
    sections = tuple(
        Section("verse" if first // 8 % 2 else "chorus", first, min(8, bars - first))
        for first in range(0, bars, 8)
    )
    return Score(tempo, seconds, scale, tuple(chords), sections)


def notes_of(part: Part) -> np.ndarray:
    """Return the part's notes, without its controllers."""
    open_notes: dict[int, tuple[float, int]] = {}
    rows = []
    for time, message in part.events:
        if _begins_note(message):
            open_notes[message.note] = (time, message.velocity)
        elif message.type in ("note_on", "note_off") and message.note in open_notes:
            start, velocity = open_notes.pop(message.note)
            rows.append((start, time - start, message.note, velocity / 127))
    return collect(rows)
