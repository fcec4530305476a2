"""Find, read and write weights: official checkpoints, hub repositories, folders in our format."""

from htdemucs.model import Bag, Demucs, HDemucs, HTDemucs
from htdemucs.model.pretrained import Pretrained
from htdemucs.weights import hub
from htdemucs.weights.folder import save_model
from htdemucs.weights.loading import load_model

Pretrained._hub = hub

__all__ = ["Bag", "Demucs", "HDemucs", "HTDemucs", "load_model", "save_model"]
