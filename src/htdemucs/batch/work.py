"""One track of a large run, wherever it lies and its stems go: fetch, separate, put, skip."""

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from htdemucs.audio.failures import reason
from htdemucs.batch import manifest, storage
from htdemucs.batch.library import UNEXPECTED, Job, Library, Outcome, failed
from htdemucs.batch.sources import Source
from htdemucs.errors import HTDemucsError, StorageError
from htdemucs.fast import keep_freed_memory
from htdemucs.provenance import weights_sha256
from htdemucs.separation import OutputOptions, Separator
from htdemucs.separation.naming import Places
from htdemucs.weights import load_model


@dataclass(frozen=True)
class Plan:
    """What is done with every track, in a form that can be sent to another machine.

    Attributes:
        name, repo: of the model.
        options: what is written.
        stems: only these of the model's.
        settings: of the `Separator`.
        out: folder, or its URL.
        folder: below it, of the model's stems.
        device: where to run; by default the best there is.
        skip_existing: leave out what is done already.
        scratch: folder for copies of what is elsewhere; by default one in the system's.
    """

    name: str
    repo: Path | None
    options: OutputOptions
    stems: tuple[str, ...] | None
    settings: Mapping[str, Any]
    out: str
    folder: str
    device: str | None = None
    skip_existing: bool = True
    scratch: Path | None = None

    def separator(self, device: str | None, **changes: Any) -> Separator:
        """Load the model.

        Raises:
            ModelNotFoundError, DownloadError, CheckpointError, ConfigError, SeparationError: it
                cannot be had, or not with these options.
        """
        wanted = self.stems or self.options.only_stem
        model = load_model(self.name, repo=self.repo, device=device, stems=wanted)
        needed = self.stems or self.options.needed_stems(model.sources)
        return Separator(model, stems=needed, **{**self.settings, **changes})

    def check(self) -> None:
        """Raise now what every worker would have to raise."""
        self.separator("cpu", precision="fp32")

    @property
    def top(self) -> Path:
        """The folder of the stems; relative if it is elsewhere."""
        return Path(self.folder) if storage.is_url(self.out) else Path(self.out, self.folder)


class Workshop:
    """A model that is loaded once, and separates track after track.

    Args:
        plan: what is done with each.
        threads: that compute, on a CPU.
    """

    def __init__(self, plan: Plan, threads: int | None = None) -> None:
        keep_freed_memory()
        if threads:
            torch.set_num_threads(threads)
        self._plan, self._options = plan, plan.options
        self._separator = plan.separator(plan.device)
        hashes = weights_sha256(plan.name, plan.repo)
        self._library = Library(
            plan.name, hashes, plan.options, plan.top, skip_existing=plan.skip_existing
        )
        self._recipe = manifest.Recipe.of(plan.name, hashes, self._separator, plan.options)

    @property
    def device(self) -> str:
        """Where it computes."""
        return str(self._separator.device)

    def separate(self, source: Source, number: int) -> Outcome:
        """Separate a track, whose place has this number. Any failure is an outcome too."""
        started = time.monotonic()
        try:
            if storage.is_url(source.path) or storage.is_url(self._plan.out):
                outcome = self._separate_copy(source, number)
            else:
                places = self._places(source, self._plan.top, number)
                outcome = self._library.separate(Job(source.track, places, number), self._separator)
        except HTDemucsError as error:
            outcome = failed(source.path, error)
        except Exception as error:  # a mistake of ours, or no memory: other tracks may be well
            told = f"{source.path}: {UNEXPECTED} {type(error).__name__} ({reason(error)})"
            outcome = failed(source.path, HTDemucsError(f"{told}; please report it"))
        return dataclasses.replace(outcome, seconds=time.monotonic() - started)

    def _separate_copy(self, source: Source, number: int) -> Outcome:
        """Where the track, or its stems' place, is elsewhere."""
        stored = None
        if storage.is_url(source.path):
            stored = source.stored or storage.stat(source.path)
        places = self._places(source, self._plan.top, number)
        known = self._known(places) if self._plan.skip_existing else None
        if known and self._is_finished(known, places, _same_source(source, stored, known)):
            return self._skipped(source, places, known)
        with self._scratch(source, places) as scratch:
            track = source.track
            if stored:
                path = scratch / "in" / track.path.name
                storage.fetch(source.path, path)
                origin = {"path": source.path, "version": stored.version}
                track = dataclasses.replace(track, path=path, origin=origin)
            if known and self._is_finished(known, places, manifest.fingerprint(track.path)):
                return self._skipped(source, places, known)
            return self._separated(source, Job(track, places, number), scratch)

    def _separated(self, source: Source, job: Job, scratch: Path) -> Outcome:
        elsewhere = storage.is_url(self._plan.out)
        if elsewhere:
            top = scratch / "out" / self._plan.folder
            job = dataclasses.replace(job, places=self._places(source, top, job.number))
        outcome = self._library.separate(job, self._separator)
        if outcome.status == "failed":
            told = (outcome.reason or "").replace(str(job.track.path), source.path)
            return dataclasses.replace(outcome, track=source.path, reason=told)
        if elsewhere:
            outcome = self._put(outcome, scratch / "out")
        return dataclasses.replace(outcome, track=source.path, status="separated")

    def _put(self, outcome: Outcome, top: Path) -> Outcome:
        """Copy the stems to their place and, when all are there, their manifest."""

        def put(path: str) -> str:
            url = self._url(Path(path).relative_to(top))
            storage.put(Path(path), url)
            return url

        files = {name: put(path) for name, path in outcome.files.items()}
        return dataclasses.replace(outcome, files=files, manifest=put(str(outcome.manifest)))

    def _places(self, source: Source, top: Path, number: int) -> Places:
        track = source.track
        return self._options.places(track.path, top / track.folder, number)

    def _known(self, places: Places) -> dict[str, Any] | None:
        if not storage.is_url(self._plan.out):
            return manifest.read_manifest(places.manifest)
        data = storage.read(self._url(places.manifest), manifest.MAX_SIZE)
        return manifest.parse_manifest(data) if data else None

    def _is_finished(
        self, known: dict[str, Any], places: Places, source: Mapping[str, Any] | None
    ) -> bool:
        if source is None:
            return False
        key = self._recipe.key(source["sha256"])
        targets = self._options.targets(places, self._separator.stems)
        if not storage.is_url(self._plan.out):
            return manifest.finished_files(known, key, targets)
        if known["key"] != key or known["files"].keys() != targets.keys():
            return False
        folders = {path.parent for path in targets.values()}
        found = {folder: storage.sizes(self._url(folder)) for folder in folders}
        return all(
            isinstance(about := known["files"][name], dict)
            and found[path.parent].get(path.name, -1) == about.get("bytes")
            for name, path in targets.items()
        )

    def _skipped(self, source: Source, places: Places, known: dict[str, Any]) -> Outcome:
        job = Job(source.track, places, 1)
        outcome = self._library.skipped(job, self._separator, known)
        if storage.is_url(self._plan.out):
            files = {name: self._url(Path(path)) for name, path in outcome.files.items()}
            url = self._url(places.manifest)
            outcome = dataclasses.replace(outcome, files=files, manifest=url)
        return dataclasses.replace(outcome, track=source.path)

    def _url(self, path: Path) -> str:
        return storage.join(self._plan.out, PurePosixPath(path))

    @contextmanager
    def _scratch(self, source: Source, places: Places) -> Iterator[Path]:
        """A folder for this work alone, the same again if it is not ended but killed."""
        work = json.dumps([self._plan.out, source.path, str(places.manifest), places.template])
        digest = hashlib.sha256(work.encode()).hexdigest()
        folder = _private(self._plan.scratch) / digest[:24]
        folder.mkdir(exist_ok=True)
        try:
            yield folder
        except Exception:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


def _same_source(
    source: Source, stored: storage.Stored | None, known: dict[str, Any]
) -> Mapping[str, Any] | None:
    """The track's fingerprint, if the manifest is of this very file and no byte must be read."""
    if stored is None:
        return manifest.source_hash(Path(source.path), known)
    made_of = known["source"]
    same = (made_of.get("path"), made_of.get("bytes"), made_of.get("version")) == (
        source.path,
        stored.bytes,
        stored.version,
    )
    return made_of if same and stored.version and isinstance(made_of.get("sha256"), str) else None


def _private(folder: Path | None) -> Path:
    """The folder of all scratch folders, which nobody else can write to.

    Raises:
        StorageError: it cannot be made, or is somebody else's.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = folder or Path(tempfile.gettempdir(), f"htdemucs-{user}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
    except OSError as error:
        raise StorageError(f"{folder} cannot hold temporary files ({error.strerror})") from error
    if owner != user and hasattr(os, "getuid"):
        raise StorageError(f"{folder} is another user's; name a folder of yours with --scratch")
    return folder
