"""Several models behaving as one."""

import copy
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import cast

import torch
from torch import Tensor, nn

from htdemucs.errors import ConfigError
from htdemucs.model.htdemucs import HTDemucs


class Bag(nn.Module):
    """A weighted mean of members, with a weight for each member and source.

    Args:
        members: models with the same sources, channels and sample rate.
        weights: one row a member, one column a source; equal weights by default.
        segment: seconds; shortens the members' own segment, never lengthens it.

    Raises:
        ConfigError: members differ, or the weights do not fit them.
    """

    weights: Tensor

    def __init__(
        self,
        members: Sequence[HTDemucs],
        weights: Sequence[Sequence[float]] | None = None,
        segment: Fraction | None = None,
    ) -> None:
        super().__init__()
        _check_members(members)
        self._networks = nn.ModuleList(members)
        self.audio_channels = members[0].audio_channels
        self.sample_rate = members[0].sample_rate
        self.sources = members[0].sources
        self.segment = min([m.segment for m in members] + ([segment] if segment else []))
        table = _checked_weights(weights, len(members), len(self.sources))
        self.register_buffer("weights", table, persistent=False)
        self._outputs = list(range(len(self.sources)))

    @property
    def members(self) -> list[HTDemucs]:
        """The networks, in order."""
        return [cast(HTDemucs, network) for network in self._networks]

    def only(self, sources: Sequence[str]) -> "Bag":
        """A bag that gives just these sources, in this order, running only members they need."""
        unknown = [name for name in sources if name not in self.sources]
        if unknown or not sources:
            raise ConfigError(
                f"no source {', '.join(unknown) or 'was named'}; "
                f"this model has {', '.join(self.sources)}"
            )
        columns = [self.sources.index(name) for name in sources]
        weights = self.weights[:, columns]
        needed = [i for i, row in enumerate(weights.tolist()) if any(row)]
        bag = Bag([self.members[i] for i in needed], segment=self.segment)
        bag.weights = weights[needed]
        bag.sources = tuple(sources)
        bag._outputs = [self._outputs[i] for i in columns]
        return bag

    def mapped(self, change: Callable[[HTDemucs], nn.Module]) -> "Bag":
        """The same bag with other networks in its members' places."""
        bag = copy.copy(self)
        bag._modules = {**self._modules, "_networks": nn.ModuleList(map(change, self.members))}
        return bag

    def forward(self, mixture: Tensor) -> Tensor:
        """(B, C, L) -> (B, S, C, L)"""
        return self.weighted_mean(member(mixture) for member in self.members)

    def weighted_mean(self, answers: Iterable[Tensor]) -> Tensor:
        """What each member gives, (B, S', ...), to what the bag gives, (B, S, ...)."""
        total = torch.zeros((), device=self.weights.device)
        for answer, weights in zip(answers, self.weights / self.weights.sum(0), strict=True):
            total = total + weights.view(-1, *[1] * (answer.dim() - 2)) * answer[:, self._outputs]
        return total


Model = HTDemucs | Bag  # what can be separated with


def _check_members(members: Sequence[HTDemucs]) -> None:
    if not members:
        raise ConfigError("a bag needs at least one member")
    for name in ("sources", "audio_channels", "sample_rate"):
        values = {getattr(member, name) for member in members}
        if len(values) > 1:
            raise ConfigError(f"the members of a bag must have the same {name}, not {values}")


def _checked_weights(
    weights: Sequence[Sequence[float]] | None, members: int, sources: int
) -> Tensor:
    if weights is None:
        return torch.ones(members, sources)
    if len(weights) != members or any(len(row) != sources for row in weights):
        raise ConfigError(f"a bag's weights must be {members} rows of {sources} numbers")
    table = torch.tensor(weights, dtype=torch.float32)
    if not table.isfinite().all() or not (table.sum(0) != 0).all():
        raise ConfigError("a bag's weights must be finite and give every source a weight")
    return table
