"""Our networks and bags under the published names of their classes and attributes."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from htdemucs.compat.engine import padded_length
from htdemucs.model import Bag, Model
from htdemucs.model.config import Seconds
from htdemucs.model.registry import build
from htdemucs.weights.demucs_format import config_from_arguments, network_from_state


class Published(nn.Module):
    """A network with the attributes of the published ones.

    Args:
        args: of the published constructor, for a network with initial values.
        keywords: too.

    Attributes:
        network: our network.
        sources, samplerate, audio_channels: of the network.
        segment: seconds; may be lowered.
    """

    kind: ClassVar[str]

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__()
        self._hold(_new(self.kind, args, keywords))

    @classmethod
    def around(cls, network: Any) -> Self:
        """Return our network under the published names."""
        published = cls.__new__(cls)
        nn.Module.__init__(published)
        published._hold(network)
        return published

    def _hold(self, network: Any) -> None:
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
        """Take parameters under their published names; all must be there, whatever `strict`."""
        del strict, assign
        device = next(self.network.parameters()).device
        self.network = network_from_state(self.network.config, state_dict).to(device)

    def forward(self, mix: Tensor) -> Tensor:
        """(B, C, L) -> (B, S, C, L)"""
        length = mix.shape[-1]
        padded = F.pad(mix, (0, max(0, self.padded_length - length)))
        return cast(Tensor, self.network(padded)[..., :length])


class HTDemucs(Published):
    """Hybrid Transformer Demucs."""

    kind = "HTDemucs"


class HDemucs(Published):
    """Hybrid Demucs."""

    kind = "HDemucs"


class Demucs(Published):
    """Time-domain Demucs."""

    kind = "Demucs"


class BagOfModels(nn.Module):
    """Several networks, with a weight for each and each source; for `apply_model`.

    Args:
        models: the networks.
        weights: one row for each network, one column for each source; equal by default.
        segment: seconds; replaces the networks' own, except where that would be longer than a
            transformer's.

    Attributes:
        models, weights: as given.
        sources, samplerate, audio_channels: of the networks.
    """

    def __init__(
        self,
        models: Sequence[Published],
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
        limits = [float(model.segment) for model in self.models if isinstance(model, HTDemucs)]
        return min(limits, default=float("inf"))

    def forward(self, _: Tensor) -> Tensor:
        """Refuse, as published."""
        raise NotImplementedError("call apply_model with this bag")


def _new(kind: str, args: Sequence[Any], keywords: Mapping[str, Any]) -> Model:
    """Return a network of ours with initial values."""
    return build(config_from_arguments(kind, args, keywords))


AnyModel = Published | BagOfModels


def published(model: AnyModel | Model) -> AnyModel:
    """Return a model of ours, or one that is published already, under the published names."""
    if isinstance(model, AnyModel):
        return model
    if isinstance(model, Bag):
        members = [cast(Published, published(member)) for member in model.members]
        return BagOfModels(members, model.weights.tolist(), model.segment)
    names: dict[str, type[Published]] = {named.kind: named for named in (HDemucs, Demucs)}
    return names.get(type(model).__name__, HTDemucs).around(model)


def bag(model: AnyModel) -> tuple[list[Published], Bag]:
    """Return a model's networks, and our bag of them."""
    if isinstance(model, Published):
        return [model], Bag([model.network])
    members = [cast(Published, member) for member in model.models]
    whole = Bag([member.network for member in members], model.weights)
    whole.weights = torch.tensor(model.weights)  # a row for each, also where one is there twice
    return members, whole
