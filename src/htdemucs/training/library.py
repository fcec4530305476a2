"""The tracks of a run: folders with one file a source, their lengths known without reading them."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from htdemucs.errors import AudioError, ConfigError
from htdemucs.files import replacing
from htdemucs.training.config import DataConfig, RootConfig

SUFFIXES = (".wav", ".flac")
MIXTURE_TOLERANCE = 0.01  # of full scale: more is no rounding
CHECKED_SECONDS = 5

# The tracks of MUSDB18-HQ's training folder that its users validate with.
MUSDB_VALIDATION = frozenset(
    {
        "Actions - One Minute Smile",
        "Clara Berry And Wooldog - Waltz For My Victims",
        "Johnny Lokke - Promises & Lies",
        "Patrick Talbot - A Reason To Leave",
        "Triviul - Angelsaint",
        "Alexander Ross - Goodbye Bolero",
        "Fergessen - Nos Palpitants",
        "Leaf - Summerghost",
        "Skelpolu - Human Mistakes",
        "Young Griffo - Pennies",
        "ANiMAL - Rockshow",
        "James May - On The Line",
        "Meaxic - Take A Step",
        "Traffic Experiment - Sirens",
    }
)


@dataclass(frozen=True)
class LibraryTrack:
    """A song with one file a source, all equally long."""

    name: str
    folder: Path
    files: dict[str, Path]
    length: int  # samples
    sample_rate: int  # Hz
    weight: float

    def file(self, source: str) -> Path:
        """The file of a source."""
        return self.files[source]


def training_and_validation(
    data: DataConfig, sources: Sequence[str], sample_rate: int
) -> tuple[list[LibraryTrack], list[LibraryTrack]]:
    """The tracks to learn from, and those to choose the best model with.

    Raises:
        ConfigError: a folder holds no tracks, or a track another sample rate.
        AudioError: a file cannot be read, or is not as long as its neighbours.
    """
    train = _tracks(data.train, sources, sample_rate, data.cache)
    valid = _tracks(data.valid, sources, sample_rate, data.cache)
    if data.musdb:
        valid += [track for track in train if track.name in MUSDB_VALIDATION]
        train = [track for track in train if track.name not in MUSDB_VALIDATION]
    both = {track.folder.resolve() for track in train} & {track.folder.resolve() for track in valid}
    if both:
        raise ConfigError(f"{sorted(both)[0]} is in data.train and in data.valid; take one away")
    if not train:
        raise ConfigError("data.train holds no tracks to learn from")
    return train, valid


def _tracks(
    roots: Iterable[RootConfig], sources: Sequence[str], sample_rate: int, cache: Path | None
) -> list[LibraryTrack]:
    tracks = []
    for root in roots:
        if not root.path.is_dir():
            raise ConfigError(f"{root.path} is not a folder; see data.train and data.valid")
        found = [
            _track(folder, sources, sample_rate, root.weight, cache)
            for folder in sorted(root.path.iterdir())
            if folder.is_dir() and _source_files(folder, sources)
        ]
        if not found:
            raise ConfigError(
                f"{root.path} has no folders with {', '.join(sources)} as .wav or .flac"
            )
        tracks += found
    return tracks


def _source_files(folder: Path, sources: Sequence[str]) -> dict[str, Path] | None:
    files = {}
    for source in sources:
        there = [folder / (source + suffix) for suffix in SUFFIXES]
        path = next((path for path in there if path.is_file()), None)
        if path is None:
            return None
        files[source] = path
    return files


def _track(
    folder: Path, sources: Sequence[str], sample_rate: int, weight: float, cache: Path | None
) -> LibraryTrack:
    files = _source_files(folder, sources) or {}
    key = _key(files)
    entry = _cached(cache, key)
    if entry is None:
        entry = _probe(folder, files)
        if cache is not None:
            with replacing(cache / f"{key}.json") as partial:
                partial.write_text(json.dumps(entry), encoding="utf-8")
    if entry["sample_rate"] != sample_rate:
        raise ConfigError(
            f"{folder} has {entry['sample_rate']} Hz and the model {sample_rate}; resample it"
        )
    return LibraryTrack(folder.name, folder, files, entry["length"], sample_rate, weight)


def _key(files: dict[str, Path]) -> str:
    """Changes when a file does."""
    parts = [(name, str(p), p.stat().st_size, p.stat().st_mtime_ns) for name, p in files.items()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _cached(cache: Path | None, key: str) -> dict[str, int] | None:
    path = cache / f"{key}.json" if cache is not None else None
    if path is None or not path.is_file():
        return None
    entry: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
    return entry


def _probe(folder: Path, files: dict[str, Path]) -> dict[str, int]:
    import soundfile

    try:
        found = {name: soundfile.info(path) for name, path in files.items()}
        _check_mixture(folder, files)
    except (OSError, RuntimeError) as error:
        raise AudioError(f"cannot read the sources in {folder}: {error}") from error
    shapes = {(info.frames, info.samplerate) for info in found.values()}
    if len(shapes) > 1:
        listed = ", ".join(f"{name} {info.frames}" for name, info in found.items())
        raise AudioError(f"the sources in {folder} differ in length or rate: {listed} samples")
    length, sample_rate = shapes.pop()
    return {"length": length, "sample_rate": sample_rate}


def _check_mixture(folder: Path, files: dict[str, Path]) -> None:
    """Notice a mixture that is not the sum of its sources, in the middle of the track."""
    import soundfile

    mixture = next((folder / f"mixture{s}" for s in SUFFIXES if (folder / f"mixture{s}").is_file()), None)
    if mixture is None:
        return
    info = soundfile.info(mixture)
    window = {
        "start": info.frames // 2,
        "frames": min(CHECKED_SECONDS * info.samplerate, info.frames - info.frames // 2),
        "always_2d": True,
    }
    whole = soundfile.read(mixture, **window)[0]
    parts = [soundfile.read(path, **window)[0] for path in files.values()]
    if any(part.shape != whole.shape for part in parts):
        return  # the lengths are reported where they are compared
    difference = float(np.abs(whole - sum(parts)).max(initial=0))
    if difference > MIXTURE_TOLERANCE:
        raise AudioError(
            f"{mixture} differs from the sum of its sources by {difference:.3f}; "
            "delete it if a source is missing on purpose"
        )
