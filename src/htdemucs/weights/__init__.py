"""Find, read and write weights: official checkpoints, hub repositories, folders in our format."""

from htdemucs.model import Bag, Demucs, HDemucs, HTDemucs
from htdemucs.model.hub_mixin import Pretrained
from htdemucs.weights import hub
from htdemucs.weights.load import load_model
from htdemucs.weights.native_format import save_model

Pretrained._hub = hub

__all__ = ["Bag", "Demucs", "HDemucs", "HTDemucs", "load_model", "save_model"]
