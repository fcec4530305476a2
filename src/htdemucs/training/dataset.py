"""The music of a run: its multitracks, their lengths, and what is wrong with them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from htdemucs.errors import (
    AudioError,
    ConfigError,
    EvaluationError,
    HTDemucsError,
    TrainingError,
)
from htdemucs.evaluation.dataset import (
    Multitrack,
    audio_paths,
    layout_hint,
    nested_audio_hint,
    read_multitrack,
)
from htdemucs.formats import SEEKABLE_EXTENSIONS
from htdemucs.fsutil import atomic_write
from htdemucs.training.config import DataConfig, RootConfig
from htdemucs.training.reading import available_cores, check_samples, mono_statistics

MIXTURE_TOLERANCE = 0.01  # of full scale; more than rounding
LENGTH_TOLERANCE = 0.1  # seconds; files whose lengths differ more may not start together
CHECKED_SECONDS = 5  # of a mixture
MAX_LISTED = 3  # names in a note

# The tracks of MUSDB18-HQ's training folder that are used for validation by convention.
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
class Recording:
    """A multitrack to cut examples from.

    Attributes:
        multitrack: its files; the shorter ones are padded with silence.
        length: samples of its longest source.
        weight: how often it is drawn, relative to its length.
        mean, std: of the mixture's mono mix; 0 and 1 without `data.normalize`.
    """

    multitrack: Multitrack
    length: int
    weight: float
    mean: float = 0.0
    std: float = 1.0

    @property
    def name(self) -> str:
        """The name of the multitrack."""
        return self.multitrack.name

    def normalize(self, waveform: Tensor) -> Tensor:
        """Return a waveform of this recording without the mixture's mean and deviation."""
        return (waveform - self.mean) / self.std


@dataclass(frozen=True)
class Corpus:
    """The music of a run.

    Attributes:
        train, valid: recordings for training and for validation.
        notes: what is unusual about the music, one line each.
    """

    train: list[Recording] = field(default_factory=list)
    valid: list[Recording] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_corpus(
    data: DataConfig, sources: Sequence[str], *, channels: int, sample_rate: int, cache: Path
) -> Corpus:
    """Find the multitracks that a configuration names.

    Multitracks that cannot be used for training are left out, with a note.

    Args:
        data: the configuration.
        sources: the model's sources.
        channels: the model's channels.
        sample_rate: the model's sample rate.
        cache: folder for properties of the files, which need not be read again for the next run.

    Raises:
        ConfigError, AudioError, EvaluationError: a folder has no usable track.
        TrainingError: the cache cannot be written.
    """
    reader = _Reader(sources, channels, sample_rate, cache, data.normalize)
    train = [recording for root in data.train for recording in reader.recordings(root)]
    valid = [recording for root in data.valid for recording in reader.recordings(root)]
    if data.musdb is not None:
        _check_musdb(data.musdb)
        for recording in reader.recordings(RootConfig(data.musdb / "train")):
            (valid if recording.name in MUSDB_VALIDATION else train).append(recording)
    train_folders, valid_folders = (
        {recording.multitrack.folder.resolve() for recording in part} for part in (train, valid)
    )
    if both := train_folders & valid_folders:
        raise ConfigError(f"{min(both)} is in data.train and in data.valid; remove one")
    if not any(recording.weight for recording in train):
        raise ConfigError("there are no tracks for training; see data.train and data.musdb")
    return Corpus(train, valid, reader.notes)


@dataclass(frozen=True)
class _FileInfo:
    """Properties of a multitrack's files, as in the cache."""

    length: int  # samples of the longest source
    shortest: int  # samples of the shortest source
    sample_rate: int
    channels: int  # of the source that has most
    mixture: str  # how the mixture differs from the sum of the sources; empty if it does not
    mean: float  # of the mono mix of the mixture, or of the sum of the sources
    std: float


class _Reader:
    """Reads folders of multitracks, and collects notes about them."""

    def __init__(
        self,
        sources: Sequence[str],
        channels: int,
        sample_rate: int,
        cache: Path,
        normalize: bool,
    ) -> None:
        self.sources, self.channels, self.sample_rate = sources, channels, sample_rate
        self.cache, self.normalize = cache, normalize
        self.notes: list[str] = []

    def recordings(self, root: RootConfig) -> list[Recording]:
        """Return the usable multitracks of a folder."""
        if root.weight < 0:
            raise ConfigError(f"the weight of {root.path} must not be negative")
        recordings: list[Recording] = []
        differences: dict[str, float] = {}  # seconds
        incomplete: dict[str, Multitrack] = {}
        failures: dict[str, HTDemucsError] = {}
        folders = _folders_with_audio(root.path)
        with ThreadPoolExecutor(available_cores()) as pool:
            results = pool.map(self._read, folders)
        for folder, result in zip(folders, results, strict=True):
            if isinstance(result, HTDemucsError):
                failures[folder.name] = result
                continue
            multitrack, info = result
            if info is None:
                incomplete[folder.name] = multitrack
                continue
            level = (info.mean, info.std) if self.normalize else (0.0, 1.0)
            recordings.append(Recording(multitrack, info.length, root.weight, *level))
            if info.shortest < info.length:
                differences[folder.name] = (info.length - info.shortest) / info.sample_rate
            if info.mixture:
                note = f"the mixture in {folder} {info.mixture}; training uses the sum"
                self.notes.append(note)
        if not recordings:
            raise self._no_usable_track(root.path, incomplete, failures)
        for name, failure in failures.items():
            self.notes.append(f"{root.path / name} is left out: {failure}")
        if incomplete:
            self.notes.append(
                f"{len(incomplete)} folders in {root.path} lack a source and are left out: "
                + _list_names(list(incomplete))
            )
        if differences:
            self.notes.append(
                f"in {len(differences)} folders in {root.path} sources differ in length, by up to "
                f"{max(differences.values()):.3f} s, and are padded with silence: "
                + _list_names(list(differences))
            )
        return recordings

    def _read(
        self, folder: Path
    ) -> tuple[Multitrack, "_FileInfo | None"] | AudioError | ConfigError | EvaluationError:
        """Return the multitrack and its properties, or None if it lacks a source."""
        try:
            multitrack = read_multitrack(folder, SEEKABLE_EXTENSIONS)
            if multitrack.missing(self.sources):
                return multitrack, None
            info = self._file_info(multitrack)
            self._check(info)
        except (AudioError, ConfigError, EvaluationError) as error:
            return error
        return multitrack, info

    def _no_usable_track(
        self,
        root: Path,
        incomplete: Mapping[str, Multitrack],
        failures: Mapping[str, HTDemucsError],
    ) -> HTDemucsError:
        for name, error in failures.items():
            more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
            return type(error)(f"{root} has no usable track; {name}: {error}{more}")
        message = f"{root} has no folders with {', '.join(self.sources)} as .wav or .flac"
        with_stems = [multitrack for multitrack in incomplete.values() if multitrack.stems]
        hint = layout_hint(root)
        if with_stems:
            hint = f"{with_stems[0].name} has {_list_names(list(with_stems[0].stems))}"
        return ConfigError(f"{message}; {hint}" if hint else message)

    def _check(self, info: _FileInfo) -> None:
        if info.sample_rate != self.sample_rate:
            raise ConfigError(
                f"it has {info.sample_rate} Hz, the model {self.sample_rate}; resample it"
            )
        if info.channels not in (1, 2, self.channels):
            raise AudioError(
                f"a source has {info.channels} channels, the model {self.channels}; mix it down"
            )

    def _file_info(self, multitrack: Multitrack) -> _FileInfo:
        """Return the properties of a multitrack's files, from the cache if no file has changed."""
        files = {source: multitrack.file(source) for source in self.sources}
        mixture = [multitrack.mixture] if multitrack.mixture else []
        try:
            path = self.cache / f"{_cache_key([*files.values(), *mixture])}.json"
            with suppress(OSError, ValueError, TypeError):  # missing or damaged
                return _FileInfo(**json.loads(path.read_text(encoding="utf-8")))
            info = _read_file_info(files, multitrack.mixture)
        except HTDemucsError:
            raise
        except Exception as error:  # a decoder may raise anything
            raise AudioError(f"cannot read the sources: {error}") from error
        try:
            with atomic_write(path) as partial:
                partial.write_text(json.dumps(asdict(info)), encoding="utf-8")
        except OSError as error:
            raise TrainingError(f"cannot write {path}: {error.strerror or error}") from error
        return info


def _check_musdb(folder: Path) -> None:
    """Raise ConfigError if the folder is not MUSDB18-HQ's, but lies in one, or has other tracks."""
    if (folder / "train").is_dir() or not folder.is_dir():
        return
    if folder.resolve().name in ("train", "test"):
        raise ConfigError(f"data.musdb must be the folder that has train/; use {folder.parent}")
    raise ConfigError(f"{folder} has no folder train/; for other folders use data.train")


def _folders_with_audio(root: Path) -> list[Path]:
    """Return the folders in a folder that have audio files, or subfolders with audio files."""
    try:
        folders = sorted(path for path in root.iterdir() if path.is_dir())
    except OSError as error:
        raise ConfigError(f"cannot read {root}: {error.strerror or error}") from error
    return [
        path
        for path in folders
        if not path.name.startswith(".") and (audio_paths(path) or nested_audio_hint(path))
    ]


def _list_names(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_LISTED]) + ("…" if len(names) > MAX_LISTED else "")


def _cache_key(paths: Sequence[Path]) -> str:
    """Return a key that changes when a file does."""
    stats = [(str(path.resolve()), path.stat()) for path in paths]
    parts = [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _read_file_info(files: Mapping[str, Path], mixture: Path | None) -> _FileInfo:
    import soundfile

    infos = {name: soundfile.info(path) for name, path in files.items()}
    lengths, rates = ({i.frames for i in infos.values()}, {i.samplerate for i in infos.values()})
    if len(rates) > 1 or max(lengths) - min(lengths) > LENGTH_TOLERANCE * max(rates):
        listed = ", ".join(f"{n} {i.frames} at {i.samplerate} Hz" for n, i in infos.items())
        raise AudioError(f"the sources differ in samples or rate: {listed}")
    if not min(lengths):
        raise AudioError("a source is empty")
    channels = max(info.channels for info in infos.values())
    info = _FileInfo(max(lengths), min(lengths), rates.pop(), channels, "", 0.0, 1.0)
    same_shape = False
    if mixture:
        note, same_shape = _mixture_note(mixture, files, info)
        info = replace(info, mixture=note)
    if mixture and same_shape:
        check_samples(files.values())
        try:
            mean, std = mono_statistics([mixture])
        except AudioError as error:
            info = replace(info, mixture=f"cannot be used ({error})")
            mean, std = mono_statistics(list(files.values()))
    else:
        mean, std = mono_statistics(list(files.values()))
    return replace(info, mean=mean, std=std or 1.0)  # silence stays silence


def _mixture_note(mixture: Path, files: Mapping[str, Path], sources: _FileInfo) -> tuple[str, bool]:
    """Return how a mixture differs from the sum of its sources, and whether its shape is theirs."""
    import soundfile

    try:
        info = soundfile.info(mixture)
    except (OSError, RuntimeError) as error:
        return f"cannot be read ({error})", False
    if info.samplerate != sources.sample_rate:
        return f"has {info.samplerate} Hz, its sources {sources.sample_rate}", False
    if info.channels != sources.channels:
        return f"has {info.channels} channels, its sources {sources.channels}", False
    if abs(info.frames - sources.length) > LENGTH_TOLERANCE * sources.sample_rate:
        return f"has {info.frames} samples, its sources {sources.length}", False
    start, length = info.frames // 2, CHECKED_SECONDS * info.samplerate
    parts = [
        soundfile.read(path, length, start, always_2d=True)[0]
        for path in (mixture, *files.values())
    ]
    whole, *others = (part[: min(map(len, parts))] for part in parts)
    difference = float(np.abs(whole - sum(others)).max(initial=0))
    if difference <= MIXTURE_TOLERANCE:
        return "", True
    return f"differs from the sum of its sources by up to {difference:.3f} of full scale", True
