"""Sound from a card to a card, with a PortAudio of this test's own and a network that is none."""

import sys
import threading
import time
from fractions import Fraction

import pytest
import torch

from helpers import FakeCard, snr
from htdemucs import AudioError, HTDemucsConfig, LiveSeparator, RealTimeSeparator, Separator, Timing
from htdemucs.audio import SoundCard
from htdemucs.model import Network
from htdemucs.separation import realtime
from htdemucs.stems import live as stems_live
from htdemucs.stems.live import LivePlayer, SameLength
from htdemucs.stems.mixer import Mixer


class Halves(Network):
    """Two stems, each half of the mixture; the mixture that passes through is the same."""

    def __init__(self):
        super().__init__(HTDemucsConfig(("left", "right"), segment=Fraction(1, 10)))
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, mixture):
        return torch.stack([mixture / 2, mixture / 2], dim=1)


@pytest.fixture
def portaudio(monkeypatch):
    monkeypatch.setattr(realtime, "IN_A_ROW", 10**9)  # the card's time flies: all may be late
    fake = FakeCard()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake


def player_of(card):
    live = LiveSeparator(Separator(Halves()), Timing(0.02, 0.01, 0.005, compute=0.02))
    return LivePlayer(RealTimeSeparator(live), Mixer(live.stems), card)


def test_the_mix_is_the_input_after_the_delay_that_is_stated(portaudio):
    with SoundCard("Both", "Both", 44_100) as card:
        player = player_of(card)
        assert player.delay == pytest.approx(0.055 + 0.1, abs=1e-4)
        with player._real:
            player.start()
            while player.heard < 1.5:
                player.check()
                threading.Event().wait(0.01)
            assert player.stop()
            assert player.measured == pytest.approx(0.055 + 0.02 + 100 / 44_100, abs=1e-4)
    played, recorded = portaudio.played(), portaudio.recorded(round(player.heard * 44_100))
    delay = round((player.delay - 0.02) * 44_100)  # the fake waits for no block
    assert not played[:, :delay].any()
    assert snr(recorded[:, : played.shape[1] - delay], played[:, delay:]) > 40  # with two means


def test_a_device_that_gives_nothing_any_more_is_given_up(portaudio, monkeypatch):
    asked, never = threading.Event(), threading.Event()

    def read(count):
        asked.set()
        never.wait(60)
        return None, False

    with SoundCard("Both", "Both", 44_100) as card:
        player = player_of(card)
        monkeypatch.setattr(card._in, "read", read, raising=False)
        player.start()
        asked.wait(60)
        player.check()
        monkeypatch.setattr(stems_live, "SILENT", 0.0)
        time.sleep(0.01)
        with pytest.raises(AudioError, match="no sound has come from Both for 0 s"):
            player.check()
        assert not player.stop()
        never.set()


def test_a_device_that_goes_ends_it_with_a_line(portaudio):
    with SoundCard("Both", "Both", 44_100) as card:
        player = player_of(card)
        portaudio.gone = True
        with player._real:
            player.start()
            player._thread.join(60)
            with pytest.raises(AudioError, match="the input Both does not work, or has gone"):
                player.check()


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
