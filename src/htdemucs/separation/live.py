r"""Separation of a stream with a constant delay that does not depend on the blocks.

Every hop H the network runs on the last W seconds, up to the latest sample. Of its output the part
from `now - L - X - H` to `now - L` is used, crossfaded over X with the previous output. A sample is
therefore returned H + L + X after it came in; the network's own time C adds to that.

    input    ...===================================| now
    output 1       [        |/-------\|     ]
    output 2           [         |/-------\|     ]
    output 3               [          |/-------\|     ]
                                       H     X   L
"""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from htdemucs.errors import SeparationError
from htdemucs.separation.normalization import Normalization, RunningStats
from htdemucs.separation.separator import Separator, Stems

FADE_STEPS = 1 << 20  # of a fade's values, so that a fade in and a fade out add up to 1 exactly


@dataclass(frozen=True)
class Timing:
    """The parts of the delay of a live separation, in seconds.

    Attributes:
        hop: between two runs of the network.
        look_ahead: the part of the network's input after the last sample that is used.
        crossfade: from one output to the next; at most a hop.
        compute: time that the network may take.
    """

    hop: float
    look_ahead: float
    crossfade: float
    compute: float = 0.0

    @property
    def delay(self) -> float:
        """Seconds from a sample's input to its output."""
        return self.hop + self.look_ahead + self.crossfade + self.compute


@dataclass(frozen=True)
class InferenceRequest:
    """A run of the network on the segment that ends `now`.

    Attributes:
        now: samples received so far.
        normalization: of all of them.
        window: (C, W), the network's input, normalised.
    """

    now: int
    normalization: Normalization
    window: Tensor


class LiveSeparator:
    """Separates a stream with a constant delay: output sample n is input sample n - delay.

    The output depends on the samples and the timing only, not on the blocks. The input is
    normalised by the statistics of all samples so far. Before the start there is silence.

    `push` does everything. A caller that runs the network in another thread does the same in steps:
    `push_input`, `run` (in the thread), `add_output`, `pop_output`.

    Args:
        separator: the model, with a segment as long as the network's input. It must have
            `shifts=0`; its overlap is not used.
        timing: the parts of the delay.

    Attributes:
        delay: samples.
        passthrough: samples for which the mixture was the output; see `RealTimeSeparator`.

    Raises:
        SeparationError: the timing is impossible, or the separator has shifts.
    """

    def __init__(self, separator: Separator, timing: Timing) -> None:
        if separator.shifts:
            raise SeparationError("live separation makes one run at a time; set shifts to 0")
        self.separator = separator
        self.stems, self.sample_rate = separator.stems, separator.sample_rate
        self._set_timing(timing)
        self.passthrough = 0
        self._history = _History(separator.audio_channels)
        self._stats, self._measured = RunningStats(), 0  # samples in the statistics
        self._next = self._hop  # the end of the next segment
        self._end = -self._look_ahead  # of the outputs so far
        self._position = -self.delay  # of the next sample to return
        channels = len(self.stems), separator.audio_channels
        self._sum, self._weight = torch.zeros(*channels, 0), torch.zeros(0)  # from `_position` on
        self._fading_out = torch.zeros(*channels, 0)  # stems from before `increase_delay`

    def _set_timing(self, timing: Timing) -> None:
        seconds = astuple(timing)
        if not all(math.isfinite(s) and s >= 0 for s in seconds) or timing.hop == 0:
            raise SeparationError(f"a timing of {seconds} s is impossible: the hop must be above 0")
        if timing.crossfade > timing.hop:
            raise SeparationError("the crossfade must not be longer than the hop")
        rate = self.sample_rate
        self._hop, self._look_ahead, self._crossfade, compute = (round(s * rate) for s in seconds)
        self._hop = max(1, self._hop, self._crossfade)
        used = self._hop + self._crossfade + self._look_ahead
        if used > self.separator.segment_length:
            raise SeparationError(
                f"hop, look-ahead and crossfade are {timing.delay - timing.compute:g} s, longer "
                f"than the segment of {self.separator.segment_length / rate:g} s"
            )
        self.timing = timing
        self.delay = used + compute
        self._fade_in = (torch.arange(self._crossfade) + 0.5).div(self._crossfade)
        self._fade_in = self._fade_in.mul(FADE_STEPS).round().div(FADE_STEPS)

    @property
    def longest_hop(self) -> float:
        """Seconds of the longest hop for which the segment is long enough."""
        rest = self.separator.segment_length - self._look_ahead - self._crossfade
        return rest / self.sample_rate

    @property
    def received(self) -> int:
        """Samples of input so far."""
        return self._history.length

    def push(self, block: Tensor) -> Stems:
        """(C, L) at the model's rate -> the stems of the same number of samples, each (C, L)

        The first `delay` samples are silence.

        Raises:
            SeparationError: the block is not (C, L) or not finite.
        """
        for request in self.push_input(block):
            self.add_output(request, self.run(request))
        return self.pop_output(block.shape[-1])

    def finish(self) -> Stems:
        """End the stream and return the stems of its last `delay` samples."""
        return self.push(torch.zeros(self.separator.audio_channels, self.delay))

    def push_input(self, block: Tensor) -> Iterator[InferenceRequest]:
        """Add a block (C, L), and yield the runs of the network that are due."""
        channels = self.separator.audio_channels
        if block.dim() != 2 or len(block) != channels or not block.isfinite().all():
            raise SeparationError(f"a block must be ({channels}, L), of finite samples")
        self._history.append(block.detach().to("cpu", torch.float32, copy=True))
        while self._next <= self.received:
            now, self._next = self._next, self._next + self._hop
            self._stats.update(self._history.read(self._measured, now))
            self._measured = now
            normalization = self._stats.normalization()
            yield InferenceRequest(now, normalization, normalization.apply(self._window(now)))

    def _window(self, now: int) -> Tensor:
        """Return the network's input for the segment up to `now`, with silence after it."""
        length, window_length = self.separator.segment_length, self.separator.window_length
        before = (window_length - length) // 2
        past = self._history.read(now - length - before, now)
        return F.pad(past, (0, window_length - length - before))

    def run(self, request: InferenceRequest) -> Tensor:
        """Return the network's output (S, C, W), de-normalised. This does not change the state."""
        return request.normalization.undo(self.separator.run_network(request.window))

    def add_output(self, request: InferenceRequest, output: Tensor) -> bool:
        """Add an output after the previous one; return whether it arrived in time.

        A late output fades in at the current position instead.
        """
        output_start = request.now - output.shape[-1]
        previous_fade_out = self._end - self._crossfade
        first = max(previous_fade_out, self._position, output_start)
        last = request.now - self._look_ahead
        self._end = max(self._end, last)
        length = last - first
        if length > 0:
            # If the output is shorter than two fades, its weight is the lower one of both.
            fade_in = F.pad(self._fade_in, (0, length), value=1.0)[:length]
            fade_out = F.pad(1 - self._fade_in, (length, 0), value=1.0)[-length:]
            start = max(first, 0)  # nothing is returned for the time before the track
            weight = fade_in.minimum(fade_out)[start - first :]
            self._extend(last - self._position)
            here = slice(start - self._position, last - self._position)
            self._sum[..., here] += weight * output[..., start - output_start : last - output_start]
            self._weight[here] += weight
        return first == previous_fade_out

    def _extend(self, length: int) -> None:
        """Extend the sums with zeros to a length in samples, if they are shorter."""
        missing = max(0, length - len(self._weight))
        self._sum, self._weight = F.pad(self._sum, (0, missing)), F.pad(self._weight, (0, missing))

    def pop_output(self, count: int) -> Stems:
        """Return the stems of the next `count` samples, whatever the network has finished.

        If an output is missing, each stem gets the mixture divided by the number of stems.
        """
        self._extend(count)
        stems, missing = self._sum[..., :count].clone(), 1 - self._weight[:count]
        first, last = self._position, self._position + count
        missing[: max(0, -first)] = 0  # before the track
        if missing.any():
            stems += missing * self._history.read(first, last) / len(stems)
            self.passthrough += int(missing.count_nonzero())
        self._sum, self._weight = self._sum[..., count:], self._weight[count:]
        self._position = last
        self._history.discard(min(last, self._next) - 2 * self.separator.window_length)
        return dict(zip(self.stems, self._crossfaded(stems), strict=True))

    def increase_delay(self, hop: float, compute: float) -> None:
        """Run the network less often and give it more time (seconds), which increases the delay.

        The output then repeats part of the track, after a crossfade.
        """
        position, delay = self._position, self.delay
        # What would have been returned next fades out over the repeated part.
        fading_out = torch.stack(list(self.pop_output(self._crossfade).values()))
        self._fading_out = fading_out * (1 - self._fade_in)
        self._set_timing(replace(self.timing, hop=hop, compute=compute))
        # Go back by the increase. Of the outputs nothing is left there, so the next one begins at
        # `_position`, as if a previous one faded out from there on.
        self._position = position - (self.delay - delay)
        self._end = self._position + self._crossfade
        self._sum, self._weight = self._sum[..., :0], self._weight[:0]

    def _crossfaded(self, stems: Tensor) -> Tensor:
        """Fade from the stems of before `increase_delay` to these."""
        count = min(stems.shape[-1], left := self._fading_out.shape[-1])
        if count:
            stems[..., :count] *= self._fade_in[len(self._fade_in) - left :][:count]
            stems[..., :count] += self._fading_out[..., :count]
            self._fading_out = self._fading_out[..., count:]
        return stems


class _History:
    """The latest samples of a stream, by their positions from its start."""

    def __init__(self, channels: int) -> None:
        self.length = 0  # samples received
        self._blocks: deque[tuple[int, Tensor]] = deque()  # with the position of their first sample
        self._silence = torch.zeros(channels, 1)

    def append(self, block: Tensor) -> None:
        """Add a block (C, L)."""
        self._blocks.append((self.length, block))
        self.length += block.shape[-1]

    def read(self, first: int, last: int) -> Tensor:
        """() -> (C, last - first); silence where samples are discarded or not received yet."""
        pieces, position = [], first
        for start, block in self._blocks:
            if start < last and start + block.shape[-1] > position:
                pieces.append(self._silence.expand(-1, max(0, start - position)))
                position = max(position, start)
                pieces.append(block[:, position - start : last - start])
                position += pieces[-1].shape[-1]
        return torch.cat([*pieces, self._silence.expand(-1, last - position)], dim=-1)

    def discard(self, end: int) -> None:
        """Discard the blocks that end before a position."""
        while self._blocks and self._blocks[0][0] + self._blocks[0][1].shape[-1] <= end:
            self._blocks.popleft()
