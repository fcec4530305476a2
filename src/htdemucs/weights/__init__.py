"""Read and write weights: official checkpoints, hub repositories, and folders in our own format.

Imports `model` and the modules at the root. Start reading in `load.py`: a name becomes files
(`registry.py`, `download.py`), a file becomes a network (`demucs_format.py`, `state_dict.py` or
`native_format.py`, through `build.py`), several networks become a bag. Add an official model in
`models.toml`, and a format as a module with `read(path)`, called in `load.read_checkpoint`.
"""

from htdemucs.weights.load import load_model
from htdemucs.weights.native_format import save_model

__all__ = ["load_model", "save_model"]
