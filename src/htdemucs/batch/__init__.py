"""Many tracks: finding them, choosing output paths, skipping what is finished, resuming the rest.

Start with `Library.separate` in library.py, which calls `stems.separate_track`. inputs.py finds
tracks; output_paths.py numbers tracks of the same name; remote.py reads and writes files by URL;
plan.py has the settings of a run, which ray_cluster.py sends to many machines. Imports `stems` and
the layers below; the optional packages (fsspec, pyarrow, ray) are imported when they are needed. A
kind of input, such as another playlist format, is added in inputs.py.
"""

from htdemucs.batch.inputs import Track, find_tracks
from htdemucs.batch.library import Library
from htdemucs.stems.manifest import read_manifest

__all__ = ["Library", "Track", "find_tracks", "read_manifest"]
