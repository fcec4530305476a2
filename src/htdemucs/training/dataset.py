"""The music of a run: its multitracks, their lengths, and what is wrong with them."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from htdemucs.audio import resampled_length
from htdemucs.errors import (
    AudioError,
    ConfigError,
    EvaluationError,
    HTDemucsError,
    TrainingError,
)
from htdemucs.evaluation.dataset import audio_paths, layout_hint, nested_audio_hint
from htdemucs.fsutil import atomic_write
from htdemucs.training.config import DataConfig, RootConfig
from htdemucs.training.layouts import (
    Files,
    Track,
    folder_track,
    mapped_folders,
    mapped_track,
    read_csv,
    read_mapping,
    stem_folders,
)
from htdemucs.training.reading import available_cores, check_samples, mono_statistics

MIXTURE_TOLERANCE = 0.01  # of full scale; more than rounding
LENGTH_TOLERANCE = 0.1  # seconds; a mixture whose length differs more may start elsewhere
CHECKED_SECONDS = 5  # of a mixture
MAX_LISTED = 3  # names in a note
READABLE_FORMATS = "wav, flac, aiff, mp3 or ogg"  # those of SEEKABLE_EXTENSIONS

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
    """A track to cut examples from, or files that do not belong to tracks.

    Attributes:
        name: the track's name.
        folder: where its files are.
        files: the files whose sum is a source, for each source; a source without files is silent.
        length: samples of its longest source at the model's rate; shorter ones are padded.
        weight: how often it is drawn, relative to its length.
        mean, std: of the mixture's mono mix; 0 and 1 without `data.normalize`.
        pool: for each source, recordings of single files, if the files do not belong to tracks.
            Each source of an example is then cut from another one.
    """

    name: str
    folder: Path
    files: Files
    length: int
    weight: float
    mean: float = 0.0
    std: float = 1.0
    pool: Mapping[str, tuple["Recording", ...]] = field(default_factory=dict)

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
    if pools := [recording for recording in valid if recording.pool]:
        raise ConfigError(f"data.valid needs tracks; {pools[0].folder} has files of single stems")
    train_folders, valid_folders = (
        {recording.folder.resolve() for recording in part} for part in (train, valid)
    )
    if both := train_folders & valid_folders:
        raise ConfigError(f"{min(both)} is in data.train and in data.valid; remove one")
    if not any(recording.weight for recording in train):
        raise ConfigError("there are no tracks for training; see data.train and data.musdb")
    return Corpus(train, valid, reader.notes)


@dataclass(frozen=True)
class _FileInfo:
    """Properties of a track's files, as in the cache."""

    length: int  # samples of the longest source at the model's rate
    shortest: int  # samples of the shortest source that has files
    sample_rates: list[int]  # of the files
    channels: int  # of the file that has most
    mixture: str  # how the mixture differs from the sum of the sources; empty if it does not
    mean: float  # of the mono mix of the mixture, or of the sum of the sources
    std: float


class _Reader:
    """Reads folders of tracks, and collects notes about them."""

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
        """Return the usable tracks of a folder."""
        if root.weight < 0:
            raise ConfigError(f"the weight of {root.path} must not be negative")
        some = root.missing == "silence"
        if root.path.suffix.lower() == ".csv":
            return [self._pool(root, read_csv(root.path, self.sources))]
        if root.mapping is None and (files := stem_folders(root.path, self.sources, some=some)):
            return [self._pool(root, files)]
        return self._tracks(root)

    def _tracks(self, root: RootConfig) -> list[Recording]:
        recordings: list[Recording] = []
        differences: dict[str, float] = {}  # seconds
        resampled: list[str] = []
        silent: list[str] = []
        incomplete: dict[str, Track] = {}
        failures: dict[str, HTDemucsError] = {}
        if root.mapping is None:
            folders = _folders_with_audio(root.path)
            read: Callable[[Path], Track | None] = partial(folder_track, sources=self.sources)
        else:
            mapping = read_mapping(root.mapping)
            folders = mapped_folders(root.path, mapping)
            read = partial(
                mapped_track, root.path, mapping=mapping, sources=self.sources,
                metadata=root.metadata,
            )  # fmt: skip
        with ThreadPoolExecutor(available_cores()) as pool:
            results = list(pool.map(lambda folder: self._read(folder, read, root.missing), folders))
        for folder, result in zip(folders, results, strict=True):
            name = folder.relative_to(root.path).as_posix()
            if isinstance(result, HTDemucsError):
                failures[name] = result
                continue
            track, info = result
            if track is None:
                continue
            if info is None:
                incomplete[name] = track
                continue
            level = (info.mean, info.std) if self.normalize else (0.0, 1.0)
            recordings.append(
                Recording(name, folder, track.files, info.length, root.weight, *level)
            )
            if info.shortest < info.length:
                differences[name] = (info.length - info.shortest) / self.sample_rate
            if info.sample_rates != [self.sample_rate]:
                resampled.append(name)
            if not all(track.files.values()):
                silent.append(name)
            if info.mixture:
                note = f"the mixture in {folder} {info.mixture}; training uses the sum"
                self.notes.append(note)
        if not recordings:
            raise self._no_usable_track(root, incomplete, failures)
        for name, failure in failures.items():
            self.notes.append(f"{root.path / name} is left out: {failure}")
        skipped = sum(
            not isinstance(result, HTDemucsError) and result[0] is None for result in results
        )
        groups = {
            "are left out, because the mapping skips them": skipped,
            "lack a source and are left out": list(incomplete),
            "lack a source, which is silent": silent,
            f"are resampled to {self.sample_rate} Hz while they are read": resampled,
        }
        for what, names in groups.items():
            if names:
                listed = f": {_list_names(names)}" if isinstance(names, list) else ""
                count = len(names) if isinstance(names, list) else names
                self.notes.append(f"{count} folders in {root.path} {what}{listed}")
        if differences:
            self.notes.append(
                f"in {len(differences)} folders in {root.path} sources differ in length, by up to "
                f"{max(differences.values()):.3f} s, and are padded with silence: "
                + _list_names(list(differences))
            )
        return recordings

    def _read(
        self, folder: Path, read: Callable[[Path], Track | None], missing: str
    ) -> tuple[Track | None, _FileInfo | None] | AudioError | ConfigError | EvaluationError:
        """Return a track and its properties.

        The track is None if the mapping skips it; the properties are, if it lacks a source.
        """
        try:
            track = read(folder)
            if track is None:
                return None, None
            found = [bool(files) for files in track.files.values()]
            if not (any(found) if missing == "silence" else all(found)):
                return track, None
            info = self._file_info(track.files, track.mixture)
            self._check(info)
        except (AudioError, ConfigError, EvaluationError) as error:
            return error
        return track, info

    def _pool(self, root: RootConfig, files: Files) -> Recording:
        """Return one recording for files that do not belong to tracks."""
        found: dict[str, list[tuple[Recording, _FileInfo]]] = {}
        for source, paths in files.items():
            with ThreadPoolExecutor(available_cores()) as threads:
                results = list(threads.map(partial(self._single_file, source), paths))
            for path, result in zip(paths, results, strict=True):
                if isinstance(result, HTDemucsError):
                    self.notes.append(f"{path} is left out: {result}")
            usable = [r for r in results if not isinstance(r, HTDemucsError)]
            if not usable and root.missing == "skip":
                raise ConfigError(
                    f"{root.path} has no usable file of {source}; for a silent source, set missing "
                    "to silence"
                )
            found[source] = usable
        if not any(found.values()):
            raise ConfigError(f"{root.path} has no usable file of {', '.join(self.sources)}")
        mean = variance = 0.0  # of the sum of one file of each source, as if they were independent
        totals = {source: sum(r.length for r, _ in pairs) for source, pairs in found.items()}
        for source, pairs in found.items():
            shares = [(r.length / totals[source], info) for r, info in pairs]
            source_mean = sum(share * info.mean for share, info in shares)
            mean += source_mean
            variance += sum(share * (info.std**2 + info.mean**2) for share, info in shares)
            variance -= source_mean**2
        level = (mean, variance**0.5 or 1.0) if self.normalize else (0.0, 1.0)
        pool = {
            source: tuple(replace(r, mean=level[0], std=level[1]) for r, _ in pairs)
            for source, pairs in found.items()
        }
        counts = ", ".join(f"{len(recordings)} of {source}" for source, recordings in pool.items())
        self.notes.append(f"the files of {root.path} are mixed at random: {counts}")
        length = max(totals.values())
        return Recording(root.path.name, root.path, {}, length, root.weight, *level, pool)

    def _single_file(self, source: str, path: Path) -> tuple[Recording, _FileInfo] | AudioError:
        files = {source: (path,)}
        try:
            info = self._file_info(files, None)
            self._check(info)
        except AudioError as error:
            return error
        return Recording(path.name, path.parent, files, info.length, 1.0), info

    def _no_usable_track(
        self,
        root: RootConfig,
        incomplete: Mapping[str, Track],
        failures: Mapping[str, HTDemucsError],
    ) -> HTDemucsError:
        for name, error in failures.items():
            more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
            return type(error)(f"{root.path} has no usable track; {name}: {error}{more}")
        message = (
            f"{root.path} has no folders with {', '.join(self.sources)} as {READABLE_FORMATS} files"
        )
        with_stems = [track for track in incomplete.values() if track.stems]
        hint = layout_hint(root.path) if root.mapping is None else ""
        if with_stems:
            hint = f"{with_stems[0].name} has {_list_names(list(with_stems[0].stems))}"
            if any(with_stems[0].files.values()):
                hint += "; for silence in place of missing sources, set missing to silence"
        return ConfigError(f"{message}; {hint}" if hint else message)

    def _check(self, info: _FileInfo) -> None:
        if info.channels not in (1, 2, self.channels):
            raise AudioError(
                f"a source has {info.channels} channels, the model {self.channels}; mix it down"
            )

    def _file_info(self, files: Files, mixture: Path | None) -> _FileInfo:
        """Return the properties of a track's files, from the cache if no file has changed."""
        try:
            path = self.cache / f"{_cache_key(files, mixture, self.sample_rate)}.json"
            with suppress(OSError, ValueError, TypeError):  # missing or damaged
                return _FileInfo(**json.loads(path.read_text(encoding="utf-8")))
            info = _read_file_info(files, mixture, self.sample_rate)
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


def _cache_key(files: Files, mixture: Path | None, sample_rate: int) -> str:
    """Return a key that changes when a file does."""
    parts: list[Any] = [sample_rate]
    for name, paths in [*files.items(), ("mixture", (mixture,) if mixture else ())]:
        stats = [(str(path.resolve()), path.stat()) for path in paths]
        parts.append([name, [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _read_file_info(files: Files, mixture: Path | None, sample_rate: int) -> _FileInfo:
    """Return the properties of a track's files; all samples are read and checked."""
    import soundfile

    infos = {source: [soundfile.info(path) for path in paths] for source, paths in files.items()}
    lengths = {
        source: max(resampled_length(i.frames, i.samplerate, sample_rate) for i in found)
        for source, found in infos.items()
        if found
    }
    for source, length in lengths.items():
        if not length:
            raise AudioError(f"{source} is empty")
    every = [info for found in infos.values() for info in found]
    rates = sorted({info.samplerate for info in every})
    channels = max(info.channels for info in every)
    longest, shortest = max(lengths.values()), min(lengths.values())
    info = _FileInfo(longest, shortest, rates, channels, "", 0.0, 1.0)
    paths = [path for found in files.values() for path in found]
    same_shape = False
    if mixture and all(files.values()):
        note, same_shape = _mixture_note(mixture, paths, info, sample_rate)
        info = replace(info, mixture=note)
    if mixture and same_shape:
        check_samples(paths)
        try:
            mean, std = mono_statistics([mixture], sample_rate)
        except AudioError as error:
            info = replace(info, mixture=f"cannot be used ({error})")
            mean, std = mono_statistics(paths, sample_rate)
    else:
        mean, std = mono_statistics(paths, sample_rate)
    return replace(info, mean=mean, std=std or 1.0)  # silence stays silence


def _mixture_note(
    mixture: Path, paths: Sequence[Path], sources: _FileInfo, sample_rate: int
) -> tuple[str, bool]:
    """Return how a mixture differs from the sum of its sources, and whether its shape is theirs."""
    import soundfile

    try:
        info = soundfile.info(mixture)
    except (OSError, RuntimeError) as error:
        return f"cannot be read ({error})", False
    if [info.samplerate] != sources.sample_rates:
        rates = ", ".join(map(str, sources.sample_rates))
        return f"has {info.samplerate} Hz, its sources {rates}", False
    if info.channels != sources.channels:
        return f"has {info.channels} channels, its sources {sources.channels}", False
    length = resampled_length(info.frames, info.samplerate, sample_rate)
    if abs(length - sources.length) > LENGTH_TOLERANCE * sample_rate:
        return f"has {length} samples, its sources {sources.length}", False
    start, length = info.frames // 2, CHECKED_SECONDS * info.samplerate
    parts = [soundfile.read(path, length, start, always_2d=True)[0] for path in (mixture, *paths)]
    whole, *others = (part[: min(map(len, parts))] for part in parts)
    difference = float(np.abs(whole - sum(others)).max(initial=0))
    if difference <= MIXTURE_TOLERANCE:
        return "", True
    return f"differs from the sum of its sources by up to {difference:.3f} of full scale", True
