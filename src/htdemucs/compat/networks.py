"""Networks and bags under the published names of their classes and attributes."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from htdemucs.compat.engine import padded_length
from htdemucs.model import Bag, Model
from htdemucs.model.architectures import build
from htdemucs.model.config import NetworkConfig, Seconds
from htdemucs.weights.demucs_format import config_from_arguments, network_from_state


class PublishedNetwork(nn.Module):
    """A network with the attributes of the published ones.

    Args:
        args: of the published constructor, for a network with initial values.
        keywords: of the published constructor, too.

    Attributes:
        network: the network of this package.
        sources, samplerate, audio_channels: of the network.
        segment: seconds; may be lowered.
    """

    architecture: ClassVar[str]

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__()
        self._set_network(build(config_from_arguments(self.architecture, args, keywords)))

    @classmethod
    def wrap(cls, network: Any) -> Self:
        """Return a network of this package under the published names."""
        wrapped = cls.__new__(cls)
        nn.Module.__init__(wrapped)
        wrapped._set_network(network)
        return wrapped

    def _set_network(self, network: Any) -> None:
        self.network = network
        self.sources = list(network.sources)
        self.samplerate: int = network.sample_rate
        self.audio_channels: int = network.audio_channels
        self.segment: Seconds = network.segment

    @property
    def padded_length(self) -> int:
        """Samples to which shorter waveforms are padded; 0 for networks that take any length."""
        return padded_length(self.network, self.segment)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load parameters under their published names; all are required, whatever `strict` is."""
        del strict, assign
        device = next(self.network.parameters()).device
        self.network = network_from_state(self.network.config, state_dict).to(device)

    def forward(self, mix: Tensor) -> Tensor:
        """(B, C, L) -> (B, S, C, L)"""
        length = mix.shape[-1]
        padded = F.pad(mix, (0, max(0, self.padded_length - length)))
        return cast(Tensor, self.network(padded)[..., :length])


class HTDemucs(PublishedNetwork):
    """Hybrid Transformer Demucs."""

    architecture = "HTDemucs"

    def valid_length(self, length: int) -> int:
        """Return the samples of a training segment, to which shorter mixtures are padded.

        Raises:
            ValueError: the mixture is longer.
        """
        if length > self.padded_length:
            raise ValueError(
                f"{length} samples are more than the {self.padded_length} of a training segment"
            )
        return self.padded_length


class HDemucs(PublishedNetwork):
    """Hybrid Demucs."""

    architecture = "HDemucs"


class Demucs(PublishedNetwork):
    """Time-domain Demucs."""

    architecture = "Demucs"

    def valid_length(self, length: int) -> int:
        """Return the next length that no layer has to pad."""
        config: NetworkConfig = self.network.config
        return config.window_length(length, length)


class BagOfModels(nn.Module):
    """Several networks with a weight for each network and source; for `apply_model`.

    Args:
        models: the networks, or bags of networks.
        weights: one row for each network, one column for each source; equal by default.
        segment: seconds; replaces the networks' own, except where that would be longer than a
            transformer's.

    Attributes:
        models, weights: as given.
        sources, samplerate, audio_channels: of the networks.
    """

    sources: list[str]
    samplerate: int
    audio_channels: int
    segment: Seconds

    def __init__(
        self,
        models: "Sequence[PublishedNetwork | BagOfModels]",
        weights: Sequence[Sequence[float]] | None = None,
        segment: Seconds | None = None,
    ) -> None:
        super().__init__()
        first = models[0]
        self.models = nn.ModuleList(models)
        self.sources, self.samplerate = first.sources, first.samplerate
        self.audio_channels = first.audio_channels
        self.weights = [list(row) for row in weights or [[1.0] * len(first.sources)] * len(models)]
        for model in models:
            if segment and (not isinstance(model, HTDemucs) or segment <= model.segment):
                model.segment = segment

    @property
    def max_allowed_segment(self) -> float:
        """Seconds of the longest segment that every network can take."""
        networks = [network for network, _ in weighted_networks(self)]
        limits = [float(model.segment) for model in networks if isinstance(model, HTDemucs)]
        return min(limits, default=float("inf"))

    def forward(self, _: Tensor) -> Tensor:
        """Refuse, as published."""
        raise NotImplementedError("call apply_model with this bag")


PublishedModel = PublishedNetwork | BagOfModels


def to_published(model: PublishedModel | Model) -> PublishedModel:
    """Return a model under the published names; a published one is returned unchanged."""
    if isinstance(model, PublishedModel):
        return model
    if isinstance(model, Bag):
        members = [cast(PublishedNetwork, to_published(member)) for member in model.members]
        return BagOfModels(members, model.weights.tolist(), model.segment)
    classes: dict[str, type[PublishedNetwork]] = {"HDemucs": HDemucs, "Demucs": Demucs}
    return classes.get(type(model).__name__, HTDemucs).wrap(model)


def weighted_networks(
    model: PublishedModel,
) -> list[tuple[PublishedNetwork, list[float]]]:
    """Return a model's networks, those of bags in a bag too, each with a weight for each source."""
    if isinstance(model, PublishedNetwork):
        return [(model, [1.0] * len(model.sources))]
    rows = []
    for member, outer in zip(model.models, model.weights, strict=True):
        inner = weighted_networks(cast(PublishedModel, member))
        totals = [sum(column) for column in zip(*(row for _, row in inner), strict=True)]
        for network, row in inner:
            scaled = zip(row, outer, totals, strict=True)
            rows.append((network, [x * weight / total for x, weight, total in scaled]))
    return rows


def networks_and_bag(model: PublishedModel) -> tuple[list[PublishedNetwork], Bag]:
    """Return a model's networks, and this package's bag of them."""
    networks, weights = zip(*weighted_networks(model), strict=True)
    bag = Bag([network.network for network in networks], weights)
    bag.weights = torch.tensor(weights)  # a row for each, also for a network that occurs twice
    return list(networks), bag
