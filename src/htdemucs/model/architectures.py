"""The architectures, by name and by configuration."""

from htdemucs.model.config import HTDemucsConfig, NetworkConfig
from htdemucs.model.demucs import Demucs, DemucsConfig
from htdemucs.model.hdemucs import HDemucs, HDemucsConfig
from htdemucs.model.htdemucs import HTDemucs
from htdemucs.model.network import Network

CONFIGS: dict[str, type[NetworkConfig]] = {
    "HTDemucs": HTDemucsConfig,
    "HDemucs": HDemucsConfig,
    "Demucs": DemucsConfig,
}
_NETWORKS: dict[type[NetworkConfig], type[Network]] = {
    HTDemucsConfig: HTDemucs,
    HDemucsConfig: HDemucs,
    DemucsConfig: Demucs,
}


def network_class(config: NetworkConfig) -> type[Network]:
    """Return the class of the network that a configuration describes."""
    return _NETWORKS[type(config)]


def architecture(config: NetworkConfig) -> str:
    """Return the name of the architecture that a configuration describes."""
    return network_class(config).__name__


def build(config: NetworkConfig) -> Network:
    """Return a network with initial values, for training."""
    return network_class(config)(config)
