"""A library: many tracks, and the one way of each from wherever it lies to its stems."""

import hashlib
import json
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, repeat
from os import PathLike
from pathlib import Path
from queue import Queue
from typing import Any, Literal

from htdemucs.audio import AudioFile
from htdemucs.audio.ffmpeg import printable
from htdemucs.batch import remote
from htdemucs.batch.inputs import Track
from htdemucs.batch.output_paths import OutputAssignment, is_source
from htdemucs.batch.remote import open_store
from htdemucs.batch.results import Outcome, failed, failed_unexpectedly
from htdemucs.errors import AudioError, HTDemucsError, SeparationError
from htdemucs.events import Event, EventCallback, Progress, Started, ignore_events
from htdemucs.fsutil import delete_unused
from htdemucs.separation import Separator
from htdemucs.stems import manifest
from htdemucs.stems.observer import Observer
from htdemucs.stems.output_options import OutputOptions
from htdemucs.stems.paths import OutputPaths
from htdemucs.stems.track import ResumeKey, SeparatedFile, separate_to

LOG = logging.getLogger(__name__)


class Library:
    """Separates many tracks: gives each a place, skips what is finished, resumes what is not.

    Args:
        out: folder of the stems, or its URL.
        options: which files are written, and how.
        skip_existing: leave out tracks whose manifest says that the same was done with the same
            file, and whose stems are as they were written.
        scratch: folder for copies of tracks and stems that are elsewhere; by default one of this
            user's in the system's folder for temporary files.
    """

    def __init__(
        self,
        out: str | PathLike[str],
        options: OutputOptions | None = None,
        *,
        skip_existing: bool = True,
        scratch: Path | None = None,
    ) -> None:
        self.out, self.options = str(out), options or OutputOptions()
        self.skip_existing, self.scratch = skip_existing, scratch
        self._store = open_store(self.out)
        self._placement = OutputAssignment(self._places, self._store)

    def place(self, track: Track) -> Track:
        """Return the track with its copy set, so that no two tracks share a place.

        Raises:
            SeparationError: the template and its name or tags lead out of the folder.
        """
        return self._placement.place(track)

    def separate_all(
        self,
        tracks: Iterable[Track | HTDemucsError],
        separators: Sequence[Separator],
        on_progress: EventCallback | None = None,
    ) -> Iterator[Outcome]:
        """Separate tracks, as many at once as there are separators; yield outcomes as they come.

        Args:
            tracks: from `find_tracks`; an error among them becomes a failed outcome.
            separators: one for each device, all with the same model and settings.
            on_progress: called with every event (`htdemucs.events`), in the thread that separates
                the track.
        """
        tell = on_progress or ignore_events
        placed = self._placed(tracks, tell)
        if len(separators) == 1:
            for track in placed:
                if isinstance(track, Outcome):
                    yield track
                else:
                    yield self.separate(track, separators[0], tell)
        else:
            yield from self._in_threads(placed, separators, tell)

    def separate(
        self,
        track: Track,
        separator: Separator,
        on_progress: EventCallback | None = None,
        watcher: Observer | None = None,
    ) -> Outcome:
        """Separate a placed track, unless it is finished. A failure is an outcome too."""
        tell = on_progress or ignore_events
        tell(Started(track.location))
        started = time.monotonic()
        try:
            outcome = self._separated(track, separator, tell, watcher)
        except HTDemucsError as error:
            outcome = failed(track.location, error)
        except Exception as error:  # other tracks may be well
            LOG.debug("%s", track.location, exc_info=True)
            outcome = failed_unexpectedly(track.location, error)
        outcome = replace(outcome, seconds=time.monotonic() - started)
        for event in outcome.events():
            tell(event)
        return outcome

    def preview(self, track: Track, separator: Separator) -> Literal["separate", "resume", "skip"]:
        """Return what `separate` would do with a placed track of this machine.

        Raises:
            AudioError: the track cannot be read.
        """
        places = self._places(track)
        known = self._known(track, places)
        source = manifest.source_fingerprint(track.path, known)
        AudioFile(track.path)  # refuses what is no audio
        if self._finished(known, places, separator, source):
            return "skip"
        return "resume" if places.spool.exists() else "separate"

    def files(self, track: Track, separator: Separator) -> dict[str, str]:
        """Return path or URL of each file of a placed track, by its stem's name."""
        targets = self.options.targets(self._places(track), separator.stems)
        return {name: self._store.location(path) for name, path in targets.items()}

    def _separated(
        self, track: Track, separator: Separator, tell: EventCallback, watcher: Observer | None
    ) -> Outcome:
        started = time.monotonic()
        if not track.is_local and track.stored is None:
            track = replace(track, stored=remote.stat(track.location))
        recipe = manifest.RunFingerprint.of(separator, self.options)
        places = self._places(track)
        known = self._known(track, places)
        source = _known_source(track, known)
        if run := self._finished(known, places, separator, source):
            return self._skipped(track, places, separator, run)
        with self._at_hand(track, places) as (path, here), _naming(track, path):
            if source is None:
                source = manifest.fingerprint(path)
                if run := self._finished(known, places, separator, source):
                    return self._skipped(track, places, separator, run)
            identified = {**source, **_identity(track)}

            def finish(done: SeparatedFile) -> None:
                if not manifest.is_same(path, identified):
                    message = f"{printable(path)} changed while it was read; separate it again"
                    raise AudioError(message)
                seconds = time.monotonic() - started
                latest = self._known(track, places)  # another process may have finished meanwhile
                manifest.write_manifest(identified, recipe, here, done, seconds, latest)
                self._publish(here, places, separator)

            resumption = ResumeKey(here.spool, recipe.stems_key(identified["sha256"]), finish)
            done = separate_to(
                separator, path, here, self.options, _of(track, tell), resumption, watcher
            )
        return Outcome(
            track=track.location,
            status="separated",
            files=self.files(track, separator),
            manifest=self._store.location(places.manifest),
            duration=done.length / done.sample_rate,
            resumed=done.resumed,
            gain=done.gain,
            warnings=done.warnings,
        )

    def _publish(self, here: OutputPaths, places: OutputPaths, separator: Separator) -> None:
        """Bring files to their place and, when all are there, their manifest."""
        written = self.options.targets(here, separator.stems)
        for name, path in self.options.targets(places, separator.stems).items():
            self._store.put(written[name], path)
        self._store.put(here.manifest, places.manifest)

    def _skipped(
        self, track: Track, places: OutputPaths, separator: Separator, run: manifest.Document
    ) -> Outcome:
        if self._store.is_local:
            delete_unused(places.spool)
        return Outcome(
            track=track.location,
            status="skipped",
            files=self.files(track, separator),
            manifest=self._store.location(places.manifest),
            duration=run["duration"],
            gain=run["levels"].get("gain"),
        )

    def _known(self, track: Track, places: OutputPaths) -> manifest.Document | None:
        """Return the manifest at a track's place.

        Raises:
            SeparationError: it is of another track.
        """
        document = self._store.read_manifest(places.manifest)
        if document and not is_source(track, document["source"]):
            raise SeparationError(
                f"{self._store.location(places.manifest)} is of another track, "
                f"{document['source'].get('path')}; choose another output folder"
            )
        return document

    def _finished(
        self,
        known: manifest.Document | None,
        places: OutputPaths,
        separator: Separator,
        source: Mapping[str, Any] | None,
    ) -> manifest.Document | None:
        """Return the run of a manifest that did the same, if all its files are still there."""
        if not (self.skip_existing and known and source):
            return None
        key = manifest.RunFingerprint.of(separator, self.options).key(source["sha256"])
        targets = self.options.targets(places, separator.stems)
        run = manifest.find_run(known, key)
        if run is None or run["files"].keys() != targets.keys():
            return None
        entries = {targets[name]: entry for name, entry in run["files"].items()}
        return run if self._store.holds(entries) else None

    def _places(self, track: Track, top: Path | None = None) -> OutputPaths:
        folder = (self._store.top if top is None else top) / track.folder
        return self.options.places(track.path, folder, track.copy)

    def _placed(
        self, tracks: Iterable[Track | HTDemucsError], tell: EventCallback
    ) -> Iterator[Track | Outcome]:
        for track in tracks:
            try:
                if isinstance(track, HTDemucsError):
                    raise track
                yield self.place(track)
            except HTDemucsError as error:
                location = None if isinstance(track, HTDemucsError) else track.location
                outcome = failed(location, error)
                for event in outcome.events():
                    tell(event)
                yield outcome

    def _in_threads(
        self,
        placed: Iterable[Track | Outcome],
        separators: Sequence[Separator],
        tell: EventCallback,
    ) -> Iterator[Outcome]:
        """Separate each track in the next thread whose separator is idle."""
        idle: Queue[Separator] = Queue()
        for separator in separators:
            idle.put(separator)
        stopping = threading.Event()

        def report(event: Event) -> None:
            if stopping.is_set() and isinstance(event, Progress):
                raise KeyboardInterrupt
            tell(event)

        def separate(track: Track) -> Outcome:
            separator = idle.get()
            try:
                return self.separate(track, separator, report)
            finally:
                idle.put(separator)

        running: set[Future[Outcome]] = set()
        with ThreadPoolExecutor(len(separators)) as pool:
            try:
                for item in chain(placed, repeat(None)):
                    if isinstance(item, Outcome):
                        yield item
                    elif item is not None:
                        running.add(pool.submit(separate, item))
                    elif not running:
                        return
                    if item is None or len(running) > len(separators):
                        done, running = wait(running, return_when=FIRST_COMPLETED)
                        yield from (future.result() for future in done)
            finally:  # after a signal too: tracks that wait are not begun
                stopping.set()
                pool.shutdown(cancel_futures=True)

    @contextmanager
    def _at_hand(self, track: Track, places: OutputPaths) -> Iterator[tuple[Path, OutputPaths]]:
        """Give the track's file and the places of its stems on this machine, or copies of them."""
        if track.is_local and self._store.is_local:
            yield track.path, places
            return
        work = json.dumps([self.out, track.location, str(places.manifest), places.template])
        digest = hashlib.sha256(work.encode()).hexdigest()
        # The same name again after a kill: unfinished work is found there.
        with remote.scratch_folder(self.scratch, digest[:24], track.location) as folder:
            path = track.path
            if not track.is_local:
                path = folder / "in" / track.path.name
                remote.fetch(track.location, path)
            yield path, places if self._store.is_local else self._places(track, folder / "out")


def _of(track: Track, tell: EventCallback) -> EventCallback:
    """Return a listener to the work on a track's copy: its events name the track."""

    def listener(event: Event) -> None:
        tell(replace(event, track=track.location) if isinstance(event, Progress) else event)

    return listener


@contextmanager
def _naming(track: Track, path: Path) -> Iterator[None]:
    """Let errors name the track where they name its copy."""
    try:
        yield
    except HTDemucsError as error:
        if track.is_local:
            raise
        raise type(error)(str(error).replace(str(path), track.location)) from error


def _known_source(track: Track, known: manifest.Document | None) -> Mapping[str, Any] | None:
    """Return the track's fingerprint; None where it is elsewhere and the manifest is older."""
    if track.stored is None:
        return manifest.source_fingerprint(track.path, known)
    source = known["source"] if known else {}
    at_rest = (source.get("bytes"), source.get("version")) == (
        track.stored.bytes,
        track.stored.version,
    )
    same = at_rest and track.stored.version and isinstance(source.get("sha256"), str)
    return source if same else None


def _identity(track: Track) -> dict[str, Any]:
    """Return what a manifest says of a track beside its fingerprint."""
    version = {"version": track.stored.version} if track.stored else {}
    return {"path": track.absolute, **version}
