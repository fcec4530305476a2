"""Give a trained network other sources: keep, rename or renew its last layers."""

import dataclasses
from collections.abc import Mapping, Sequence

import torch

from htdemucs.errors import ConfigError
from htdemucs.model import HTDemucs

HEADS = ("spectral_decoder", "time_decoder")  # their outermost layer has channels for each source


@torch.no_grad()
def with_sources(
    model: HTDemucs, sources: Sequence[str], renamed: Mapping[str, str] | None = None
) -> HTDemucs:
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
    network = HTDemucs(dataclasses.replace(model.config, sources=tuple(sources)))
    outermost = f"{model.config.depth - 1}.conv_transpose"
    heads = {f"{head}.{outermost}.{kind}" for head in HEADS for kind in ("weight", "bias")}
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
