"""The multitracks of a run, with lengths that are known without reading whole files."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

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
    deeper_audio,
    read_multitrack,
    where_else,
)
from htdemucs.formats import SEEKABLE_EXTENSIONS
from htdemucs.fsutil import atomic_write
from htdemucs.training.config import DataConfig, RootConfig

MIXTURE_TOLERANCE = 0.01  # of full scale: more is no rounding
LENGTH_TOLERANCE = 0.1  # seconds: with a greater difference, files may not begin together
CHECKED_SECONDS = 5
LISTED = 3  # names in a note

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
class Recording:
    """A multitrack to cut examples from.

    Attributes:
        multitrack: its files; silence follows the shorter ones.
        length: samples of its longest source.
        weight: how often it is drawn, relative to its length.
    """

    multitrack: Multitrack
    length: int
    weight: float

    @property
    def name(self) -> str:
        """The name of the multitrack."""
        return self.multitrack.name


@dataclass(frozen=True)
class Corpus:
    """The music of a run.

    Attributes:
        train, valid: to learn from, and to choose the best model with.
        notes: anything odd about it, a line each.
    """

    train: list[Recording] = field(default_factory=list)
    valid: list[Recording] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_corpus(
    data: DataConfig, sources: Sequence[str], *, channels: int, sample_rate: int, cache: Path
) -> Corpus:
    """Find the multitracks that a configuration names.

    One that cannot be learnt from is left out and named in a note.

    Args:
        data: the configuration.
        sources: the model's sources.
        channels: the model's channels.
        sample_rate: the model's sample rate.
        cache: folder for the facts about files, by which they need not be read again.

    Raises:
        ConfigError, AudioError, EvaluationError: a folder holds nothing that can be learnt from.
        TrainingError: the cache cannot be written.
    """
    reader = _Reader(sources, channels, sample_rate, cache)
    train, valid = reader.recordings(data.train), reader.recordings(data.valid)
    if data.musdb is not None:
        for recording in reader.recordings([RootConfig(data.musdb / "train")]):
            (valid if recording.name in MUSDB_VALIDATION else train).append(recording)
    both = _folders(train) & _folders(valid)
    if both:
        raise ConfigError(f"{min(both)} is to be learnt from and validated with; take one away")
    if not any(recording.weight for recording in train):
        raise ConfigError("there are no tracks to learn from; see data.train and data.musdb")
    return Corpus(train, valid, reader.notes)


@dataclass(frozen=True)
class _Facts:
    """Facts about a multitrack's files, as the cache keeps them."""

    length: int  # samples of the longest source
    shortest: int
    sample_rate: int
    channels: int  # of the source that has most
    mixture: str  # how the mixture differs from the sum of the sources, if it does


class _Reader:
    """Looks at folders of multitracks."""

    def __init__(
        self, sources: Sequence[str], channels: int, sample_rate: int, cache: Path
    ) -> None:
        self.sources, self.channels, self.sample_rate = sources, channels, sample_rate
        self.cache = cache
        self.notes: list[str] = []

    def recordings(self, roots: Iterable[RootConfig]) -> list[Recording]:
        return [recording for root in roots for recording in self._root(root)]

    def _root(self, root: RootConfig) -> list[Recording]:
        if root.weight < 0:
            raise ConfigError(f"{root.path} cannot weigh {root.weight}")
        recordings: list[Recording] = []
        differences: dict[str, float] = {}  # seconds
        lacking: dict[str, Multitrack] = {}
        failures: dict[str, HTDemucsError] = {}
        for folder in _subfolders(root.path):
            try:
                multitrack = read_multitrack(folder, SEEKABLE_EXTENSIONS)
                if multitrack.missing(self.sources):
                    lacking[folder.name] = multitrack
                    continue
                facts = self._facts(multitrack)
                self._check(facts)
            except (AudioError, ConfigError, EvaluationError) as error:
                failures[folder.name] = error
                continue
            recordings.append(Recording(multitrack, facts.length, root.weight))
            if facts.shortest < facts.length:
                differences[folder.name] = (facts.length - facts.shortest) / facts.sample_rate
            if facts.mixture:
                note = f"the mixture in {folder} {facts.mixture}; the sum is learnt from"
                self.notes.append(note)
        if not recordings:
            raise self._nothing_in(root.path, lacking, failures)
        self.notes += _notes(root.path, list(lacking), differences, failures)
        return recordings

    def _nothing_in(
        self, root: Path, lacking: Mapping[str, Multitrack], failures: Mapping[str, HTDemucsError]
    ) -> HTDemucsError:
        for name, error in failures.items():
            more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
            return type(error)(f"nothing in {root} can be learnt from; {name}: {error}{more}")
        message = f"{root} has no folders with {', '.join(self.sources)} as .wav or .flac"
        holding = [m for m in lacking.values() if m.stems]
        hint = where_else(root)
        if holding:
            hint = f"{holding[0].name} has {_listed(list(holding[0].stems))}"
        return ConfigError(f"{message}; {hint}" if hint else message)

    def _check(self, facts: _Facts) -> None:
        if facts.sample_rate != self.sample_rate:
            raise ConfigError(
                f"it has {facts.sample_rate} Hz, the model {self.sample_rate}; resample it"
            )
        if facts.channels not in (1, 2, self.channels):
            raise AudioError(
                f"a source has {facts.channels} channels, the model {self.channels}; mix it down"
            )

    def _facts(self, multitrack: Multitrack) -> _Facts:
        """Return the facts about a multitrack, from the cache if no file has changed since."""
        files = {source: multitrack.file(source) for source in self.sources}
        mixture = [multitrack.mixture] if multitrack.mixture else []
        try:
            path = self.cache / f"{_key([*files.values(), *mixture])}.json"
            with suppress(OSError, ValueError, TypeError):  # not there yet, or damaged
                return _Facts(**json.loads(path.read_text(encoding="utf-8")))
            facts = _probe(files, multitrack.mixture)
        except HTDemucsError:
            raise
        except Exception as error:  # a decoder may raise anything
            raise AudioError(f"cannot read the sources: {error}") from error
        try:
            with atomic_write(path) as partial:
                partial.write_text(json.dumps(asdict(facts)), encoding="utf-8")
        except OSError as error:
            raise TrainingError(f"cannot write {path}: {error.strerror or error}") from error
        return facts


def _folders(recordings: Iterable[Recording]) -> set[Path]:
    return {recording.multitrack.folder.resolve() for recording in recordings}


def _subfolders(root: Path) -> list[Path]:
    """Return the folders in a folder that hold audio, or folders with audio."""
    try:
        folders = sorted(path for path in root.iterdir() if path.is_dir())
    except OSError as error:
        raise ConfigError(f"cannot read {root}: {error.strerror or error}") from error
    return [
        path
        for path in folders
        if not path.name.startswith(".") and (audio_paths(path) or deeper_audio(path))
    ]


def _notes(
    root: Path,
    lacking: Sequence[str],
    differences: Mapping[str, float],
    failures: Mapping[str, HTDemucsError],
) -> Iterator[str]:
    for name, error in failures.items():
        yield f"{root / name} is left out: {error}"
    if lacking:
        yield (
            f"{len(lacking)} folders in {root} lack a source and are left out: {_listed(lacking)}"
        )
    if differences:
        yield (
            f"in {len(differences)} folders in {root} sources differ in length, by up to "
            f"{max(differences.values()):.3f} s, and are padded with silence: "
            + _listed(list(differences))
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + ("…" if len(names) > LISTED else "")


def _key(paths: Sequence[Path]) -> str:
    """Return a key that changes when a file does."""
    stats = [(str(path.resolve()), path.stat()) for path in paths]
    parts = [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _probe(files: Mapping[str, Path], mixture: Path | None) -> _Facts:
    import soundfile

    infos = {name: soundfile.info(path) for name, path in files.items()}
    lengths, rates = ({i.frames for i in infos.values()}, {i.samplerate for i in infos.values()})
    if len(rates) > 1 or max(lengths) - min(lengths) > LENGTH_TOLERANCE * max(rates):
        listed = ", ".join(f"{n} {i.frames} at {i.samplerate} Hz" for n, i in infos.items())
        raise AudioError(f"the sources differ in samples or rate: {listed}")
    if not min(lengths):
        raise AudioError("a source is empty")
    channels = max(info.channels for info in infos.values())
    facts = _Facts(max(lengths), min(lengths), rates.pop(), channels, "")
    return replace(facts, mixture=_mixture_note(mixture, files, facts)) if mixture else facts


def _mixture_note(mixture: Path, files: Mapping[str, Path], facts: _Facts) -> str:
    """Return how a mixture differs from the sum of its sources; empty if it does not."""
    import soundfile

    try:
        info = soundfile.info(mixture)
    except (OSError, RuntimeError) as error:
        return f"cannot be read ({error})"
    if info.samplerate != facts.sample_rate:
        return f"has {info.samplerate} Hz, its sources {facts.sample_rate}"
    if info.channels != facts.channels:
        return f"has {info.channels} channels, its sources {facts.channels}"
    if abs(info.frames - facts.length) > LENGTH_TOLERANCE * facts.sample_rate:
        return f"has {info.frames} samples, its sources {facts.length}"
    difference = _difference(mixture, list(files.values()))
    if difference <= MIXTURE_TOLERANCE:
        return ""
    return f"differs from the sum of its sources by up to {difference:.3f} of full scale"


def _difference(mixture: Path, sources: Sequence[Path]) -> float:
    """Return the greatest difference between a mixture and the sum of its sources, mid-track."""
    import soundfile

    info = soundfile.info(mixture)
    start, length = info.frames // 2, CHECKED_SECONDS * info.samplerate
    parts = [soundfile.read(path, length, start, always_2d=True)[0] for path in (mixture, *sources)]
    whole, *others = (part[: min(map(len, parts))] for part in parts)
    return float(np.abs(whole - sum(others)).max(initial=0))
