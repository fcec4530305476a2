"""How much of a track each network of a model sees for a segment of it."""

from collections.abc import Hashable

from torch import Tensor

from htdemucs.model import Bag


class Windows:
    """The windows of a bag's members. Each lies around the same middle.

    Args:
        bag: the model.
        segment_length: samples in a segment.
    """

    def __init__(self, bag: Bag, segment_length: int) -> None:
        self._configs = [member.config for member in bag.members]
        self._segment_length = segment_length
        self.margin = max(config.margin(segment_length) for config in self._configs)

    def lengths(self, length: int) -> list[int]:
        """Return how many samples each member sees for `length` samples."""
        return [config.window_length(length, self._segment_length) for config in self._configs]

    def widest(self, length: int) -> int:
        """Return how many samples of the track a segment of `length` samples needs."""
        return max(self.lengths(length))

    def group(self, length: int) -> Hashable:
        """Segments whose lengths are of the same group can be in the same batch."""
        lengths = set(self.lengths(length))
        return lengths.pop() if len(lengths) == 1 else length

    def answer(self, prepared: Bag, mixture: Tensor, length: int) -> Tensor:
        """(B, C, the widest window) -> (B, S, C, W), the segment in the middle

        W is `length`, or the members' window if all have the same.
        """
        lengths = self.lengths(length)
        if len(set(lengths)) == 1:
            return prepared(mixture)
        return prepared.weighted_mean(
            middle(member(middle(mixture, window, length)), length, length)
            for member, window in zip(prepared.members, lengths, strict=True)
        )


def middle(x: Tensor, size: int, length: int) -> Tensor:
    """(..., L) -> (..., size): windows of both sizes lie around the same `length` samples."""
    first = (x.shape[-1] - length) // 2 - (size - length) // 2
    return x[..., first : first + size]
