"""Which output paths each track gets: those of an earlier run, else some that are free."""

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from typing import Any

from htdemucs.batch.inputs import Track
from htdemucs.batch.remote import Store
from htdemucs.environment import sha256
from htdemucs.stems.paths import OutputPaths

Source = Mapping[str, Any]  # the "source" of a manifest


class OutputAssignment:
    """Numbers tracks of the same name, so that no two tracks share output paths.

    Args:
        output_paths_for: returns the paths of a track with its `duplicate_index`.
        store: the stems and manifests.
    """

    def __init__(self, output_paths_for: Callable[[Track], OutputPaths], store: Store) -> None:
        self._output_paths_for, self._store = output_paths_for, store
        self._assigned: set[str] = set()  # path keys
        self._sources: dict[str, dict[int, Source]] = {}  # by path key and duplicate index

    def assign(self, track: Track) -> Track:
        """Return the track with its `duplicate_index`.

        Raises:
            SeparationError: the template and its name or tags lead out of the folder.
        """
        first = _path_key(self._output_paths_for(track))
        if first not in self._sources:
            self._sources[first] = dict(self._sources_in_manifests(track))
        sources = self._sources[first]
        for index in count(1):
            if index in sources and not is_same_track(track, sources[index]):
                continue
            numbered = replace(track, duplicate_index=index)
            key = _path_key(self._output_paths_for(numbered))
            if key not in self._assigned:  # else a track that is itself called "song (2)" has it
                break
        self._assigned.add(key)
        sources[index] = {"path": track.absolute}
        return numbered

    def assign_again(self, track: Track) -> Track:
        """Return the track with a new index: another process may have written to its paths."""
        self._assigned.discard(_path_key(self._output_paths_for(track)))
        track = replace(track, duplicate_index=1)
        self._sources.pop(_path_key(self._output_paths_for(track)), None)
        return self.assign(track)

    def _sources_in_manifests(self, track: Track) -> Iterator[tuple[int, Source]]:
        """Yield each `duplicate_index` that has a manifest, and the manifest's source.

        Manifests at a URL are not read: one request for each track would take hours for a million.
        """
        for index in count(1) if self._store.is_local else ():
            paths = self._output_paths_for(replace(track, duplicate_index=index))
            document = self._store.read_manifest(paths.manifest)
            if document is None:
                return
            yield index, document["source"]


def is_same_track(track: Track, source: Source) -> bool:
    """Whether a manifest's source is this track: by path or, if it was moved, by contents."""
    if source.get("path") == track.absolute:
        return True
    if not track.is_local or not isinstance(source.get("sha256"), str):
        return False
    try:
        same_size = track.path.stat().st_size == source.get("bytes")
        return same_size and sha256(track.path) == source["sha256"]
    except OSError:
        return False


def _path_key(paths: OutputPaths) -> str:
    """Return a key for output paths; like some file systems, it ignores case and composition."""
    return unicodedata.normalize("NFC", str(paths.manifest)).casefold()
