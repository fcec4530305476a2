"""Where parameters come from: official checkpoints, the hub, folders of our own format."""

from htdemucs.weights.folder import save_model
from htdemucs.weights.loading import load_model

__all__ = ["load_model", "save_model"]
