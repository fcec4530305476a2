"""Live separation that never waits: the network has a thread of its own."""

import threading
from collections import deque
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Self

from torch import Tensor

from htdemucs.errors import SeparationError
from htdemucs.separation.live import InferenceRequest, LiveSeparator, Timing
from htdemucs.separation.separator import Stems

LOAD = 0.85  # of a hop: what the network may take of it where the timing must change
RESERVE = 1.2  # times what the network takes: what it is given
IN_A_ROW = 3  # answers that are late before the timing changes
OUTSIDE = "a `RealTimeSeparator` runs inside one `with` block; make another one for more"


class RealTimeSeparator:
    """A `LiveSeparator` whose `push` returns at once, for sound cards.

    Where the network is late, the mixture goes out, an equal share of it in each stem: together
    they are the mixture, and none is suddenly louder than all of it. It comes and goes softly.
    Where it stays late, the network is run less often, and the delay becomes longer.

    Args:
        live: nobody else uses it from now on.
        on_change: called with the new timing when the delay becomes longer.

    Attributes:
        late: answers that were not there in time.
        took: seconds that the latest runs of the network took.
    """

    def __init__(
        self, live: LiveSeparator, on_change: Callable[[Timing], None] | None = None
    ) -> None:
        self.live, self.late = live, 0
        self.took: deque[float] = deque(maxlen=100)
        self._on_change = on_change
        self._in_a_row = 0
        self._wanted: InferenceRequest | None = (
            None  # the latest; those that nobody could begin are dropped
        )
        self._answers: deque[tuple[InferenceRequest, Tensor]] = deque()
        self._error: BaseException | None = None
        self._closed = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="live network", daemon=True)

    def __enter__(self) -> Self:
        if self._thread.ident is not None:
            raise SeparationError(OUTSIDE)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join()

    def push(self, block: Tensor) -> Stems:
        """(C, L) -> the stems of as many samples, as `LiveSeparator.push` does, but at once.

        Raises:
            SeparationError: the block is no waveform, the network failed, or this is not inside
                the `with` block that runs the network.
        """
        if self._closed or self._thread.ident is None:
            raise SeparationError(OUTSIDE)
        for moment in self.live.hear(block):
            with self._change:
                self._wanted = moment
                self._change.notify()
        if self._error is not None:
            raise self._error
        while self._answers:
            moment, answer = self._answers.popleft()
            in_time = self.live.keep(moment, answer)
            self.late += not in_time
            self._in_a_row = 0 if in_time else self._in_a_row + 1
        if self._in_a_row >= IN_A_ROW:
            self._in_a_row = 0
            self._relax()
        return self.live.take(block.shape[-1])

    def _relax(self) -> None:
        """Give the network the time that it lately took, if the segment is long enough."""
        timing = self.live.timing
        hop = min(max(timing.hop, self._usual / LOAD), self.live.longest_hop)
        compute = max(timing.compute, RESERVE * self._usual)
        if (hop, compute) != (timing.hop, timing.compute):
            self.live.relax(hop, compute)
            if self._on_change:
                self._on_change(self.live.timing)

    @property
    def _usual(self) -> float:
        """Seconds that a run of the network lately took."""
        return median(list(self.took)[-5:] or [0.0])

    def _work(self) -> None:
        try:
            while (moment := self._next()) is not None:
                started = perf_counter()
                answer = self.live.answer(moment)
                self.took.append(perf_counter() - started)
                self._answers.append((moment, answer))
        except BaseException as error:
            self._error = error

    def _next(self) -> InferenceRequest | None:
        """Wait for a moment to answer; one that has waited too long is left to the next one."""
        with self._change:
            if self._wanted is not None and self._hopeless(self._wanted):
                self._wanted = None
            self._change.wait_for(lambda: self._wanted is not None or self._closed)
            moment, self._wanted = self._wanted, None
            return None if self._closed else moment

    def _hopeless(self, moment: InferenceRequest) -> bool:
        age = (self.live.heard - moment.now) / self.live.sample_rate
        return age + self._usual > self.live.timing.compute
