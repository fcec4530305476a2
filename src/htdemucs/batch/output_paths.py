"""Which place each track gets: its own from earlier, else one that no other track has."""

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from typing import Any

from htdemucs.batch.inputs import Track
from htdemucs.batch.remote import Store
from htdemucs.environment import sha256
from htdemucs.stems.paths import OutputPaths

Source = Mapping[str, Any]  # a manifest's "source"


class OutputAssignment:
    """Numbers the copies of a name, so that no two tracks share a place.

    Args:
        places: return the places of a track with its copy set.
        store: of the stems.
    """

    def __init__(self, places: Callable[[Track], OutputPaths], store: Store) -> None:
        self._places, self._store = places, store
        self._given: set[str] = set()  # names of places
        self._sources: dict[str, dict[int, Source]] = {}  # by name of the first place, then copy

    def place(self, track: Track) -> Track:
        """Return the track with its copy set.

        Raises:
            SeparationError: the template and its name or tags lead out of the folder.
        """
        first = _name(self._places(track))
        if first not in self._sources:
            self._sources[first] = dict(self._known_copies(track))
        sources = self._sources[first]
        for copy in count(1):
            if copy in sources and not is_source(track, sources[copy]):
                continue
            placed = replace(track, copy=copy)
            name = _name(self._places(placed))
            if name not in self._given:  # by a track that is itself called "song (2)"
                break
        self._given.add(name)
        sources[copy] = {"path": track.absolute}
        return placed

    def _known_copies(self, track: Track) -> Iterator[tuple[int, Source]]:
        """Yield the copies of a name that have a manifest, and the track that each was made from.

        A store reached by URL is not asked: a request a track would take hours for a million.
        """
        for copy in count(1) if self._store.is_local else ():
            places = self._places(replace(track, copy=copy))
            document = self._store.read_manifest(places.manifest)
            if document is None:
                return
            yield copy, document["source"]


def is_source(track: Track, source: Source) -> bool:
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


def _name(places: OutputPaths) -> str:
    """Return a name for a place; some file systems ignore case and composition, and so does it."""
    return unicodedata.normalize("NFC", str(places.manifest)).casefold()
