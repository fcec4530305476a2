"""Many tracks: finding them, placing their stems, skipping what is finished, resuming the rest."""

from htdemucs.batch.inputs import Track, find_tracks
from htdemucs.batch.library import Library
from htdemucs.batch.results import Outcome
from htdemucs.stems.manifest import read_manifest

__all__ = ["Library", "Outcome", "Track", "find_tracks", "read_manifest"]
