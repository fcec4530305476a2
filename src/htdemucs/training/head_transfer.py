"""Give a trained network other sources: keep, rename or renew its last layers."""

import dataclasses
from collections.abc import Mapping, Sequence

import torch

from htdemucs.errors import ConfigError
from htdemucs.model import Network, build

DECODERS = ("spectral_decoder", "time_decoder", "decoder")  # outermost layers serve each source


@torch.no_grad()
def with_sources(
    model: Network, sources: Sequence[str], renamed: Mapping[str, str] | None = None
) -> Network:
    """Return the network for other sources.

    Sources that it has keep their weights (in the new order), and so do those that `renamed` maps
    to one that it has (new name -> old name). The others start untrained.

    Raises:
        ConfigError: `renamed` names a source that the model does not have.
    """
    renamed = dict(renamed or {})
    for old in renamed.values():
        if old not in model.sources:
            raise ConfigError(f"the model has no source {old}; it has {', '.join(model.sources)}")
    network = build(dataclasses.replace(model.config, sources=tuple(sources)))
    heads = _heads(model)
    state = network.state_dict()
    for name, value in model.state_dict().items():
        if name not in heads:
            state[name].copy_(value)
            continue
        axis = 1 if name.endswith("weight") else 0
        theirs = dict(zip(model.sources, value.chunk(len(model.sources), axis), strict=True))
        ours = state[name].chunk(len(sources), axis)
        for source, target in zip(sources, ours, strict=True):
            old = renamed.get(source, source)
            if old in theirs:
                target.copy_(theirs[old])
    return network


def _heads(model: Network) -> set[str]:
    """Return the names of the parameters with channels for each source."""
    decoders = {name: getattr(model, name) for name in DECODERS if hasattr(model, name)}
    return {
        f"{decoder}.{len(layers) - 1}.{name}"
        for decoder, layers in decoders.items()
        for name, _ in layers[-1].named_parameters()
        if name.rpartition(".")[0].endswith("conv_transpose")
    }
