r"""Separation of what is still being played: a constant delay, whatever the blocks.

Every hop H the last W seconds, ending now, go through the network. Of its answer the part from
`now - L - X - H` to `now - L` is kept, crossfaded over X with the answer before. So a sample comes
out H + L + X after it came in, and C later where the network may take its time.

    heard    ...===================================| now
    answer 1       [        |/-------\|     ]
    answer 2           [         |/-------\|     ]
    answer 3               [          |/-------\|     ]
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
from htdemucs.separation.levels import Normalization, RunningStats
from htdemucs.separation.separator import Separator, Stems

STEPS = 1 << 20  # of a fade: so few that a fade and its counterpart add up to 1 exactly


@dataclass(frozen=True)
class Timing:
    """What the delay of a live separation is made of; seconds.

    Attributes:
        hop: between two runs of the network.
        look_ahead: what the network hears after the last sample that is kept.
        crossfade: from one answer to the next; at most a hop.
        compute: time that the network may take.
    """

    hop: float
    look_ahead: float
    crossfade: float
    compute: float = 0.0

    @property
    def delay(self) -> float:
        """Seconds from a sample's coming in to its going out."""
        return self.hop + self.look_ahead + self.crossfade + self.compute


@dataclass(frozen=True)
class InferenceRequest:
    """A run of the network: the segment that ends `now`.

    Attributes:
        now: samples that have come in.
        level: of all of them.
        window: (C, W), what the network sees, at the model's level.
    """

    now: int
    level: Normalization
    window: Tensor


class LiveSeparator:
    """Separates a stream with a constant delay: sample n out belongs to sample n - delay in.

    What comes out depends on the samples and the timing only, not on the blocks. The level is that
    of all that has come so far. Before the start there is silence.

    Args:
        separator: the model, and with its `segment` how far the network hears. Its overlap is not
            used.
        timing: what the delay is made of.

    Attributes:
        delay: samples.
        passed: samples for which the mixture had to go out; see `RealTimeSeparator`.

    Raises:
        SeparationError: the timing is impossible, or the separator has shifts.
    """

    def __init__(self, separator: Separator, timing: Timing) -> None:
        if separator.shifts:
            raise SeparationError("live separation makes one run at a time; set shifts to 0")
        self.separator = separator
        self.stems, self.sample_rate = separator.stems, separator.sample_rate
        self._set(timing)
        self.passed = 0
        self._track = _Tape(separator.audio_channels)
        self._level, self._heard = RunningStats(), 0  # samples in the level
        self._next = self._hop  # the end of the next segment
        self._end = -self._look_ahead  # of what the answers so far give
        self._position = -self.delay  # of the next sample that goes out
        channels = len(self.stems), separator.audio_channels
        self._sum, self._weight = torch.zeros(*channels, 0), torch.zeros(0)  # from `_position` on
        self._leaving = torch.zeros(*channels, 0)  # goes on out, ever quieter, after a new timing

    def _set(self, timing: Timing) -> None:
        seconds = astuple(timing)
        if not all(math.isfinite(s) and s >= 0 for s in seconds) or timing.hop == 0:
            raise SeparationError(f"a timing of {seconds} s is impossible: the hop must be above 0")
        if timing.crossfade > timing.hop:
            raise SeparationError("the crossfade must not be longer than the hop")
        rate = self.sample_rate
        self._hop, self._look_ahead, self._crossfade, compute = (round(s * rate) for s in seconds)
        self._hop = max(1, self._hop, self._crossfade)
        if self._kept + self._look_ahead > self.separator.segment_length:
            raise SeparationError(
                f"hop, look-ahead and crossfade are {timing.delay - timing.compute:g} s, longer "
                f"than the segment of {self.separator.segment_length / rate:g} s"
            )
        self.timing = timing
        self.delay = self._kept + self._look_ahead + compute
        self._rise = (torch.arange(self._crossfade) + 0.5).div(self._crossfade)
        self._rise = self._rise.mul(STEPS).round().div(STEPS)

    @property
    def _kept(self) -> int:
        return self._hop + self._crossfade

    @property
    def longest_hop(self) -> float:
        """Seconds of the longest hop for which the segment is long enough."""
        rest = self.separator.segment_length - self._look_ahead - self._crossfade
        return rest / self.sample_rate

    @property
    def heard(self) -> int:
        """Samples that have come in."""
        return self._track.length

    def push(self, block: Tensor) -> Stems:
        """(C, L) at the model's rate -> the stems of as many samples, each (C, L)

        The first `delay` samples are silence.

        Raises:
            SeparationError: the block is not (C, L) or not finite.
        """
        for moment in self.hear(block):
            self.keep(moment, self.answer(moment))
        return self.take(block.shape[-1])

    def finish(self) -> Stems:
        """End the stream and return the stems of its last `delay` samples."""
        return self.push(torch.zeros(self.separator.audio_channels, self.delay))

    # `push` step by step, for those who let another thread do the second.

    def hear(self, block: Tensor) -> Iterator[InferenceRequest]:
        """Take a block (C, L) in, and yield the runs of the network that it calls for."""
        channels = self.separator.audio_channels
        if block.dim() != 2 or len(block) != channels or not block.isfinite().all():
            raise SeparationError(f"a block must be ({channels}, L), of finite samples")
        self._track.append(block.detach().to("cpu", torch.float32, copy=True))
        while self._next <= self.heard:
            now, self._next = self._next, self._next + self._hop
            self._level.hear(self._track.read(self._heard, now))
            self._heard = now
            level = self._level.normalization()
            yield InferenceRequest(now, level, level.apply(self._window(now)))

    def _window(self, now: int) -> Tensor:
        """Return what the network sees of the segment up to `now`; nothing of the future."""
        length, widest = self.separator.segment_length, self.separator.window_length
        before = (widest - length) // 2
        return F.pad(self._track.read(now - length - before, now), (0, widest - length - before))

    def answer(self, moment: InferenceRequest) -> Tensor:
        """Return the network's answer (S, C, W), at the track's level. It changes nothing here."""
        return moment.level.undo(self.separator.answer(moment.window))

    def keep(self, moment: InferenceRequest, answer: Tensor) -> bool:
        """Add an answer, from where the last one ends; return whether it was in time for that.

        One that is late begins softly where the stream has got to.
        """
        wanted, last = self._end - self._crossfade, moment.now - self._look_ahead
        first = max(wanted, self._position, moment.now - answer.shape[-1])
        if first < last:
            weight = torch.ones(last - first)
            rise = self._rise[: last - first]
            weight[: len(rise)] = rise
            ending = weight[len(weight) - len(rise) :]
            ending.copy_(ending.minimum(1 - self._rise[self._crossfade - len(rise) :]))
            end = answer.shape[-1] - self._look_ahead
            self._add(first, weight, answer[..., end - (last - first) : end])
        self._end = max(self._end, last)
        return first == wanted

    def _add(self, first: int, weight: Tensor, answer: Tensor) -> None:
        cut = max(0, -first)  # before the track
        weight, answer = weight[cut:], answer[..., cut:]
        here = slice(first + cut - self._position, first + cut - self._position + len(weight))
        self._extend(here.stop)
        self._sum[..., here] += weight * answer
        self._weight[here] += weight

    def _extend(self, length: int) -> None:
        """Make room for so many samples."""
        missing = max(0, length - len(self._weight))
        self._sum, self._weight = F.pad(self._sum, (0, missing)), F.pad(self._weight, (0, missing))

    def take(self, count: int) -> Stems:
        """Return the stems of the next `count` samples, whatever has been answered until now.

        What no answer gives is the mixture, an equal share of it for each stem.
        """
        self._extend(count)
        stems, missing = self._sum[..., :count].clone(), 1 - self._weight[:count]
        first, last = self._position, self._position + count
        missing[: max(0, -first)] = 0  # before the track
        if missing.any():
            stems += missing * self._track.read(first, last) / len(stems)
            self.passed += int(missing.count_nonzero())
        self._sum, self._weight = self._sum[..., count:], self._weight[count:]
        self._position = last
        self._track.forget(min(last, self._next) - 2 * self.separator.window_length)
        return dict(zip(self.stems, self._faded(stems), strict=True))

    def relax(self, hop: float, compute: float) -> None:
        """Run the network less often, and give it more time (seconds); the delay becomes longer.

        So some of the mixture is heard twice. It comes in softly.
        """
        before, start = self.delay, self._position
        leaving = torch.stack(list(self.take(self._crossfade).values()))
        self._set(replace(self.timing, hop=hop, compute=compute))
        self._position = start - (self.delay - before)
        self._sum, self._weight = self._sum[..., :0], self._weight[:0]
        self._end = self._position + self._crossfade
        self._leaving = leaving * (1 - self._rise)

    def _faded(self, stems: Tensor) -> Tensor:
        """Let what was heard before `relax` go out softly."""
        count = min(stems.shape[-1], left := self._leaving.shape[-1])
        if count:
            stems[..., :count] *= self._rise[len(self._rise) - left :][:count]
            stems[..., :count] += self._leaving[..., :count]
            self._leaving = self._leaving[..., count:]
        return stems


class _Tape:
    """The latest samples of a stream, in positions from its start; before it there is silence."""

    def __init__(self, channels: int) -> None:
        self.length = 0  # samples that have come
        self._blocks: deque[tuple[int, Tensor]] = deque()  # with the position of their first sample
        self._silence = torch.zeros(channels, 1)

    def append(self, block: Tensor) -> None:
        """Add a block (C, L)."""
        self._blocks.append((self.length, block))
        self.length += block.shape[-1]

    def read(self, first: int, last: int) -> Tensor:
        """() -> (C, last - first); what is forgotten or still to come is silence, too."""
        pieces, position = [], first
        for start, block in self._blocks:
            if start < last and start + block.shape[-1] > position:
                pieces.append(self._silence.expand(-1, max(0, start - position)))
                position = max(position, start)
                pieces.append(block[:, position - start : last - start])
                position += pieces[-1].shape[-1]
        return torch.cat([*pieces, self._silence.expand(-1, last - position)], dim=-1)

    def forget(self, first: int) -> None:
        """Forget blocks that end before a position."""
        while self._blocks and self._blocks[0][0] + self._blocks[0][1].shape[-1] <= first:
            self._blocks.popleft()
