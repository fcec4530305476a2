"""Find, read and write weights: official checkpoints, hub repositories, folders in our format."""

from htdemucs.weights.folder import save_model
from htdemucs.weights.loading import load_model

__all__ = ["load_model", "save_model"]
