"""Change the sources of a trained network: keep, rename or reinitialise its last layers."""

import dataclasses
from collections.abc import Mapping, Sequence

import torch

from htdemucs.errors import ConfigError
from htdemucs.model import Network, build

DECODERS = ("spectral_decoder", "time_decoder", "decoder")  # the last layer has all sources


@torch.no_grad()
def replace_sources(
    model: Network, sources: Sequence[str], renamed: Mapping[str, str] | None = None
) -> Network:
    """Return a copy of the network for other sources.

    Sources that the network has keep their weights, in the new order. `renamed` (new name -> old
    name) gives a new source the weights of an old one. Other sources start with random weights.

    Raises:
        ConfigError: `renamed` names a source that the model does not have.
    """
    renamed = dict(renamed or {})
    for old in renamed.values():
        if old not in model.sources:
            raise ConfigError(f"the model has no source {old}; it has {', '.join(model.sources)}")
    network = build(dataclasses.replace(model.config, sources=tuple(sources)))
    heads = _head_parameters(model)
    state = network.state_dict()
    for name, value in model.state_dict().items():
        if name not in heads:
            state[name].copy_(value)
            continue
        axis = 1 if name.endswith("weight") else 0
        trained = dict(zip(model.sources, value.chunk(len(model.sources), axis), strict=True))
        for source, target in zip(sources, state[name].chunk(len(sources), axis), strict=True):
            old = renamed.get(source, source)
            if old in trained:
                target.copy_(trained[old])
    return network


def _head_parameters(model: Network) -> set[str]:
    """Return the names of the parameters that have channels for each source."""
    decoders = {name: getattr(model, name) for name in DECODERS if hasattr(model, name)}
    return {
        f"{decoder}.{len(layers) - 1}.{name}"
        for decoder, layers in decoders.items()
        for name, _ in layers[-1].named_parameters()
        if name.rpartition(".")[0].endswith("conv_transpose")
    }
