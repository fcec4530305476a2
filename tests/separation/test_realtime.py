import threading

import pytest
import torch

from helpers import Identity
from htdemucs import LiveSeparator, RealTimeSeparator, SeparationError, Separator, Timing
from htdemucs.separation import realtime

TIMING = Timing(hop=0.02, look_ahead=0.01, crossfade=0.005)  # of segments of 100 samples


def noise(length):
    return torch.randn(2, length, generator=torch.Generator().manual_seed(3)) * 0.1 + 0.02


class Slow(Identity):
    """A network that returns the negated mixture when the test allows it."""

    def __init__(self):
        super().__init__()
        self.started, self.allowed = threading.Semaphore(0), threading.Semaphore(0)

    def __deepcopy__(self, _memo):
        """Return the network itself, so that the test can reach the separator's."""
        return self

    def forward(self, mixture):
        self.started.release()
        assert self.allowed.acquire(timeout=60)
        return torch.stack([-mixture / 2, -mixture / 2], dim=1)


class Player:
    """Pushes blocks to a separator, and lets the network finish some blocks later.

    The clock that times the network advances by `BLOCK` milliseconds a block.
    """

    BLOCK = 5  # samples

    def __init__(self, monkeypatch, timing, on_change=None):
        self.model, self.blocks = Slow(), 0
        monkeypatch.setattr(realtime, "perf_counter", lambda: self.blocks * self.BLOCK / 1000)
        self.live = LiveSeparator(Separator(self.model, shifts=0), timing)
        self.real = RealTimeSeparator(self.live, on_change)

    def play(self, waveform, takes):
        """Return the mix (C, L); `takes(block)` is the blocks that a run started there takes."""
        pieces, ready = [], None
        with self.real:
            for number, block in enumerate(waveform.split(self.BLOCK, dim=-1)):
                self.blocks = number
                if ready == number:
                    self._finish_run()
                    ready = None
                pieces.append(sum(self.real.push(block).values()))
                if ready is None and self._started_run():
                    ready = number + takes(number)
            self.model.allowed.release(3)  # whatever still runs
        return torch.cat(pieces, dim=-1)

    def _started_run(self):
        """Whether the network has started a run; if not, its thread waits for a request."""
        while not self.model.started.acquire(timeout=0.001):
            if self.real._request is None and self.real._condition._waiters:
                return False
        return True

    def _finish_run(self):
        outputs = len(self.real._outputs)
        self.model.allowed.release()
        while len(self.real._outputs) == outputs:
            threading.Event().wait(0.001)


def balanced(length):
    """Noise whose mean is 0 in each pair of samples, so that its level needs no mean."""
    half = noise(length // 2)
    return torch.stack([half, -half], dim=-1).flatten(1)


def test_a_network_in_time_gives_the_same_output_as_without_a_thread(monkeypatch):
    waveform, timing = balanced(400), Timing(0.02, 0.01, 0.006, compute=0.02)
    player = Player(monkeypatch, timing)
    mix = player.play(waveform, lambda block: 4)
    delay = player.live.delay
    torch.testing.assert_close(mix[:, delay:], -waveform[:, :-delay], rtol=1e-3, atol=1e-5)
    assert (player.real.late, player.live.passthrough) == (0, 0)


def test_while_the_network_is_late_the_mixture_is_the_output_without_clicks(monkeypatch):
    """The loudness of an alternating signal never jumps."""
    tone = torch.ones(2, 600)
    tone[:, 1::2] = -1
    player = Player(monkeypatch, Timing(0.02, 0.01, 0.01, compute=0.02))
    mix = player.play(tone, lambda block: 30 if 40 <= block < 44 else 2)
    delay = player.live.delay
    loudness = (mix[:, delay:] * tone[:, : -delay or None])[0]
    assert player.real.late == 2  # requests that could not start were replaced by newer ones
    assert 80 < player.live.passthrough < 160
    assert loudness.min() == pytest.approx(-1, abs=0.02)
    assert loudness.max() == pytest.approx(1, abs=0.02)
    assert loudness.diff().abs().max() < 0.21  # from -1 to 1 in ten samples
    assert loudness[-50:].max() < -0.9  # the network's output again


def test_a_network_that_is_always_late_gets_more_time(monkeypatch):
    changes = []
    player = Player(monkeypatch, Timing(0.02, 0.01, 0.006), changes.append)
    waveform = balanced(900)
    mix = player.play(waveform, lambda block: 3)
    assert changes == [Timing(0.02, 0.01, 0.006, compute=pytest.approx(1.2 * 0.015))]
    assert player.live.delay == 36 + 18
    assert player.real.late >= realtime.LATE_IN_A_ROW
    assert len(mix[0]) == 900
    expected = -waveform[:, 300 - 54 : -54]
    torch.testing.assert_close(mix[:, 300:], expected, rtol=1e-3, atol=1e-5)


def test_a_network_that_takes_longer_than_a_hop_is_run_less_often(monkeypatch):
    changes = []
    player = Player(monkeypatch, TIMING, changes.append)
    player.play(balanced(1200), lambda block: 7)
    assert changes[-1].hop == pytest.approx(0.035 / realtime.MAX_LOAD)
    assert player.live.passthrough < 400  # until then


def test_the_hop_grows_no_longer_than_the_segment(monkeypatch):
    changes = []
    player = Player(monkeypatch, TIMING, changes.append)
    player.play(balanced(2500), lambda block: 40)
    assert {round(change.hop, 3) for change in changes} == {0.085}


def test_the_network_s_failure_is_raised(identity, monkeypatch):
    def broken(window):
        raise SeparationError("no output")

    separator = Separator(identity, shifts=0)
    monkeypatch.setattr(separator, "run_network", broken)
    real = RealTimeSeparator(LiveSeparator(separator, TIMING))
    with pytest.raises(SeparationError, match="no output"), real:  # noqa: PT012
        for _ in range(1000):
            real.push(torch.zeros(2, 20))
            threading.Event().wait(0.01)


def test_real_time_separation_happens_in_one_with_block(identity):
    real = RealTimeSeparator(LiveSeparator(Separator(identity, shifts=0), TIMING))
    with pytest.raises(SeparationError, match="inside one `with` block"):
        real.push(torch.zeros(2, 20))
    with real:
        real.push(torch.zeros(2, 20))
    with pytest.raises(SeparationError, match="inside one `with` block"):
        real.push(torch.zeros(2, 20))
    with pytest.raises(SeparationError, match="inside one `with` block"):
        real.__enter__()
