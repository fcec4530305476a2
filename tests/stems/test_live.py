"""Sound from a card to a card, with a PortAudio of this test's own and a network that is none."""

import threading
from fractions import Fraction

import pytest
import torch

from helpers import snr
from htdemucs import AudioError, HTDemucsConfig, LiveSeparator, RealTimeSeparator, Separator, Timing
from htdemucs.audio import SoundCard
from htdemucs.model import Network
from htdemucs.separation import realtime
from htdemucs.stems import live_player as stems_live
from htdemucs.stems.live_player import LivePlayer, SameLength
from htdemucs.stems.mixer import Mixer


class Halves(Network):
    """Two stems, each half of the mixture; the mixture that passes through is the same."""

    def __init__(self):
        super().__init__(HTDemucsConfig(("left", "right"), segment=Fraction(1, 10)))
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, mixture):
        return torch.stack([mixture / 2, mixture / 2], dim=1)


@pytest.fixture(autouse=True)
def _late(monkeypatch):
    monkeypatch.setattr(realtime, "IN_A_ROW", 10**9)  # the card's time flies: all may be late


def player_of(card):
    live = LiveSeparator(Separator(Halves()), Timing(0.02, 0.01, 0.005, compute=0.02))
    return LivePlayer(RealTimeSeparator(live), Mixer(live.stems), card)


def wait_for(player, condition):
    while not condition():
        player.check()
        threading.Event().wait(0.01)


def test_the_mix_is_the_input_after_the_delay_that_is_stated(portaudio):
    card = SoundCard("Both", "Both", 44_100)
    player = player_of(card)
    assert player.delay == pytest.approx(0.055 + 0.1, abs=1e-4)
    with player._real:
        player.start()
        wait_for(player, lambda: player.heard >= 1.5)
        player.stop()
    assert player.measured == pytest.approx(0.055 + 0.1, abs=1e-3)
    assert portaudio.closed == 2
    played = portaudio.played()
    dropped = portaudio.step  # what comes in before the output is full
    recorded = portaudio.recorded()[:, dropped : dropped + round(player.heard * 44_100)]
    delay = round((player.delay - 0.02) * 44_100)  # the fake waits for no block
    assert not played[:, :delay].any()
    assert snr(recorded[:, : played.shape[1] - delay], played[:, delay:]) > 40  # with two means


@pytest.mark.parametrize(
    ("silent", "line"),
    [
        ("input", "no sound has come from Microphone for 0.01 s"),
        ("output", "Speakers has taken no sound for 0.01 s: it has gone or is suspended"),
    ],
)
def test_a_device_that_stands_still_is_named_and_closed(portaudio, monkeypatch, silent, line):
    player = player_of(SoundCard("Microphone", "Speakers", 44_100))
    with player._real:
        player.start()
        wait_for(player, lambda: player.heard > 0)
        portaudio.stopped = {silent}
        while player._card.pending_device != silent:
            threading.Event().wait(0.01)
        monkeypatch.setattr(stems_live, "SILENT", 0.01)
        with pytest.raises(AudioError, match=line):
            wait_for(player, lambda: False)
        player.stop()
    assert portaudio.closed == 2


def test_a_pause_of_this_process_is_not_a_silent_device(portaudio, monkeypatch):
    """Ctrl-Z and `fg`, say."""
    player = player_of(SoundCard("Both", "Both", 44_100))
    player.check()
    monkeypatch.setattr(stems_live.time, "monotonic", lambda: 1e9)
    player.check()


def test_a_call_that_never_returns_does_not_keep_the_process(portaudio, monkeypatch):
    """Closing the device beside it would end the process with a signal."""
    asked, never = threading.Event(), threading.Event()

    def read(count):
        asked.set()
        never.wait(60)
        return None, False

    monkeypatch.setattr(stems_live, "CLOSING", 0.01)
    unregistered = []
    monkeypatch.setattr("atexit.unregister", unregistered.append)
    card = SoundCard("Both", "Both", 44_100)
    player = player_of(card)
    monkeypatch.setattr(card._in, "read", read, raising=False)
    player.start()
    asked.wait(60)
    player.stop()
    assert portaudio.closed == 0
    assert unregistered == [portaudio._exit_handler]
    never.set()


def test_a_device_that_goes_ends_it_with_a_line(portaudio):
    player = player_of(SoundCard("Microphone", "Speakers", 44_100))
    with player._real:
        player.start()
        wait_for(player, lambda: player.heard > 0)
        portaudio.gone = True
        with pytest.raises(AudioError, match=r"the .* does not work, or has gone \(Gone\)"):
            wait_for(player, lambda: False)
        player.stop()
    assert portaudio.closed == 2


@pytest.mark.parametrize("rate", [48_000, 22_050])
def test_at_another_rate_as_many_samples_go_out_as_come_in(rate):
    """And they come after as much silence as is stated."""
    block = rate // 50
    through = SameLength(lambda x: x, (44_100, rate), 2, block)
    assert 0 < through.lead < 0.1 * rate
    t = torch.arange(2 * rate) / rate
    waveform = 0.5 * torch.sin(2 * torch.pi * 440 * t).expand(2, -1)
    out = torch.cat([through(piece) for piece in waveform.split(block, dim=-1)], dim=-1)
    assert out.shape == waveform.shape
    assert not out[:, : through.lead].any()
    middle = slice(rate // 2, rate)
    assert snr(waveform[:, middle], out[:, through.lead :][:, middle]) > 60


def test_at_the_same_rate_nothing_is_added():
    through = SameLength(lambda x: -x, (44_100, 44_100), 2, 882)
    block = torch.ones(2, 882)
    assert through.lead == 0
    assert torch.equal(through(block), -block)
