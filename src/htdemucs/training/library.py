"""The tracks of a run: folders with one file a source, their lengths known without reading them."""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
class Track:
    """A song with one file a source, all equally long."""

    folder: Path
    files: dict[str, Path]
    length: int  # samples
    weight: float

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.folder.name


@dataclass(frozen=True)
class Library:
    """The tracks of a run.

    Attributes:
        train, valid: to learn from, and to choose the best model with.
        notes: what is odd about them, a line each.
    """

    train: list[Track] = field(default_factory=list)
    valid: list[Track] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_library(
    data: DataConfig, sources: Sequence[str], sample_rate: int, cache: Path
) -> Library:
    """Find the tracks that a configuration names. What is known of a file is kept in `cache`.

    Raises:
        ConfigError: a folder holds no tracks, or a track another sample rate.
        AudioError: a file cannot be read, or is not as long as its neighbours.
    """
    reader = _Reader(sources, sample_rate, cache)
    train, valid = reader.tracks(data.train), reader.tracks(data.valid)
    if data.musdb is not None:
        for track in reader.tracks([RootConfig(data.musdb / "train")]):
            (valid if track.name in MUSDB_VALIDATION else train).append(track)
    both = {track.folder.resolve() for track in train} & {track.folder.resolve() for track in valid}
    if both:
        raise ConfigError(f"{min(both)} is to be learnt from and validated with; take one away")
    if not any(track.weight for track in train):
        raise ConfigError("there are no tracks to learn from; see data.train and data.musdb")
    return Library(train, valid, reader.notes)


class _Reader:
    """Looks at folders of tracks."""

    def __init__(self, sources: Sequence[str], sample_rate: int, cache: Path) -> None:
        self.sources, self.sample_rate, self.cache = sources, sample_rate, cache
        self.notes: list[str] = []

    def tracks(self, roots: Iterable[RootConfig]) -> list[Track]:
        return [track for root in roots for track in self._root(root)]

    def _root(self, root: RootConfig) -> list[Track]:
        if root.weight < 0:
            raise ConfigError(f"{root.path} cannot weigh {root.weight}")
        try:
            folders = sorted(
                path
                for path in root.path.iterdir()
                if path.is_dir() and not path.name.startswith(".")
            )
        except OSError as error:
            raise ConfigError(f"cannot read {root.path}: {error.strerror or error}") from error
        found = {folder: _source_files(folder, self.sources) for folder in folders}
        tracks = [self._track(folder, files, root) for folder, files in found.items() if files]
        if not tracks:
            wanted = ", ".join(self.sources)
            raise ConfigError(f"{root.path} has no folders with {wanted} as .wav or .flac")
        lacking = [folder.name for folder, files in found.items() if not files]
        if lacking:
            self.notes.append(
                f"{len(lacking)} folders in {root.path} lack a source and are left out: "
                + ", ".join(lacking[:3])
                + ("…" if len(lacking) > 3 else "")
            )
        return tracks

    def _track(self, folder: Path, files: dict[str, Path], root: RootConfig) -> Track:
        entry = self._entry(folder, files)
        if entry["sample_rate"] != self.sample_rate:
            raise ConfigError(
                f"{folder} has {entry['sample_rate']} Hz, the model {self.sample_rate}; resample it"
            )
        if entry["difference"] > MIXTURE_TOLERANCE:
            self.notes.append(
                f"the mixture in {folder} differs from the sum of its sources by up to "
                f"{entry['difference']:.3f} of full scale; the sum is learnt from"
            )
        return Track(folder, files, entry["length"], root.weight)

    def _entry(self, folder: Path, files: dict[str, Path]) -> dict[str, Any]:
        """What is known of a track, from the cache where no file has changed since."""
        mixture = _audio_file(folder, "mixture")
        path = self.cache / f"{_key([*files.values(), *([mixture] if mixture else [])])}.json"
        try:
            kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if set(kept) == {"length", "sample_rate", "difference"}:
                return kept
        except (OSError, ValueError):
            pass  # not there yet, or damaged: read the files instead
        entry = _probed(folder, files, mixture)
        with replacing(path) as partial:
            partial.write_text(json.dumps(entry), encoding="utf-8")
        return entry


def _audio_file(folder: Path, name: str) -> Path | None:
    paths = (folder / (name + suffix) for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def _source_files(folder: Path, sources: Sequence[str]) -> dict[str, Path]:
    """The file of each source, or nothing where one is missing."""
    files = {source: _audio_file(folder, source) for source in sources}
    return {source: path for source, path in files.items() if path} if all(files.values()) else {}


def _key(paths: Sequence[Path]) -> str:
    """Changes when a file does."""
    stats = [(str(path.resolve()), path.stat()) for path in paths]
    parts = [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _probed(folder: Path, files: dict[str, Path], mixture: Path | None) -> dict[str, Any]:
    import soundfile

    try:
        found = {name: soundfile.info(path) for name, path in files.items()}
        shapes = {(info.frames, info.samplerate) for info in found.values()}
        if len(shapes) > 1:
            listed = ", ".join(f"{n} {i.frames} at {i.samplerate} Hz" for n, i in found.items())
            raise AudioError(f"the sources in {folder} differ in samples or rate: {listed}")
        difference = _difference(mixture, list(files.values())) if mixture else 0.0
    except (OSError, RuntimeError) as error:
        raise AudioError(f"cannot read the sources in {folder}: {error}") from error
    length, sample_rate = shapes.pop()
    if not length:
        raise AudioError(f"the sources in {folder} are empty")
    return {"length": length, "sample_rate": sample_rate, "difference": difference}


def _difference(mixture: Path, sources: Sequence[Path]) -> float:
    """The greatest difference between a mixture and the sum of its sources, mid-track."""
    import soundfile

    info = soundfile.info(mixture)
    start, length = info.frames // 2, CHECKED_SECONDS * info.samplerate
    whole, *parts = (
        soundfile.read(path, length, start, always_2d=True)[0] for path in (mixture, *sources)
    )
    if any(len(part) != len(whole) for part in parts):
        return math.inf
    return float(np.abs(whole - sum(parts)).max(initial=0))
