"""The architectures, by name and by configuration."""

from functools import cache
from typing import Any

from torch import nn

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


# Attributes of modules that hold tensors, or that separation does not depend on.
_OTHER_ATTRIBUTES = {"_parameters", "_buffers", "_modules", "training", "origin"}
_OTHER_ATTRIBUTES |= {"_flat_weights", "_flat_weight_refs"}  # an LSTM's


def matches_config(network: Network) -> bool:
    """Whether a network differs from a new one of its configuration only in values of tensors.

    False for a subclass, and if a module was replaced, added or wrapped, if an attribute or method
    of a module was set, or if a module has a hook. Attributes that a new network lacks may be set.
    """
    if type(network.config) not in _NETWORKS:
        return False
    expected = _modules_of(network.config)
    modules = dict(network.named_modules())
    return modules.keys() == expected.keys() and all(
        _matches(describe_module(module), expected[name]) for name, module in modules.items()
    )


def describe_module(module: nn.Module) -> dict[str, Any]:
    """Return what a module computes with, except values of tensors, and without its children."""
    attributes = {k: v for k, v in sorted(vars(module).items()) if k not in _OTHER_ATTRIBUTES}
    tensors = {**module._parameters, **module._buffers}
    shapes = {name: None if x is None else tuple(x.shape) for name, x in tensors.items()}
    return {"class": type(module), "shapes": shapes, **attributes}


def _matches(actual: dict[str, Any], expected: dict[str, Any]) -> bool:
    replaces_method = any(hasattr(expected["class"], name) for name in actual.keys() - expected)
    return not replaces_method and all(
        type(actual.get(name)) is type(value) and bool(actual.get(name) == value)
        for name, value in expected.items()
    )


@cache
def _modules_of(config: NetworkConfig) -> dict[str, dict[str, Any]]:
    """Return a description of each module of a new network, by the module's name."""
    network = network_class(config).empty(config)
    return {name: describe_module(module) for name, module in network.named_modules()}
