"""Separating and mixing live: from a pipe to a pipe, or on a sound card."""

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
from htdemucs.events import EventCallback, ProgressTracker, Started, ignore_events, result_events
from htdemucs.fast import use_this_thread_only
from htdemucs.results import TrackResult
from htdemucs.separation import LiveSeparator, RealTimeSeparator
from htdemucs.stems.mixer import Mixer

NAME = "-"  # of the track and of its file, in events
MIX = "mix"  # the only stem, in events
MAX_SILENCE = 5.0  # seconds without samples after which a device counts as lost
POLL_INTERVAL = 0.005  # seconds
STOP_TIMEOUT = 2.0  # seconds that the devices may take to stop
RECENT = 500  # blocks whose buffering is averaged


def live_pipe(
    live: LiveSeparator,
    pipe: AudioPipe,
    writer: PipeWriter,
    mixer: Mixer,
    *,
    on_progress: EventCallback | None = None,
) -> None:
    """Separate a pipe until it ends, and write the mix.

    The output has the sample rate of the input, and is longer by the delay: the input's samples
    come out after the delay, and the last ones follow its end. The output depends on the input
    only: if the network is slow, reading waits for it.

    Raises:
        AudioError: the input is damaged beyond use.
        BrokenPipeError: the output was closed by its reader.
    """
    on_event, rate = on_progress or ignore_events, pipe.source_sample_rate
    started = time.monotonic()
    on_event(Started(NAME))
    progress, written = ProgressTracker(NAME, None), 0
    resampler = Resampler(live.sample_rate, rate, pipe.channels)

    def write(block: Tensor) -> None:
        nonlocal written
        writer.write(block)
        written += block.shape[-1]
        on_event(progress.at(written / rate))

    for block in pipe:
        write(resampler.push(mixer.mix(live.push(block))))
    length = pipe.source_length + resampled_length(live.delay, live.sample_rate, rate)
    rest = torch.cat([resampler.push(mixer.mix(live.finish())), resampler.flush()], dim=-1)
    write(pad_or_trim(rest, length - written))
    result = TrackResult(
        track=NAME,
        status="separated",
        files={MIX: NAME},
        duration=pipe.source_length / rate,
        seconds=time.monotonic() - started,
        sample_rate=rate,
        length=length,
        source_length=pipe.source_length,
        gain=1.0,
        warnings=pipe.warnings,
    )
    for event in result_events(result):
        on_event(event)


class LivePlayer:
    """Plays the input of a sound card on its output, separated and mixed, in another thread.

    That thread starts, uses and closes the card; use the card nowhere else after `start`.

    Args:
        real: the separation.
        mixer: the gains.
        card: the devices, at any sample rate.

    Attributes:
        received: seconds of input so far.
    """

    def __init__(self, real: RealTimeSeparator, mixer: Mixer, card: SoundCard) -> None:
        self._real, self._mixer, self._card = real, mixer, card
        self._live = real.live
        channels = self._live.separator.audio_channels
        self._process = SameLength(
            lambda block: mixer.mix(real.push(block)),
            (self._live.sample_rate, card.sample_rate), channels, card.block_length,
        )  # fmt: skip
        self.received = 0.0
        self._buffered: deque[float] = deque(maxlen=RECENT)  # seconds in the card, per block
        self._checked, self._received_before, self._silence = time.monotonic(), 0.0, 0.0
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._play, name="live sound", daemon=True)

    @property
    def delay(self) -> float:
        """Seconds from the input to the output, with the delay that the sound card reports."""
        return self._own_delay + self._card.latency

    @property
    def measured_delay(self) -> float:
        """Seconds from the input to the output, with what was recently in the card's buffers."""
        return self._own_delay + fmean(self._buffered or [self._card.latency])

    @property
    def _own_delay(self) -> float:
        separation = self._live.delay / self._live.sample_rate
        return separation + self._process.lead / self._card.sample_rate

    def start(self) -> None:
        """Start to play."""
        self._thread.start()

    def check(self) -> None:
        """Raise an error if playing has stopped; call this at least once a second.

        Raises:
            AudioError: a device was removed, or no longer delivers or accepts sound.
            SeparationError: the network failed.
        """
        if self._error is not None:
            raise self._error
        now = time.monotonic()
        passed = min(1.0, now - self._checked)  # a longer pause was this process's own
        self._silence = self._silence + passed if self.received == self._received_before else 0.0
        self._checked, self._received_before = now, self.received
        if self._silence > MAX_SILENCE:
            name = self._card.names[0 if self._card.pending_device == "input" else 1]
            seconds = f"{MAX_SILENCE:g} s"
            raise AudioError(
                f"no sound has come from {name} for {seconds}: it was removed, or nothing plays "
                "there; start again when something does"
                if self._card.pending_device == "input"
                else f"{name} has taken no sound for {seconds}: it was removed or is suspended; "
                "start again when it plays"
            )

    def stop(self) -> None:
        """Stop, and close the card. If a call of the system does not return, abandon the card."""
        self._stopping.set()
        self._thread.join(STOP_TIMEOUT)
        if self._thread.is_alive():
            self._card.abandon()

    def _play(self) -> None:
        use_this_thread_only()  # the other cores are for the network
        try:
            with self._card:
                while not self._stopping.is_set():
                    block = self._card.read()
                    if block is None:
                        self._stopping.wait(POLL_INTERVAL)
                    else:
                        self._play_block(block)
        except BaseException as error:
            self._error = error

    def _play_block(self, block: Tensor) -> None:
        channels = self._live.separator.audio_channels
        wide = block.expand(channels, -1) if len(block) < channels else block
        self._card.write(self._process(wide[:channels]))
        self._buffered.append(self._card.buffered_seconds())
        self.received += block.shape[-1] / self._card.sample_rate


class SameLength:
    """Applies a function to blocks at another sample rate; each result has its block's length.

    Resamplers return a varying number of samples, so the output begins with enough silence to
    bridge the gaps.

    Args:
        apply: (C, L) -> (C, L), at the inner sample rate.
        rates: Hz, inside and outside.
        channels: number of channels in a block.
        block: number of samples in a block.

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
        to_inner, to_outer = (Resampler(outer, inner, channels), Resampler(inner, outer, channels))
        self.lead, missing = 0, 0
        for _ in range(2 * outer // block if inner != outer else 0):  # two seconds of silence
            missing += block - to_outer.push(to_inner.push(torch.zeros(channels, block))).shape[-1]
            self.lead = max(self.lead, missing)
        self._to_inner = Resampler(outer, inner, channels)
        self._to_outer = Resampler(inner, outer, channels)
        self._buffer = torch.zeros(channels, self.lead)

    def __call__(self, block: Tensor) -> Tensor:
        """(C, L) -> (C, L)"""
        processed = self._to_outer.push(self._apply(self._to_inner.push(block)))
        ready = torch.cat([self._buffer, processed], dim=1)
        out, self._buffer = ready[:, : block.shape[-1]], ready[:, block.shape[-1] :]
        return out
