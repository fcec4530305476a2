"""Many tracks: finding them, placing their stems, skipping what is finished, resuming the rest."""

from htdemucs.batch.library import Library
from htdemucs.batch.outcomes import Outcome
from htdemucs.batch.tracks import Track, find_tracks
from htdemucs.stems.manifest import read_manifest

__all__ = ["Library", "Outcome", "Track", "find_tracks", "read_manifest"]
