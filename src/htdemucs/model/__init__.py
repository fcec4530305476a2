"""The networks: Hybrid Transformer Demucs and the two older generations.

Start with `hybrid.py`, the forward pass in the order of the paper's figure, then `htdemucs.py` and
`layers.py`. `hdemucs.py` and `demucs.py` have the older networks. This package depends on torch
and on the modules at the package's root only: it reads no files and chooses no devices.

To add an architecture: write its configuration (a `NetworkConfig`) and its network (a `Network`),
add both to `architectures.py` under the name of the network's class, and name its stages in
`trace.py`.
"""

from htdemucs.model.architectures import build
from htdemucs.model.bag import Bag, Model
from htdemucs.model.config import HTDemucsConfig, NetworkConfig
from htdemucs.model.demucs import Demucs, DemucsConfig
from htdemucs.model.hdemucs import HDemucs, HDemucsConfig
from htdemucs.model.htdemucs import HTDemucs
from htdemucs.model.hybrid import HybridNetwork
from htdemucs.model.network import Network

__all__ = [
    "Bag",
    "Demucs",
    "DemucsConfig",
    "HDemucs",
    "HDemucsConfig",
    "HTDemucs",
    "HTDemucsConfig",
    "HybridNetwork",
    "Model",
    "Network",
    "NetworkConfig",
    "build",
]
