"""Many tracks: finding them, remembering what was made of them, going on where it stopped."""

from htdemucs.batch.inputs import Track, find_tracks
from htdemucs.batch.library import Library, Outcome
from htdemucs.batch.manifest import read_manifest

__all__ = ["Library", "Outcome", "Track", "find_tracks", "read_manifest"]
