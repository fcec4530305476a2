"""From what is playing to a mix of its stems, in pipes and on sound cards."""

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

NAME = "-"  # of the track and of its file, in events
MIX = "mix"  # the only stem, in events
SILENT = 5.0  # seconds without samples after which a device is given up
POLL = 0.005  # seconds between looks for the next block
CLOSING = 2.0  # seconds that the devices may take to end
LATELY = 500  # blocks


def live_pipe(
    live: LiveSeparator,
    pipe: AudioPipe,
    writer: PipeWriter,
    mixer: Mixer,
    *,
    on_progress: EventCallback | None = None,
) -> None:
    """Separate a pipe to its end, if it has one, and write the mix.

    As many samples go out as come in, at the same rate, the delay later; at the end the delay
    follows. What goes out depends on what comes in only: where the network is slow, all wait.

    Raises:
        AudioError: the input is damaged beyond use.
        BrokenPipeError: nobody reads the output.
    """
    tell, started, rate = on_progress or ignore_events, time.monotonic(), pipe.source_sample_rate
    tell(Started(NAME))
    pace, written = ProgressTracker(NAME, None), 0
    back = Resampler(live.sample_rate, rate, pipe.channels)

    def write(block: Tensor) -> None:
        nonlocal written
        writer.write(block)
        written += block.shape[-1]
        tell(pace.at(written / rate))

    for block in pipe:
        write(back.push(mixer.mix(live.push(block))))
    length = pipe.source_length + resampled_length(live.delay, live.sample_rate, rate)
    rest = torch.cat([back.push(mixer.mix(live.finish())), back.flush()], dim=-1)
    write(pad_or_trim(rest, length - written))
    finished = Finished(
        track=NAME,
        status="separated",
        files={MIX: NAME},
        duration=pipe.source_length / rate,
        seconds=time.monotonic() - started,
        gain=1.0,
    )
    for event in results(finished, pipe.warnings):
        tell(event)


class LivePlayer:
    """Plays what comes from a sound card back to it, separated and mixed, in a thread of its own.

    From `start` on nobody else uses the card, which that thread starts and closes.

    Args:
        real: the separation.
        mixer: the gains.
        card: the devices, at any sample rate.

    Attributes:
        heard: seconds that have come in.
    """

    def __init__(self, real: RealTimeSeparator, mixer: Mixer, card: SoundCard) -> None:
        self._real, self._mixer, self._card = real, mixer, card
        self._live = real.live
        channels = self._live.separator.audio_channels
        self._through = SameLength(
            lambda block: mixer.mix(real.push(block)),
            (self._live.sample_rate, card.sample_rate), channels, card.block_length,
        )  # fmt: skip
        self.heard = 0.0
        self._waiting: deque[float] = deque(maxlen=LATELY)
        self._checked, self._heard_before, self._silence = time.monotonic(), 0.0, 0.0
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._play, name="live sound", daemon=True)

    @property
    def delay(self) -> float:
        """Seconds from the input to the output, with what the sound card says of itself."""
        return self._inside + self._card.latency

    @property
    def measured(self) -> float:
        """The same, with what lately was in the sound card's buffers."""
        return self._inside + fmean(self._waiting or [self._card.latency])

    @property
    def _inside(self) -> float:
        separation = self._live.delay / self._live.sample_rate
        return separation + self._through.lead / self._card.sample_rate

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def check(self) -> None:
        """Do nothing while sound comes; call it at least once a second.

        Raises:
            AudioError: a device has gone, or gives or takes no sound any more.
            SeparationError: the network failed.
        """
        if self._error is not None:
            raise self._error
        now = time.monotonic()
        passed = min(1.0, now - self._checked)  # a longer pause was this process's own
        self._silence = self._silence + passed if self.heard == self._heard_before else 0.0
        self._checked, self._heard_before = now, self.heard
        if self._silence > SILENT:
            name = self._card.names[0 if self._card.pending_device == "input" else 1]
            raise AudioError(
                f"no sound has come from {name} for {SILENT:g} s: it has gone, or nothing plays "
                "there; start again when something does"
                if self._card.pending_device == "input"
                else f"{name} has taken no sound for {SILENT:g} s: it has gone or is suspended; "
                "start again when it plays"
            )

    def stop(self) -> None:
        """End, and close the card. Where a system's call never returns, the card is abandoned."""
        self._ended.set()
        self._thread.join(CLOSING)
        if self._thread.is_alive():
            self._card.abandon()

    def _play(self) -> None:
        use_this_thread_only()  # the other cores are for the network
        try:
            with self._card:
                while not self._ended.is_set():
                    block = self._card.read()
                    if block is None:
                        self._ended.wait(POLL)
                    else:
                        self._pass_on(block)
        except BaseException as error:
            self._error = error

    def _pass_on(self, block: Tensor) -> None:
        channels = self._live.separator.audio_channels
        wide = block.expand(channels, -1) if len(block) < channels else block
        self._card.write(self._through(wide[:channels]))
        self._waiting.append(self._card.buffered_seconds())
        self.heard += block.shape[-1] / self._card.sample_rate


class SameLength:
    """Applies a function of blocks at another sample rate; as many samples go out as come in.

    Resamplers give their samples in lumps. As many samples of silence go out first as bridge that.

    Args:
        apply: (C, L) -> (C, L), at the inner rate.
        rates: Hz, inside and outside.
        channels: of the blocks.
        block: samples of the blocks that come.

    Attributes:
        lead: samples of silence.
    """

    def __init__(
        self,
        apply: Callable[[Tensor], Tensor],
        rates: tuple[int, int],
        channels: int,
        block: int,
    ) -> None:
        inner, outer = rates
        self._apply = apply
        there, back = (Resampler(outer, inner, channels), Resampler(inner, outer, channels))
        self.lead, balance = 0, 0
        for _ in range(2 * outer // block if inner != outer else 0):
            balance += block - back.push(there.push(torch.zeros(channels, block))).shape[-1]
            self.lead = max(self.lead, balance)
        self._there = Resampler(outer, inner, channels)
        self._back = Resampler(inner, outer, channels)
        self._waiting = torch.zeros(channels, self.lead)

    def __call__(self, block: Tensor) -> Tensor:
        """(C, L) -> (C, L)"""
        ready = torch.cat([self._waiting, self._back.push(self._apply(self._there.push(block)))], 1)
        out, self._waiting = ready[:, : block.shape[-1]], ready[:, block.shape[-1] :]
        return out
