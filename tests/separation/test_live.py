"""Live separation: constant delay, whatever the blocks; and in real time, whatever the network."""

import threading

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import Identity, snr
from htdemucs import LiveSeparator, RealTimeSeparator, SeparationError, Separator, Timing
from htdemucs.separation import realtime
from htdemucs.separation.levels import RunningStats

relaxed = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TIMING = Timing(hop=0.02, look_ahead=0.01, crossfade=0.005)  # of segments of 100 samples


def noise(length):
    return torch.randn(2, length, generator=torch.Generator().manual_seed(3)) * 0.1 + 0.02


def streamed(live, blocks):
    pieces = [*(live.push(block) for block in blocks), live.finish()]
    return torch.stack([torch.cat([p[name] for p in pieces], dim=-1) for name in live.stems])


@relaxed
@given(
    length=st.integers(1, 700),
    cut=st.integers(1, 700),
    hop=st.integers(1, 60),
    look_ahead=st.integers(0, 30),
    crossfade=st.integers(0, 10),
    compute=st.integers(0, 200),
)
def test_the_delay_is_exact_and_constant(
    identity, length, cut, hop, look_ahead, crossfade, compute
):
    """What an identity gives is the mixture, `delay` samples later, and silence before."""
    milliseconds = (hop, look_ahead, min(crossfade, hop), compute)
    live = LiveSeparator(Separator(identity), Timing(*(value / 1000 for value in milliseconds)))
    assert live.delay == sum(milliseconds)
    assert live.timing.delay == pytest.approx(live.delay / live.sample_rate)
    waveform = noise(length)
    stems = streamed(live, waveform.split(cut, dim=-1))
    assert stems.shape == (2, 2, live.delay + length)
    assert not stems[..., : live.delay].any()
    torch.testing.assert_close(stems[0, :, live.delay :], waveform, rtol=1e-4, atol=1e-5)
    assert live.passed == 0


@pytest.mark.parametrize("timing", [Timing(0.2, 0.1, 0.05), Timing(0.11, 0.0, 0.11, compute=0.3)])
def test_what_comes_out_is_the_offline_run_of_the_same_windows_to_the_bit(tiny_model, timing):
    separator, waveform = Separator(tiny_model), noise(20_011)
    live = LiveSeparator(separator, timing)
    streams = [
        streamed(LiveSeparator(separator, timing), waveform.split(cut, dim=-1))
        for cut in (1024, 777, 20_011)
    ]
    rate, length = separator.sample_rate, separator.segment_length
    hop, ahead, fade = (round(s * rate) for s in (timing.hop, timing.look_ahead, timing.crossfade))
    rise = ((torch.arange(fade) + 0.5) / fade * 2**20).round() / 2**20
    track = torch.cat([torch.zeros(2, length), waveform, torch.zeros(2, live.delay)], dim=-1)
    expected = torch.zeros(4, 2, track.shape[-1])
    level, ends = RunningStats(), range(length + hop, track.shape[-1] + 1, hop)
    for end in ends:
        level.hear(track[:, end - hop : end])
        normal = level.normalization()
        answer = normal.undo(separator.answer(normal.apply(track[:, end - length : end])))
        first, last = end - ahead - fade - hop, end - ahead
        weight = torch.ones(last - first)
        weight[:fade] = rise
        weight[len(weight) - fade :] = torch.minimum(weight[len(weight) - fade :], 1 - rise)
        place = slice(length - ahead - len(weight), length - ahead)
        expected[..., first:last] += weight * answer[..., place]
    expected = expected[..., length : length + waveform.shape[-1]]
    for stems in streams:
        assert torch.equal(stems[..., live.delay :], expected)


def test_the_caller_s_buffer_may_be_used_again(identity):
    waveform, buffer = noise(700), torch.zeros(2, 70)
    live = LiveSeparator(Separator(identity), TIMING)
    pieces = []
    for block in waveform.split(70, dim=-1):
        buffer.copy_(block)
        pieces.append(live.push(buffer)["once"])
    stem = torch.cat(pieces, dim=-1)[:, live.delay :]
    torch.testing.assert_close(stem, waveform[:, : -live.delay], rtol=1e-4, atol=1e-5)


def test_an_endless_stream_takes_no_more_memory(identity):
    live = LiveSeparator(Separator(identity), Timing(0.02, 0.01, 0.005, compute=0.05))
    held = []
    for _ in range(300):
        live.push(torch.randn(2, 7))
        held.append((len(live._track._blocks), live._sum.shape[-1]))
    assert max(held[100:]) <= max(held[:100])


def test_more_look_ahead_comes_nearer_to_the_separation_of_the_whole(tiny_model):
    """A window that ends later is another window: not the same, but not something else."""
    waveform = noise(16_000)
    whole = torch.stack(list(Separator(tiny_model).separate(waveform, 8000).values()))
    stems = {}
    for ahead in (0.0, 0.4):
        live = LiveSeparator(Separator(tiny_model), Timing(0.1, ahead, 0.02))
        stems[ahead] = streamed(live, [waveform])[..., live.delay :]
    assert snr(whole, stems[0.4]) > snr(whole, stems[0.0])


@pytest.mark.parametrize(
    ("timing", "words"),
    [
        (Timing(0.0, 0.1, 0.0), "hop must be above 0"),
        (Timing(0.02, float("nan"), 0.0), "impossible"),
        (Timing(0.02, -0.01, 0.0), "impossible"),
        (Timing(0.02, 0.0, 0.03), "crossfade must not be longer"),
        (Timing(0.05, 0.05, 0.01), "longer than the segment of 0.1 s"),
    ],
)
def test_impossible_timings_are_refused(identity, timing, words):
    with pytest.raises(SeparationError, match=words):
        LiveSeparator(Separator(identity), timing)


def test_what_is_no_block_is_refused(identity):
    live = LiveSeparator(Separator(identity), TIMING)
    for block in (torch.zeros(1, 5), torch.zeros(5), torch.full((2, 5), float("nan"))):
        with pytest.raises(SeparationError, match=r"a block must be \(2, L\)"):
            live.push(block)
    with pytest.raises(SeparationError, match="set shifts to 0"):
        LiveSeparator(Separator(identity, shifts=1), TIMING)


class Slow(Identity):
    """A model that answers when it may; it gives the mixture negated, to be told from it."""

    def __init__(self):
        super().__init__()
        self.asked, self.may = threading.Semaphore(0), threading.Semaphore(0)

    def __deepcopy__(self, _memo):
        """Return the model itself, for a separator must not have a copy that cannot be reached."""
        return self

    def forward(self, mixture):
        self.asked.release()
        assert self.may.acquire(timeout=60)
        return torch.stack([-mixture / 2, -mixture / 2], dim=1)


class Player:
    """Plays to a separator, block by block, and lets the network answer some blocks later.

    The clock that the network is timed with goes on by `block` milliseconds a block.
    """

    BLOCK = 5  # samples

    def __init__(self, monkeypatch, timing, on_change=None):
        self.model, self.blocks = Slow(), 0
        monkeypatch.setattr(realtime, "perf_counter", lambda: self.blocks * self.BLOCK / 1000)
        self.live = LiveSeparator(Separator(self.model), timing)
        self.real = RealTimeSeparator(self.live, on_change)

    def play(self, waveform, takes):
        """Return the mix (C, L); `takes(block)` is how many blocks an answer takes from there."""
        pieces, ready = [], None
        with self.real:
            for number, block in enumerate(waveform.split(self.BLOCK, dim=-1)):
                self.blocks = number
                if ready == number:
                    self._answer()
                    ready = None
                pieces.append(sum(self.real.push(block).values()))
                if ready is None and self._began():
                    ready = number + takes(number)
            self.model.may.release(3)  # whatever still runs
        return torch.cat(pieces, dim=-1)

    def _began(self):
        """Whether the network has begun with a moment; if not, its thread waits for one."""
        while not self.model.asked.acquire(timeout=0.001):
            if self.real._wanted is None and self.real._change._waiters:
                return False
        return True

    def _answer(self):
        answers = len(self.real._answers)
        self.model.may.release()
        while len(self.real._answers) == answers:
            threading.Event().wait(0.001)


def balanced(length):
    """Noise whose mean is 0 in each pair of samples, so that its level needs no mean."""
    half = noise(length // 2)
    return torch.stack([half, -half], dim=-1).flatten(1)


def test_a_network_in_time_gives_the_same_as_without_a_thread(monkeypatch):
    waveform, timing = balanced(400), Timing(0.02, 0.01, 0.006, compute=0.02)
    player = Player(monkeypatch, timing)
    mix = player.play(waveform, lambda block: 4)
    delay = player.live.delay
    torch.testing.assert_close(mix[:, delay:], -waveform[:, :-delay], rtol=1e-3, atol=1e-5)
    assert (player.real.late, player.live.passed) == (0, 0)


def test_where_the_network_is_late_the_mixture_goes_out_without_clicks(monkeypatch):
    """Of a tone that goes up and down with every sample, the loudness never jumps."""
    tone = torch.ones(2, 600)
    tone[:, 1::2] = -1
    player = Player(monkeypatch, Timing(0.02, 0.01, 0.01, compute=0.02))
    mix = player.play(tone, lambda block: 30 if 40 <= block < 44 else 2)
    delay = player.live.delay
    loudness = (mix[:, delay:] * tone[:, : -delay or None])[0]
    assert player.real.late == 2  # moments that nobody could begin were replaced by newer ones
    assert 80 < player.live.passed < 160
    assert loudness.min() == pytest.approx(-1, abs=0.02)
    assert loudness.max() == pytest.approx(1, abs=0.02)
    assert loudness.diff().abs().max() < 0.21  # from -1 to 1 in ten samples
    assert loudness[-50:].max() < -0.9  # the network is heard again


def test_a_network_that_is_always_late_gets_more_time(monkeypatch):
    changes = []
    player = Player(monkeypatch, Timing(0.02, 0.01, 0.006), changes.append)
    waveform = balanced(900)
    mix = player.play(waveform, lambda block: 3)
    assert changes == [Timing(0.02, 0.01, 0.006, compute=pytest.approx(1.2 * 0.015))]
    assert player.live.delay == 36 + 18
    assert player.real.late >= realtime.IN_A_ROW
    assert len(mix[0]) == 900
    expected = -waveform[:, 300 - 54 : -54]
    torch.testing.assert_close(mix[:, 300:], expected, rtol=1e-3, atol=1e-5)


def test_a_network_that_takes_longer_than_a_hop_is_run_less_often(monkeypatch):
    changes = []
    player = Player(monkeypatch, TIMING, changes.append)
    player.play(balanced(1200), lambda block: 7)
    assert changes[-1].hop == pytest.approx(0.035 / realtime.LOAD)
    passed = player.live.passed
    assert passed < 400  # until then


def test_the_hop_grows_no_longer_than_the_segment(monkeypatch):
    changes = []
    player = Player(monkeypatch, TIMING, changes.append)
    player.play(balanced(2500), lambda block: 40)
    assert {round(change.hop, 3) for change in changes} == {0.085}


def test_the_network_s_failure_is_told(identity, monkeypatch):
    def broken(window):
        raise SeparationError("no answer")

    separator = Separator(identity)
    monkeypatch.setattr(separator, "answer", broken)
    real = RealTimeSeparator(LiveSeparator(separator, TIMING))
    with pytest.raises(SeparationError, match="no answer"), real:  # noqa: PT012
        for _ in range(1000):
            real.push(torch.zeros(2, 20))
            threading.Event().wait(0.01)


def test_real_time_separation_happens_in_one_with_block(identity):
    real = RealTimeSeparator(LiveSeparator(Separator(identity), TIMING))
    with pytest.raises(SeparationError, match="inside one `with` block"):
        real.push(torch.zeros(2, 20))
    with real:
        real.push(torch.zeros(2, 20))
    with pytest.raises(SeparationError, match="inside one `with` block"):
        real.push(torch.zeros(2, 20))
    with pytest.raises(SeparationError, match="inside one `with` block"):
        real.__enter__()
