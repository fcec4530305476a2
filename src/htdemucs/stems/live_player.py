"""Live separation from an input to a mix of the stems: through pipes, or on a sound card."""

import threading
import time
from collections import deque
from collections.abc import Callable
from statistics import fmean

import torch
from torch import Tensor

from htdemucs.audio import (
    AudioPipe,
    PipeWriter,
    Resampler,
    SoundCard,
    pad_or_trim,
    resampled_length,
)
from htdemucs.errors import AudioError
from htdemucs.events import (
    EventCallback,
    Finished,
    ProgressTracker,
    Started,
    ignore_events,
    results,
)
from htdemucs.fast import use_this_thread_only
from htdemucs.separation import LiveSeparator, RealTimeSeparator
from htdemucs.stems.mixer import Mixer

TRACK = "-"  # name of the track and of its file, in events
MIX = "mix"  # name of the only stem, in events
SILENCE_TIMEOUT = 5.0  # seconds without samples after which a device counts as gone
POLL_INTERVAL = 0.005  # seconds between checks for the next block
STOP_TIMEOUT = 2.0  # seconds that the devices may take to stop
MEASURED_BLOCKS = 500  # for the measured delay


def live_pipe(
    live: LiveSeparator,
    pipe: AudioPipe,
    writer: PipeWriter,
    mixer: Mixer,
    *,
    on_progress: EventCallback | None = None,
) -> None:
    """Separate a pipe to its end, if it has one, and write the mix.

    The output has the same sample rate and number of samples as the input, and is later by the
    delay; the rest follows at the end. The output depends on the input only: if the network is
    slow, the pipe waits.

    Raises:
        AudioError: the input is damaged beyond use.
        BrokenPipeError: the reader closed the output.
    """
    on_event, started = on_progress or ignore_events, time.monotonic()
    rate = pipe.source_sample_rate
    on_event(Started(TRACK))
    progress, written = ProgressTracker(TRACK, None), 0
    resample_back = Resampler(live.sample_rate, rate, pipe.channels)

    def write(block: Tensor) -> None:
        nonlocal written
        writer.write(block)
        written += block.shape[-1]
        on_event(progress.at(written / rate))

    for block in pipe:
        write(resample_back.push(mixer.mix(live.push(block))))
    length = pipe.source_length + resampled_length(live.delay, live.sample_rate, rate)
    last = mixer.mix(live.finish())
    rest = torch.cat([resample_back.push(last), resample_back.flush()], dim=-1)
    write(pad_or_trim(rest, length - written))
    finished = Finished(
        track=TRACK,
        status="separated",
        files={MIX: TRACK},
        duration=pipe.source_length / rate,
        seconds=time.monotonic() - started,
        gain=1.0,
    )
    for event in results(finished, pipe.notes):
        on_event(event)


class LivePlayer:
    """Plays the input of a sound card, separated and mixed, to its output, in a thread.

    After `start` only that thread may use the card, which it opens and closes.

    Args:
        realtime: the separation, inside whose `with` block the player runs.
        mixer: the gains.
        card: the devices, at any sample rate.

    Attributes:
        received: seconds of input so far.
    """

    def __init__(self, realtime: RealTimeSeparator, mixer: Mixer, card: SoundCard) -> None:
        self.realtime, self._live, self._card = realtime, realtime.live, card
        self._channels = self._live.separator.audio_channels
        self._process = SameLengthResampler(
            lambda block: mixer.mix(realtime.push(block)),
            self._live.sample_rate,
            card.sample_rate,
            self._channels,
            card.block,
        )
        self.received = 0.0
        self._buffered: deque[float] = deque(maxlen=MEASURED_BLOCKS)  # seconds, in the card
        self._checked_at, self._checked_received, self._silence = time.monotonic(), 0.0, 0.0
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._play, name="live sound", daemon=True)

    @property
    def delay(self) -> float:
        """Seconds from the input to the output, with the delay that the sound card reports."""
        return self._processing_delay + self._card.delay

    @property
    def measured_delay(self) -> float:
        """Seconds from the input to the output, with the recent length of the card's buffers."""
        return self._processing_delay + fmean(self._buffered or [self._card.delay])

    @property
    def _processing_delay(self) -> float:
        separation = self._live.delay / self._live.sample_rate
        return separation + self._process.lead / self._card.sample_rate

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def check(self) -> None:
        """Raise the error that ended the thread, if any; call this at least once a second.

        Raises:
            AudioError: a device has gone, or sends or takes no samples any more.
            SeparationError: the network failed.
        """
        if self._error is not None:
            raise self._error
        now = time.monotonic()
        passed = min(1.0, now - self._checked_at)  # after a longer time this process was suspended
        silent = self.received == self._checked_received
        self._silence = self._silence + passed if silent else 0.0
        self._checked_at, self._checked_received = now, self.received
        if self._silence > SILENCE_TIMEOUT:
            name = self._card.names[0 if self._card.awaited == "input" else 1]
            raise AudioError(
                f"no sound has come from {name} for {SILENCE_TIMEOUT:g} s: it has gone, or nothing "
                "plays there; start again when something does"
                if self._card.awaited == "input"
                else f"{name} has taken no sound for {SILENCE_TIMEOUT:g} s: it has gone or is "
                "suspended; start again when it plays"
            )

    def stop(self) -> None:
        """Stop the thread and close the card. If a call to the system hangs, abandon the card."""
        self._stopped.set()
        self._thread.join(STOP_TIMEOUT)
        if self._thread.is_alive():
            self._card.abandon()

    def _play(self) -> None:
        use_this_thread_only()  # the other cores are for the network
        try:
            with self._card:
                while not self._stopped.is_set():
                    block = self._card.read()
                    if block is None:
                        self._stopped.wait(POLL_INTERVAL)
                        continue
                    if len(block) < self._channels:
                        block = block.expand(self._channels, -1)
                    self._card.write(self._process(block[: self._channels]))
                    self._buffered.append(self._card.waiting())
                    self.received += block.shape[-1] / self._card.sample_rate
        except BaseException as error:
            self._error = error


class SameLengthResampler:
    """Applies a function at another sample rate; each output is as long as its input.

    A resampler returns its samples in blocks of varying lengths. A lead of silence ensures that
    there are always enough samples to return.

    Args:
        function: (C, L) -> (C, L), at the inner rate.
        inner_rate, outer_rate: Hz.
        channels: of the blocks.
        block: samples in a block of the input.

    Attributes:
        lead: samples of silence.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        inner_rate: int,
        outer_rate: int,
        channels: int,
        block: int,
    ) -> None:
        self._function = function
        to_inner = Resampler(outer_rate, inner_rate, channels)
        to_outer = Resampler(inner_rate, outer_rate, channels)
        self.lead, missing = 0, 0
        for _ in range(2 * outer_rate // block if inner_rate != outer_rate else 0):
            silence = torch.zeros(channels, block)
            missing += block - to_outer.push(to_inner.push(silence)).shape[-1]
            self.lead = max(self.lead, missing)
        self._to_inner = Resampler(outer_rate, inner_rate, channels)
        self._to_outer = Resampler(inner_rate, outer_rate, channels)
        self._ready = torch.zeros(channels, self.lead)

    def __call__(self, block: Tensor) -> Tensor:
        """(C, L) -> (C, L)"""
        processed = self._to_outer.push(self._function(self._to_inner.push(block)))
        ready, length = torch.cat([self._ready, processed], dim=1), block.shape[-1]
        self._ready = ready[:, length:]
        return ready[:, :length]
