"""`Library`: separates many tracks, skips those that are finished and resumes the others."""

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
from pathlib import Path, PurePath
from queue import Queue
from typing import Any, Literal

from htdemucs.audio import AudioFile
from htdemucs.audio.ffmpeg import display_path
from htdemucs.batch import remote
from htdemucs.batch.inputs import Track
from htdemucs.batch.output_paths import OutputAssignment, is_same_track
from htdemucs.errors import (
    DISK_FULL,
    AudioError,
    HTDemucsError,
    SeparationError,
    TrackBusyError,
    reason,
)
from htdemucs.events import (
    Event,
    EventCallback,
    Progress,
    Reading,
    Started,
    Waiting,
    ignore_events,
    result_events,
)
from htdemucs.fsutil import error_line, is_disk_full, is_locked
from htdemucs.results import TrackResult
from htdemucs.separation import Separator
from htdemucs.stems import manifest
from htdemucs.stems.first_pass import ResumeKey
from htdemucs.stems.observer import Observer
from htdemucs.stems.output_options import OutputOptions
from htdemucs.stems.paths import OutputPaths, fitting_name
from htdemucs.stems.track import separate_track

LOG = logging.getLogger(__name__)
BUSY_SECONDS = 1.0  # between attempts to separate a track that another process is separating


class Library:
    """A folder of stems, and the separation of tracks into it.

    Args:
        out: the folder, or its URL.
        options: which files are written, and how.
        skip_existing: skip tracks whose manifest records the same work on the same file, if their
            stems are unchanged.
        scratch: folder for local copies of remote tracks and stems; by default one of this user's
            in the system's temporary folder.
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
        self._store = remote.open_store(self.out)
        self._assignment = OutputAssignment(self.output_paths_for, self._store)

    def separate_all(
        self,
        tracks: Iterable[Track | HTDemucsError],
        separators: Sequence[Separator],
        on_progress: EventCallback | None = None,
    ) -> Iterator[TrackResult]:
        """Separate tracks, each with the next idle separator; yield results as they come.

        A track that another process is separating comes after all others; if the other process
        has finished it by then, it is skipped.

        Args:
            tracks: from `find_tracks`; an error among them becomes a failed result.
            separators: one for each device, all with the same model and settings.
            on_progress: called with every event (`htdemucs.events`), in the thread that separates
                the track.
        """
        on_event = on_progress or ignore_events
        assigned = self._assign_outputs(tracks, on_event)
        waited_for: set[str] = set()
        busy_before: list[Track] | None = None
        while True:
            busy: list[Track] = []
            for item in self._separate_each(assigned, separators, on_event):
                if isinstance(item, TrackResult):
                    yield item
                else:
                    busy.append(item)
            if not busy:
                return
            if busy_before is not None and len(busy) == len(busy_before):
                for track in busy:
                    if track.location not in waited_for:
                        on_event(Waiting(track.location))
                        waited_for.add(track.location)
                time.sleep(BUSY_SECONDS)
            busy_before, assigned = busy, self._assign_again(busy, on_event)

    def separate(
        self,
        track: Track,
        separator: Separator,
        on_progress: EventCallback | None = None,
        observer: Observer | None = None,
        *,
        wait: bool = False,
    ) -> TrackResult:
        """Separate a track from `assign_output`, unless it is finished; return failures too.

        It fails if another process is separating the track, unless `wait` is set.
        """
        on_event, has_waited = on_progress or ignore_events, False
        while True:
            try:
                return self._separate(track, separator, on_event, observer)
            except TrackBusyError as error:
                if not wait:
                    return _failed(track.location, error, on_event)
            if not has_waited:
                on_event(Waiting(track.location))
                has_waited = True
            time.sleep(BUSY_SECONDS)

    def _separate(
        self,
        track: Track,
        separator: Separator,
        on_event: EventCallback,
        observer: Observer | None = None,
    ) -> TrackResult:
        """Return the result of a track, also of one that fails.

        Raises:
            TrackBusyError: another process is separating the track.
        """
        started = time.monotonic()
        paths = self.output_paths_for(track)
        is_new = self._store.is_local and not paths.manifest.exists()
        if is_new and is_locked(paths.cache_file):  # do not read the track to find this out
            raise TrackBusyError(
                f"{display_path(track.location)} is being separated by another htdemucs; "
                "wait for it"
            )
        on_event(Started(track.location))
        try:
            result = self._skip_or_separate(track, separator, on_event, observer)
            if result.status == "skipped" and self._store.is_local:
                # A process that died after it had written the manifest left its caches.
                ResumeKey(paths.cache_file, "").delete_unused()
        except TrackBusyError:
            raise
        except HTDemucsError as error:
            result = TrackResult.of_error(track.location, error)
        except OSError as error:
            message = f"{display_path(track.location)}: {error_line(error)}"
            code = DISK_FULL if is_disk_full(error) else None
            result = TrackResult(track.location, "failed", message, code)
        except Exception as error:  # does not stop the other tracks
            LOG.debug("%s", track.location, exc_info=True)
            name, kind = display_path(track.location), type(error).__name__
            message = f"{name}: unexpected {kind} ({reason(error)}); please report it"
            result = TrackResult(track.location, "failed", message)
        result = replace(result, seconds=time.monotonic() - started)
        for event in result_events(result):
            on_event(event)
        return result

    def _skip_or_separate(
        self,
        track: Track,
        separator: Separator,
        on_event: EventCallback,
        observer: Observer | None,
    ) -> TrackResult:
        """Return the result of a finished track; separate any other and publish its files.

        A remote track is copied to this machine only if it has to be separated, or if its manifest
        does not say which contents this version of it has.
        """
        started = time.monotonic()
        if not track.is_local and track.remote_file is None:
            track = replace(track, remote_file=remote.stat(track.location))
        paths = self.output_paths_for(track)
        known = self._read_manifest(track, paths)
        fingerprint = _fingerprint_without_copy(track, known)
        if fingerprint and (done := self.already_done(track, separator, fingerprint, known)):
            return done

        with self._local_copy(track, paths) as (path, local_paths):
            if fingerprint is None:
                fingerprint = manifest.file_fingerprint(path)
                if done := self.already_done(track, separator, fingerprint, known):
                    return done
            source = {**fingerprint, "path": track.absolute}
            if track.remote_file is not None:
                source["version"] = track.remote_file.version
            run = manifest.RunFingerprint.of(separator, self.options)
            stems = self.options.stem_paths(paths, separator.stems)
            local_stems = self.options.stem_paths(local_paths, separator.stems)

            def find_result() -> TrackResult | None:
                """Return the result of another process that has just finished the track."""
                latest = self._read_manifest(track, paths)
                return self.already_done(track, separator, source, latest)

            def publish(result: TrackResult) -> None:
                """Write the manifest; upload the stems, and last the manifest that lists them."""
                if not manifest.matches_fingerprint(path, source):
                    message = f"{display_path(path)} changed while it was read; separate it again"
                    raise AudioError(message)
                result = replace(result, seconds=time.monotonic() - started)
                latest = self._read_manifest(track, paths)  # another process may have written it
                manifest.write_manifest(result, source, run, local_paths, latest)
                for name, stem in stems.items():
                    self._store.upload(local_stems[name], stem)
                self._store.upload(local_paths.manifest, paths.manifest)

            result = separate_track(
                separator,
                path,
                local_paths,
                self.options,
                name=track.location,
                on_event=on_event,
                observer=observer,
                resume=ResumeKey(local_paths.cache_file, run.stems_key(source["sha256"])),
                find_result=find_result,
                on_finish=publish,
            )
        return replace(
            result,
            files=self.output_files(track, separator.stems),
            manifest=self._store.location(paths.manifest),
        )

    def already_done(
        self,
        track: Track,
        separator: Separator,
        source: Mapping[str, Any],
        known: manifest.Document | None,
    ) -> TrackResult | None:
        """Return the result of a track that was finished before; None if it was not.

        Args:
            track: the track.
            separator: the engine that would separate it.
            source: the track's fingerprint.
            known: the track's manifest.
        """
        if not (self.skip_existing and known):
            return None
        key = manifest.RunFingerprint.of(separator, self.options).key(source["sha256"])
        run = manifest.find_run(known, key)
        paths = self.output_paths_for(track)
        stems = self.options.stem_paths(paths, separator.stems)
        if run is None or run["files"].keys() != stems.keys():
            return None
        if not self._store.contains({stems[name]: entry for name, entry in run["files"].items()}):
            return None
        return TrackResult(
            track=track.location,
            status="skipped",
            files=self.output_files(track, separator.stems),
            manifest=self._store.location(paths.manifest),
            duration=run["duration"],
            sample_rate=run.get("sample_rate"),
            length=run.get("length"),
            bit_depth=run.get("bit_depth"),
            gain=run["gain"],
        )

    def dry_run(self, track: Track, separator: Separator) -> Literal["separate", "resume", "skip"]:
        """Return what `separate` would do with a track of this machine.

        Raises:
            AudioError: the track cannot be read.
        """
        paths = self.output_paths_for(track)
        known = self._read_manifest(track, paths)
        source = manifest.track_fingerprint(track.path, known)
        AudioFile(track.path)  # raises AudioError for a file without audio
        if self.already_done(track, separator, source, known):
            return "skip"
        return "resume" if paths.cache_file.exists() else "separate"

    def assign_output(self, track: Track) -> Track:
        """Return the track with a `duplicate_index` that gives it output paths of its own.

        Raises:
            SeparationError: the template and its name or tags lead out of the folder.
        """
        return self._assignment.assign(track)

    def has_other_track(self, track: Track) -> bool:
        """Return whether there is a manifest of another track where this one would be written."""
        document = self._store.read_manifest(self.output_paths_for(track).manifest)
        return document is not None and not is_same_track(track, document["source"])

    def output_paths_for(self, track: Track) -> OutputPaths:
        """Return the output paths of a track. Those of a URL are relative to it."""
        return self._output_paths(track, self._store.folder)

    def output_files(self, track: Track, stems: tuple[str, ...]) -> dict[str, str]:
        """Return path or URL of each of a track's files, by the name of its stem."""
        paths = self.options.stem_paths(self.output_paths_for(track), stems)
        return {name: self._store.location(path) for name, path in paths.items()}

    def _output_paths(self, track: Track, folder: Path) -> OutputPaths:
        parts = (fitting_name(part, folder) for part in PurePath(track.folder).parts)
        return self.options.output_paths(track.path, Path(folder, *parts), track.duplicate_index)

    def _read_manifest(self, track: Track, paths: OutputPaths) -> manifest.Document | None:
        """Return a track's manifest; None if it does not exist.

        Raises:
            SeparationError: the manifest there belongs to another track.
        """
        document = self._store.read_manifest(paths.manifest)
        if document and not is_same_track(track, document["source"]):
            raise SeparationError(
                f"{self._store.location(paths.manifest)} belongs to another track, "
                f"{document['source'].get('path')}; choose another output folder"
            )
        return document

    @contextmanager
    def _local_copy(self, track: Track, paths: OutputPaths) -> Iterator[tuple[Path, OutputPaths]]:
        """Give the track's file and its output paths, both on this machine.

        A remote track is copied to a scratch folder, and so are stems for a URL written there.
        Errors name the track instead of its copy.
        """
        if track.is_local and self._store.is_local:
            yield track.path, paths
            return
        work = json.dumps([self.out, track.location, str(paths.manifest), paths.template])
        digest = hashlib.sha256(work.encode()).hexdigest()
        # The name is the same after a kill, so that unfinished work is found.
        with remote.scratch_folder(self.scratch, digest[:24], track.location) as folder:
            path = track.path
            local_paths = (
                paths if self._store.is_local else self._output_paths(track, folder / "out")
            )
            if track.is_local:
                yield path, local_paths
                return
            path = folder / "in" / path.name
            try:
                remote.download(track.location, path)
                yield path, local_paths
            except HTDemucsError as error:
                message = str(error).replace(str(path), track.location)
                raise type(error)(message) from error

    def _assign_outputs(
        self, tracks: Iterable[Track | HTDemucsError], on_event: EventCallback
    ) -> Iterator[Track | TrackResult]:
        """Yield the tracks with their output paths assigned, or the results of those that fail."""
        for track in tracks:
            try:
                if isinstance(track, HTDemucsError):
                    raise track
                yield self.assign_output(track)
            except HTDemucsError as error:
                location = track.track if isinstance(track, HTDemucsError) else track.location
                yield _failed(location, error, on_event)

    def _assign_again(
        self, tracks: Iterable[Track], on_event: EventCallback
    ) -> Iterator[Track | TrackResult]:
        """Yield tracks that were busy, with output paths that no other track has got since."""
        for track in tracks:
            try:
                yield self._assignment.assign_again(track)
            except HTDemucsError as error:
                yield _failed(track.location, error, on_event)

    def _separate_each(
        self,
        assigned: Iterable[Track | TrackResult],
        separators: Sequence[Separator],
        on_event: EventCallback,
    ) -> Iterator[TrackResult | Track]:
        """Yield the result of each track; the track itself if another process is separating it."""
        if len(separators) > 1:
            yield from self._separate_in_threads(assigned, separators, on_event)
            return
        for item in assigned:
            if isinstance(item, TrackResult):
                yield item
            else:
                yield self._separate_unless_busy(item, separators[0], on_event)

    def _separate_unless_busy(
        self, track: Track, separator: Separator, on_event: EventCallback
    ) -> TrackResult | Track:
        try:
            return self._separate(track, separator, on_event)
        except TrackBusyError:
            return track

    def _separate_in_threads(
        self,
        assigned: Iterable[Track | TrackResult],
        separators: Sequence[Separator],
        on_event: EventCallback,
    ) -> Iterator[TrackResult | Track]:
        idle: Queue[Separator] = Queue()
        for separator in separators:
            idle.put(separator)
        stopping = threading.Event()

        def on_event_or_stop(event: Event) -> None:
            if stopping.is_set() and isinstance(event, Reading | Progress):
                raise KeyboardInterrupt
            on_event(event)

        def separate(track: Track) -> TrackResult | Track:
            separator = idle.get()
            try:
                return self._separate_unless_busy(track, separator, on_event_or_stop)
            finally:
                idle.put(separator)

        running: set[Future[TrackResult | Track]] = set()
        with ThreadPoolExecutor(len(separators)) as pool:
            try:
                for item in chain(assigned, repeat(None)):
                    if isinstance(item, TrackResult):
                        yield item
                    elif item is not None:
                        running.add(pool.submit(separate, item))
                    elif not running:
                        return
                    if item is None or len(running) > len(separators):
                        done, running = wait(running, return_when=FIRST_COMPLETED)
                        yield from (future.result() for future in done)
            finally:  # also after a signal: waiting tracks are not started
                stopping.set()
                pool.shutdown(cancel_futures=True)


def _failed(location: str, error: HTDemucsError, on_event: EventCallback) -> TrackResult:
    """Return the result of a track that fails, and report it."""
    result = TrackResult.of_error(location, error)
    for event in result_events(result):
        on_event(event)
    return result


def _fingerprint_without_copy(
    track: Track, known: manifest.Document | None
) -> Mapping[str, Any] | None:
    """Return the track's fingerprint; None for a remote file that the manifest does not list."""
    if track.remote_file is None:
        return manifest.track_fingerprint(track.path, known)
    listed, current = known["source"] if known else {}, track.remote_file
    is_listed = (
        bool(current.version)
        and (current.bytes, current.version) == (listed.get("bytes"), listed.get("version"))
        and isinstance(listed.get("sha256"), str)
    )
    return listed if is_listed else None
