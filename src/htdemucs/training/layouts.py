"""Layouts of data sets: which audio files are the stems of which track.

`folder_track` reads the usual one, a folder for each track with a file for each source.
`mapped_tracks` sums several files to a source, as a mapping in YAML says; those of some public data
sets are in `mappings/`. `stem_folders` and `read_csv` list files that do not belong to tracks.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from htdemucs.errors import AudioError, ConfigError
from htdemucs.evaluation.dataset import audio_paths, read_multitrack, stem_key
from htdemucs.formats import SEEKABLE_EXTENSIONS
from htdemucs.training.config import from_plain

MAPPINGS = Path(__file__).parent / "mappings"
CSV_COLUMNS = ({"instrum", "path"}, {"type", "path"})  # both are in use
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # 10 times as fast

Files = Mapping[str, tuple[Path, ...]]  # of each source


@dataclass(frozen=True)
class Track:
    """The files of a track.

    Attributes:
        name: its folder, relative to that of the data set.
        folder: where its files are.
        files: the files whose sum is a source, for each source of the model; none if it is missing.
        mixture: the file of the mixture, or None.
        stems: names of the stems that were found.
    """

    name: str
    folder: Path
    files: Files
    mixture: Path | None = None
    stems: tuple[str, ...] = ()


@dataclass(frozen=True)
class StemMapping:
    """Which files of a track are summed to which source; the fields are the keys of a YAML file.

    In `track`, `metadata` and `files`, `*` stands for any characters, and `{track}` for the name of
    the track's folder.

    Attributes:
        files: the stem files, relative to the track's folder.
        sources: patterns for the labels of each source. A file goes to the first source that the
            model has and that has a fitting pattern; upper and lower case are the same.
        track: each folder with a file of this name is a track; by default, each folder in the
            data set's folder.
        label: "folder" (the name of a file's folder), "name" (the file's name without extension),
            or a key that each of the `stems` in the metadata has.
        metadata: a YAML or JSON file about the track. `stems` in it maps the name of each file,
            without extension, to the stem's keys; a key `filename` replaces that name.
        leave_out: patterns for labels of files that are not used.
        skip: keys of the metadata with the values for which a track is not used.
    """

    files: str
    sources: Mapping[str, Any]
    track: str | None = None
    label: str = "folder"
    metadata: str | None = None
    leave_out: tuple[str, ...] = ()
    skip: Mapping[str, Any] = field(default_factory=dict)

    def source(self, label: str, sources: Sequence[str]) -> str | None:
        """Return which of the model's sources a label belongs to; None if to none."""
        if _fits(label, self.leave_out):
            return None
        names = {stem_key(source): source for source in sources}
        for name, patterns in self.sources.items():
            if stem_key(name) in names and _fits(label, patterns):
                return names[stem_key(name)]
        return None


def read_mapping(name: str) -> StemMapping:
    """Return the mapping of a data set by its name, such as "moisesdb", or from a YAML file.

    Raises:
        ConfigError: there is no such mapping, or it is not valid.
    """
    shipped = sorted(path.stem for path in MAPPINGS.glob("*.yaml"))
    path = MAPPINGS / f"{name}.yaml" if name in shipped else Path(name).expanduser()
    if not path.is_file():
        raise ConfigError(f"mapping must be {', '.join(shipped)} or a YAML file, not {name}")
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    try:
        mapping = from_plain(StemMapping, fields, "")
        for source, patterns in mapping.sources.items():
            if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
                raise ConfigError(f"sources.{source} must be a list of labels")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return mapping


def folder_track(folder: Path, sources: Sequence[str]) -> Track:
    """Return the track in a folder that has a file for each source.

    Raises:
        EvaluationError: the folder cannot be read, or two files have the name of one stem.
    """
    multitrack = read_multitrack(folder, SEEKABLE_EXTENSIONS)
    files = {
        source: () if multitrack.missing([source]) else (multitrack.file(source),)
        for source in sources
    }
    return Track(folder.name, folder, files, multitrack.mixture, tuple(multitrack.stems))


def mapped_folders(root: Path, mapping: StemMapping) -> list[Path]:
    """Return the folders of the tracks of a data set.

    Raises:
        ConfigError: the folder cannot be read, or has no track.
    """
    if not root.is_dir():
        raise ConfigError(f"cannot read {root}: it is not a folder")
    pattern = mapping.track
    found = root.rglob(pattern) if pattern else (path / "x" for path in root.iterdir())
    folders = sorted({path.parent for path in found if path.parent.is_dir()})
    folders = [path for path in folders if not path.name.startswith(".")]
    if not folders:
        raise ConfigError(f"{root} has no folders with {pattern or 'files'}")
    return folders


def mapped_track(
    root: Path,
    folder: Path,
    mapping: StemMapping,
    sources: Sequence[str],
    metadata: Path | None = None,
) -> Track | None:
    """Return the track in a folder; None if the mapping skips it.

    Args:
        root: folder of the data set.
        folder: folder of the track.
        mapping: says which files are summed to which source.
        sources: the model's sources.
        metadata: folder with the metadata of all tracks, for tracks without it in their folder.

    Raises:
        AudioError: the metadata is missing or damaged.
    """
    about = _read_metadata(folder, mapping, metadata) if mapping.metadata else {}
    if any(about.get(key) == value for key, value in mapping.skip.items()):
        return None
    labels = _stem_labels(about, mapping.label) if mapping.metadata else {}
    files: dict[str, tuple[Path, ...]] = dict.fromkeys(sources, ())
    found: set[str] = set()
    pattern = mapping.files.replace("{track}", _escape(folder.name))
    for path in sorted(folder.glob(pattern)):
        if path.suffix.lower() not in SEEKABLE_EXTENSIONS or path.name.startswith("."):
            continue
        if mapping.label in ("folder", "name"):
            names = [path.parent.name if mapping.label == "folder" else path.stem]
        else:
            names = labels.get(path.stem, [])
        found.update(names)
        targets = {mapping.source(name, sources) for name in names}
        if len(targets) == 1 and (source := targets.pop()) is not None:
            files[source] = (*files[source], path)
    name = folder.relative_to(root).as_posix()
    return Track(name, folder, files, stems=tuple(sorted(found)))


def stem_folders(root: Path, sources: Sequence[str], *, some: bool = False) -> Files | None:
    """Return the files of a folder with a folder for each source; None if it is not of this kind.

    With `some`, one of the sources suffices.
    """
    if not root.is_dir():
        return None
    folders = {stem_key(path.name): path for path in root.iterdir() if path.is_dir()}
    files = {
        source: tuple(audio_paths(folders[key], SEEKABLE_EXTENSIONS)) if key in folders else ()
        for source, key in ((source, stem_key(source)) for source in sources)
    }
    found = [bool(paths) for paths in files.values()]
    return files if (any(found) if some else all(found)) else None


def read_csv(path: Path, sources: Sequence[str]) -> Files:
    """Return the files in a table with the columns `instrum` (or `type`) and `path`.

    Relative paths are relative to the table's folder.

    Raises:
        ConfigError: the table cannot be read, or has other columns.
    """
    keys = {stem_key(source): source for source in sources}
    files: dict[str, tuple[Path, ...]] = dict.fromkeys(sources, ())
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            columns = set(table.fieldnames or ())
            if not any(wanted <= columns for wanted in CSV_COLUMNS):
                raise ConfigError(f"{path} must have the columns instrum and path")
            for row in table:
                source = keys.get(stem_key(row.get("instrum") or row.get("type") or ""))
                if source and row["path"]:
                    files[source] = (*files[source], path.parent / row["path"])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    return files


def _read_metadata(folder: Path, mapping: StemMapping, elsewhere: Path | None) -> dict[str, Any]:
    assert mapping.metadata
    name = mapping.metadata.replace("{track}", folder.name)
    path = folder / name
    if not path.is_file() and elsewhere:
        path = elsewhere / name
    try:
        text = path.read_text(encoding="utf-8")
        about = json.loads(text) if path.suffix == ".json" else yaml.load(text, _LOADER)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise AudioError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(about, dict) or not isinstance(about.get("stems"), dict):
        raise AudioError(f"{path} does not list stems")
    return about


def _stem_labels(about: Mapping[str, Any], key: str) -> dict[str, list[str]]:
    """Return the labels of each stem by its file's name without extension."""
    labels = {}
    for name, stem in about["stems"].items():
        if not isinstance(stem, dict) or stem.get(key) is None:
            continue
        value = stem[key]
        file = Path(str(stem.get("filename", name))).stem
        labels[file] = [str(v) for v in value] if isinstance(value, list) else [str(value)]
    return labels


def _fits(label: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(label.casefold(), pattern.casefold()) for pattern in patterns)


def _escape(name: str) -> str:
    """Return a name in which `[` does not begin a set of characters of a pattern."""
    return name.replace("[", "[[]")
