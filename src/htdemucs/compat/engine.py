"""The engine with the shifts, the padding and the callbacks of the published package."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch.nn import functional as F

from htdemucs.model import Model
from htdemucs.model.config import Seconds, seconds_to_samples
from htdemucs.separation import OutputCache, Separator
from htdemucs.separation.chunking import Segment
from htdemucs.separation.separator import Batch

PRECISION = "fp32"  # programs compare results, so no faster, less exact numbers are used
OnSegment = Callable[[Segment, str], None]


def padded_length(model: Model, segment: Seconds) -> int:
    """Return the length, in samples, to which shorter windows are padded; 0: they are not."""
    if model.max_segment is None:
        return 0
    return seconds_to_samples(segment, model.sample_rate)


class Engine(Separator):
    """A separator that reports the start and the end of each segment.

    Shorter segments are padded with silence to the length of the longest, as in the published
    package: this takes as long as the longest segment, but gives the same numbers.

    Args:
        model: a network or a bag.
        longest: samples; shorter windows are padded to it.
        on_segment: called with each segment and "start" or "end".
        settings: the settings of the `Separator`.

    Attributes:
        lead_in: 0 to half a second, in samples, for each run over a track with `shifts=1`. By
            default the separator draws its own.
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
