"""The networks. This room knows torch, but no files, devices or checkpoints."""

from htdemucs.model.bag import Bag, Model
from htdemucs.model.config import HTDemucsConfig, NetworkConfig
from htdemucs.model.demucs import Demucs, DemucsConfig
from htdemucs.model.hdemucs import HDemucs, HDemucsConfig
from htdemucs.model.htdemucs import HTDemucs
from htdemucs.model.network import Network
from htdemucs.model.registry import build

__all__ = [
    "Bag",
    "Demucs",
    "DemucsConfig",
    "HDemucs",
    "HDemucsConfig",
    "HTDemucs",
    "HTDemucsConfig",
    "Model",
    "Network",
    "NetworkConfig",
    "build",
]
