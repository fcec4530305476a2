"""A bag: several networks that behave as one model, the weighted mean of their outputs."""

import copy
import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from htdemucs.environment import CheckpointFiles
from htdemucs.errors import ConfigError, SegmentTooLongError, SeparationError
from htdemucs.model.config import Seconds, exact_seconds, seconds_to_samples
from htdemucs.model.hub_mixin import Pretrained
from htdemucs.model.network import Network

INSTRUMENTAL = ("instrumental", "instrumentals", "karaoke", "accompaniment", "no_vocals")


class Bag(Pretrained, nn.Module):
    """A weighted mean of members, with a weight for each member and source.

    Args:
        members: networks with the same sources, channels and sample rate. A network that occurs
            twice runs once, with the sum of its weights.
        weights: one row for each member, one column for each source; equal by default.
        segment: seconds; replaces the members' segments, up to the shortest `max_segment` of the
            members. By default the shortest of the members' segments.
        sources: the bag's outputs, chosen from its members' sources; by default all of them.

    Raises:
        ConfigError: the members differ, the weights do not fit them, they lack a source, or the
            segment is not a number of seconds.
    """

    weights: Tensor

    def __init__(
        self,
        members: Sequence[Network],
        weights: Sequence[Sequence[float]] | None = None,
        segment: Seconds | None = None,
        sources: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        _check_members(members)
        unique = list(dict.fromkeys(members))
        self._networks = nn.ModuleList(unique)
        self.audio_channels = members[0].audio_channels
        self.sample_rate = members[0].sample_rate
        available = members[0].sources
        self.sources = available if sources is None else find_sources(sources, available)
        self._columns = [available.index(source) for source in self.sources]
        limits = [m.max_segment for m in members if m.max_segment is not None]
        segments = [m.segment for m in members] if segment is None else [exact_seconds(segment)]
        self.segment = min([*segments, *limits])
        self.max_segment = self.segment if limits else None
        table = _checked_weights(weights, len(members), len(members[0].sources), self._columns)
        rows = [[i for i, m in enumerate(members) if m is member] for member in unique]
        sums = [table[row].sum(0) for row in rows]
        self.register_buffer("weights", torch.stack(sums), persistent=False)

    @property
    def members(self) -> list[Network]:
        """The bag's networks, in order."""
        return [cast(Network, network) for network in self._networks]

    @property
    def origin(self) -> CheckpointFiles | None:
        """The files that the members were read from; None if a member was not read from a file."""
        origins = [getattr(member, "origin", None) for member in self.members]
        known = [origin for origin in origins if origin is not None]
        if len(known) < len(origins):
            return None
        files = dict.fromkeys(path for origin in known for path in origin.files)
        return CheckpointFiles(known[0].name, tuple(files))

    def select_sources(self, sources: Sequence[str]) -> "Bag":
        """Return a bag with these sources, in this order, and the members that they need."""
        sources = find_sources(sources, self.sources)
        columns = [self.sources.index(source) for source in sources]
        weights = self.weights[:, columns]
        needed = needed_members(self.weights.tolist(), columns)
        bag = Bag([self.members[i] for i in needed], segment=self.segment)
        bag.weights = weights[needed]
        bag.sources = sources
        bag._columns = [self._columns[i] for i in columns]
        return bag

    def map_members(self, function: Callable[[Network], nn.Module]) -> "Bag":
        """Return the same bag with each member replaced by `function(member)`."""
        bag = copy.copy(self)
        bag._modules = {**self._modules, "_networks": nn.ModuleList(map(function, self.members))}
        return bag

    def forward(self, mixture: Tensor) -> Tensor:
        """(B, C, L) -> (B, S, C, L)"""
        return self.weighted_mean(member(mixture) for member in self.members)

    def weighted_mean(self, outputs: Iterable[Tensor]) -> Tensor:
        """Each member's output (B, S', ...) -> the bag's output (B, S, ...)."""
        if len(self.weights) == 1:
            [output] = outputs
            return self._select(output).to(self.weights.dtype)
        total = torch.zeros((), device=self.weights.device)
        for output, weights in zip(outputs, self.weights / self.weights.sum(0), strict=True):
            total = total + weights.view(-1, *[1] * (output.dim() - 2)) * self._select(output)
        return total

    def _select(self, output: Tensor) -> Tensor:
        """(B, S', ...) of a member -> (B, S, ...) of the bag"""
        if self._columns == list(range(output.shape[1])):
            return output
        # Indexing with a list would copy the indices to the GPU, and wait for it.
        return torch.stack([output[:, i] for i in self._columns], 1)


Model = Network | Bag


def as_bag(model: Model) -> Bag:
    """Return a bag as it is, and a network as a bag with one member."""
    return model if isinstance(model, Bag) else Bag([model]).to(next(model.parameters()).device)


def networks(model: Model) -> list[Network]:
    """Return the members of a bag, or a list of one network."""
    return model.members if isinstance(model, Bag) else [model]


def segment_samples(model: Model, segment: Seconds | None = None) -> int:
    """Return the samples in a segment; by default in the model's own segment.

    Raises:
        SegmentTooLongError: the model was trained on shorter segments.
        SeparationError: the segment is not a number of seconds, or is shorter than one sample.
    """
    try:
        seconds = exact_seconds(model.segment if segment is None else segment)
    except ConfigError as error:
        raise SeparationError(str(error)) from None
    length = seconds_to_samples(seconds, model.sample_rate)
    longest = model.max_segment
    if longest is not None and length > seconds_to_samples(longest, model.sample_rate):
        raise SegmentTooLongError(
            f"segment {float(seconds):g} s is longer than the {float(longest):g} s the model "
            "was trained for; lower the segment"
        )
    if length < 1:
        raise SeparationError(f"a segment of {float(seconds):g} s is shorter than one sample")
    return length


def needed_members(weights: Sequence[Sequence[float]], columns: Sequence[int]) -> list[int]:
    """Return the indices of the members with a weight other than 0 for one of these sources."""
    return [i for i, row in enumerate(weights) if any(row[column] for column in columns)]


def find_sources(names: Sequence[str], sources: Sequence[str]) -> tuple[str, ...]:
    """Return the sources that the names mean, each once; case does not matter.

    Raises:
        ConfigError: a name matches no source, or no name is given.
    """
    if not names:
        raise ConfigError(f"no stem is requested; this model has {', '.join(sources)}")
    exact = {source.casefold(): source for source in sources} | {s: s for s in sources}
    found = [exact.get(name, exact.get(name.strip().casefold())) for name in names]
    for name, source in zip(names, found, strict=True):
        if source is None:
            known = f"this model has {', '.join(sources)}"
            close = difflib.get_close_matches(name.casefold(), sources, n=1)
            if all(part in exact for part in name.casefold().split()):
                known = f"separate names with commas: {','.join(name.split())}"
            elif name.casefold() in INSTRUMENTAL and "vocals" in sources:
                known = "choose vocals as one of two stems: no_vocals is then the instrumental"
            elif close:
                known = f"did you mean {close[0]}?"
            raise ConfigError(f"no stem {name}; {known}")
    return tuple(dict.fromkeys(source for source in found if source))


def _check_members(members: Sequence[Network]) -> None:
    if not members:
        raise ConfigError("a bag needs at least one member")
    for name in ("sources", "audio_channels", "sample_rate"):
        values = {getattr(member, name) for member in members}
        if len(values) > 1:
            raise ConfigError(f"the members of a bag must have the same {name}, not {values}")


def _checked_weights(
    weights: Sequence[Sequence[float]] | None, members: int, sources: int, columns: list[int]
) -> Tensor:
    """Return the validated weights of the bag's sources, (member, source)."""
    if weights is None:
        return torch.ones(members, len(columns))
    if len(weights) != members or any(len(row) != sources for row in weights):
        raise ConfigError(f"a bag's weights must be {members} rows of {sources} numbers")
    table = torch.tensor(weights, dtype=torch.float32)[:, columns]
    if not table.isfinite().all() or not (table.sum(0) != 0).all():
        raise ConfigError("a bag's weights must be finite and give every source a weight")
    return table
