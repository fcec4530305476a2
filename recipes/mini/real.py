"""Make tracks of recordings: `python -m recipes.mini.real --source FOLDER --out DATA/real`.

Each collection becomes a folder of tracks, `COLLECTION/TRACK/{drums,bass,other,vocals}.wav`, which
a run's `data.train` names or leaves out. Finished tracks are kept; the same command continues.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from htdemucs import AudioFile, HTDemucsError
from htdemucs.fsutil import atomic_write
from recipes.mini import recordings, sources
from recipes.mini.mixing import audio, mixdown
from recipes.mini.mixing.audio import SAMPLE_RATE
from recipes.mini.mixing.mixdown import STEMS, Stems
from recipes.mini.recordings import Collection, Recording
from recipes.mini.tracks import write_track

PEAK = 0.9  # of every track
LOOP_SECONDS = 12.0  # a loop is repeated for at least so long
ONE_SHOT_SECONDS = 3.0  # shorter files are played once, before a rest
REST_SECONDS = 1.0
STEEPNESS = 16  # order of the low-pass


class MissingRecordingError(Exception):
    """A recording is not where it should be; the message names it."""


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and build. Return 0 when every track is there."""
    names = [collection.name for collection in recordings.COLLECTIONS]
    parser = argparse.ArgumentParser(prog="python -m recipes.mini.real", description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="folder of the collections")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--collections", nargs="+", choices=names, default=names)
    options = parser.parse_args(arguments)
    wanted = [c for c in recordings.COLLECTIONS if c.name in options.collections]
    try:
        if recordings.FRETS in wanted:
            sources.check((recordings.PACKAGE,))
        build(wanted, options.source, options.out)
    except (MissingRecordingError, sources.MissingPackageError, HTDemucsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def build(collections: Sequence[Collection], source: Path, out: Path) -> None:
    """Make every track that is not there yet, and write `ATTRIBUTION.md`.

    Raises:
        MissingRecordingError: a pattern matches no file.
        AudioError: a file cannot be read.
    """
    lines: list[str] = []
    for collection in collections:
        folder = collection.folder or source / collection.name
        lines += [
            "",
            f"## {collection.name} ({collection.licence})",
            "",
            *_origin(collection, folder),
            "",
        ]
        for recording in collection.recordings:
            files = find_files(folder / recording.folder, recording.stems)
            target = out / collection.name / recording.name
            if not target.exists():
                stems = render_track(recording, files)
                write_track(target, stems, _about(collection, recording, files))
                print(target)
            lines.append(f"- {recording.name}: {_list_files(files)}")
    page = "\n".join(["# Recordings in this data set", *lines, ""])
    with atomic_write(out / "ATTRIBUTION.md") as partial:
        partial.write_text(page, encoding="utf-8")


def find_files(folder: Path, stems: dict[str, tuple[str, ...]]) -> dict[str, list[Path]]:
    """Return each stem's files below `folder`, in order of their names.

    Raises:
        MissingRecordingError: a pattern matches no file.
        ValueError: a file is in two stems.
    """
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    files: dict[str, list[Path]] = {stem: [] for stem in STEMS}
    for stem, patterns in stems.items():
        for pattern in patterns:
            matching = [name for name in names if fnmatchcase(name, pattern)]
            if not matching:
                raise MissingRecordingError(f"{folder} has no file {pattern}")
            files[stem] += [folder / name for name in matching]
        files[stem] = list(dict.fromkeys(files[stem]))
    everything = [path for paths in files.values() for path in paths]
    twice = [path for path in everything if everything.count(path) > 1]
    if twice:
        raise ValueError(f"{twice[0]} is in two stems")
    return files


def render_track(recording: Recording, files: dict[str, list[Path]]) -> Stems:
    """Return the track's stems as int16 (L, 2), equally long; the loudest peak is `PEAK`."""
    gather = _join_loops if recording.loops else _mix
    stems = {stem: gather([read_audio(path) for path in files[stem]]) for stem in STEMS}
    length = max(map(len, stems.values()))
    fit = _repeat if recording.loops else _pad
    stems = {stem: fit(sound, length) for stem, sound in stems.items()}
    if recording.edge:
        stems = {s: audio.band(x, None, recording.edge, STEEPNESS) for s, x in stems.items()}
    return mixdown.quantise(mixdown.scale_to_peak(stems, PEAK))


def read_audio(path: Path) -> np.ndarray:
    """Read a file of any format as (L, 2) float32 at 44.1 kHz."""
    blocks = [block.numpy().T for block in AudioFile(path, sample_rate=SAMPLE_RATE, channels=2)]
    return np.concatenate(blocks)


def _mix(sounds: Sequence[np.ndarray]) -> np.ndarray:
    """Return the sum of sounds that start together, as long as the longest."""
    total = np.zeros((max(map(len, sounds), default=0), 2), dtype=np.float32)
    for sound in sounds:
        audio.add_at(total, sound, 0)
    return total


def _join_loops(sounds: Iterable[np.ndarray]) -> np.ndarray:
    """Return loops, each repeated, and one-shots, each with a rest, one after the other."""
    pieces = [np.zeros((0, 2), dtype=np.float32)]
    for sound in sounds:
        level = audio.active_rms(sound)
        piece = audio.fade(sound * np.float32(0.1 / level if level else 0), 0.003)
        seconds = len(piece) / SAMPLE_RATE
        if seconds < ONE_SHOT_SECONDS:
            rest = np.zeros((audio.seconds_to_samples(REST_SECONDS), 2), dtype=np.float32)
            pieces += [piece, rest]
        else:
            pieces += [piece] * int(np.ceil(LOOP_SECONDS / seconds))
    return np.concatenate(pieces)


def _pad(sound: np.ndarray, length: int) -> np.ndarray:
    return np.pad(sound, ((0, length - len(sound)), (0, 0)))


def _repeat(sound: np.ndarray, length: int) -> np.ndarray:
    return np.resize(sound, (length, 2)) if len(sound) else _pad(sound, length)


def _about(
    collection: Collection, recording: Recording, files: dict[str, list[Path]]
) -> dict[str, object]:
    return {
        "collection": collection.name, "licence": collection.licence, "edge": recording.edge,
        "made_with": {stem: [path.name for path in paths] for stem, paths in files.items()},
    }  # fmt: skip


def _origin(collection: Collection, folder: Path) -> list[str]:
    """Return where the collection comes from, as Markdown lines."""
    note = folder / "SOURCE.txt"
    text = collection.origin or (note.read_text(encoding="utf-8") if note.exists() else "unknown")
    return [f"> {line}" for line in text.splitlines()]


def _list_files(files: dict[str, list[Path]]) -> str:
    parts = (f"{s} from {', '.join(p.name for p in ps)}" for s, ps in files.items() if ps)
    return "; ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
