"""Live separation that never waits for the network, which runs in a separate thread."""

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

MAX_LOAD = 0.85  # of a hop: the share that the network may take after a change of the timing
RESERVE = 1.2  # times the network's time: the time that it gets then
LATE_IN_A_ROW = 3  # outputs, before the timing changes
OUTSIDE = "a `RealTimeSeparator` runs inside one `with` block; make another one for more"


class RealTimeSeparator:
    """A `LiveSeparator` whose `push` returns immediately, for sound cards.

    If the network is late, each stem gets the mixture divided by the number of stems, so that their
    sum is the mixture and no stem is suddenly louder; transitions are faded. If the network stays
    late, it runs less often, and the delay becomes longer.

    Args:
        live: the separation; use it only through this object from now on.
        on_change: called with the new timing when the delay becomes longer.

    Attributes:
        late: outputs that were not in time.
        inference_times: seconds of the latest runs of the network.
    """

    def __init__(
        self, live: LiveSeparator, on_change: Callable[[Timing], None] | None = None
    ) -> None:
        self.live, self.late = live, 0
        self.inference_times: deque[float] = deque(maxlen=100)
        self._on_change = on_change
        self._late_in_a_row = 0
        self._request: InferenceRequest | None = None  # the latest; older ones are dropped
        self._outputs: deque[tuple[InferenceRequest, Tensor]] = deque()
        self._error: BaseException | None = None
        self._closed = False
        self._condition = threading.Condition()  # of `_request` and `_closed`
        self._thread = threading.Thread(target=self._run, name="live network", daemon=True)

    def __enter__(self) -> Self:
        if self._thread.ident is not None:
            raise SeparationError(OUTSIDE)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join()

    def push(self, block: Tensor) -> Stems:
        """(C, L) -> the stems of the same number of samples, as `LiveSeparator.push` returns them

        Raises:
            SeparationError: the block is not a waveform, the network failed, or this is not inside
                the `with` block that runs the network.
        """
        if self._closed or self._thread.ident is None:
            raise SeparationError(OUTSIDE)
        for request in self.live.push_input(block):
            with self._condition:
                self._request = request
                self._condition.notify()
        if self._error is not None:
            raise self._error
        while self._outputs:
            in_time = self.live.add_output(*self._outputs.popleft())
            self.late += not in_time
            self._late_in_a_row = 0 if in_time else self._late_in_a_row + 1
        if self._late_in_a_row >= LATE_IN_A_ROW:
            self._late_in_a_row = 0
            self._increase_delay()
        return self.live.pop_output(block.shape[-1])

    def _increase_delay(self) -> None:
        """Increase hop and `compute` to the network's latest times, if the segment allows it."""
        timing = self.live.timing
        hop = min(max(timing.hop, self._usual_time / MAX_LOAD), self.live.longest_hop)
        compute = max(timing.compute, RESERVE * self._usual_time)
        if (hop, compute) != (timing.hop, timing.compute):
            self.live.increase_delay(hop, compute)
            if self._on_change:
                self._on_change(self.live.timing)

    @property
    def _usual_time(self) -> float:
        """Seconds that the network's latest runs took."""
        return median(list(self.inference_times)[-5:] or [0.0])

    def _run(self) -> None:
        """Run the network on one request after another, in the thread."""
        try:
            while (request := self._next_request()) is not None:
                started = perf_counter()
                output = self.live.run(request)
                self.inference_times.append(perf_counter() - started)
                self._outputs.append((request, output))
        except BaseException as error:
            self._error = error

    def _next_request(self) -> InferenceRequest | None:
        """Wait for a request that is not too old, and return it; None at the end."""
        with self._condition:
            if self._request is not None:
                age = (self.live.received - self._request.now) / self.live.sample_rate
                if age + self._usual_time > self.live.timing.compute:
                    self._request = None
            self._condition.wait_for(lambda: self._request is not None or self._closed)
            request, self._request = self._request, None
            return None if self._closed else request
