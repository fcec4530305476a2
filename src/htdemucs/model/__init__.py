"""The network. This room knows torch, but no files, devices or checkpoints."""

from htdemucs.model.bag import Bag, Model
from htdemucs.model.config import HTDemucsConfig
from htdemucs.model.htdemucs import HTDemucs

__all__ = ["Bag", "HTDemucs", "HTDemucsConfig", "Model"]
