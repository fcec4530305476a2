"""Change the sources of a trained network: keep, rename or reinitialise its last layers."""

import dataclasses
from collections.abc import Mapping, Sequence

import torch

from htdemucs.errors import ConfigError
from htdemucs.model import Network, build

DECODERS = ("spectral_decoder", "time_decoder", "decoder")  # the last layer has all sources


@torch.no_grad()
def replace_sources(
    model: Network,
    sources: Sequence[str],
    renamed: Mapping[str, str | Sequence[str]] | None = None,
) -> Network:
    """Return a copy of the network for other sources.

    Sources that the network has keep their weights, in the new order. `renamed` (new name -> old
    name or names) gives a new source the weights of an old one, or the sum of several: the last
    layers are linear, so the output is then the sum of these sources, except that the network adds
    the mixture's mean once, not once for each of them. Other sources start with
    random weights.

    Raises:
        ConfigError: `renamed` names a source that the model does not have, or is not made of names.
    """
    old_names: dict[str, list[str]] = {source: [source] for source in model.sources}
    for new, old in (renamed or {}).items():
        names = [old] if isinstance(old, str) else list(old) if isinstance(old, Sequence) else []
        if not names:
            raise ConfigError(f"renamed.{new} must be a source or a list of sources, not {old!r}")
        if new not in sources:
            raise ConfigError(f"renamed.{new} is not in sources")
        for name in names:
            if name not in model.sources:
                known = ", ".join(model.sources)
                raise ConfigError(f"the model has no source {name}; it has {known}")
        old_names[new] = names
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
            if source in old_names:
                target.copy_(torch.stack([trained[old] for old in old_names[source]]).sum(0))
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
