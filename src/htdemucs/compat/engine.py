"""The engine, with the published package's lead-ins, padding and reports."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch.nn import functional as F

from htdemucs.model import Model
from htdemucs.model.config import Seconds, seconds_to_samples
from htdemucs.separation import OutputCache, Separator
from htdemucs.separation.chunking import Segment
from htdemucs.separation.separator import Batch

PRECISION = "fp32"  # programs compare results, so none is rounded to the device's fastest numbers
OnSegment = Callable[[Segment, str], None]


def padded_length(model: Model, segment: Seconds) -> int:
    """Return the samples that a model's shorter windows are padded to; 0 if it takes any length."""
    if model.max_segment is None:
        return 0
    return seconds_to_samples(segment, model.sample_rate)


class Engine(Separator):
    """A separator that tells when it begins and ends a segment.

    Segments that are shorter than the longest one are followed by silence up to that length, as in
    the published package: this costs the time of the longest, but gives the same numbers.

    Args:
        model: a network or a bag.
        longest: samples; shorter windows are padded to it.
        on_segment: called with each segment and "start" or "end".
        settings: of the `Separator`.

    Attributes:
        lead_in: 0 to half a second, in samples, for each run over a track with `shifts=1`. Without
            it the separator draws its own.
    """

    lead_in: int | None = None

    def __init__(
        self,
        model: Model,
        longest: int,
        on_segment: OnSegment | None = None,
        **settings: Any,
    ) -> None:
        if not settings["split"]:
            settings["overlap"] = 0  # one segment
        super().__init__(model, precision=PRECISION, **settings)
        self._longest = longest
        self._on_segment = on_segment

    def shift_offsets(self) -> list[int]:
        """Return the lead-ins in samples."""
        return super().shift_offsets() if self.lead_in is None else [self.lead_in]

    def _submit(self, segments: Sequence[Segment], skip: int, cache: OutputCache | None) -> Batch:
        length = segments[0].window.shape[-1]
        silence = (0, max(0, self._longest - length))
        self._tell(segments, "start")
        padded = [replace(segment, window=F.pad(segment.window, silence)) for segment in segments]
        outputs = super()._submit(padded, skip, cache).outputs()[..., :length]  # before "end"
        self._tell(segments, "end")
        return Batch(segments, outputs)

    def _tell(self, segments: Sequence[Segment], state: str) -> None:
        if self._on_segment is not None:
            for segment in segments:
                self._on_segment(segment, state)
