"""Sound cards, with a PortAudio of this test's own."""

import sys

import pytest
import torch

from htdemucs import AudioError
from htdemucs.audio import SoundCard, list_devices


def test_the_devices_are_listed_with_their_system(portaudio):
    names = {device.name: device for device in list_devices()}
    assert list(names) == ["Microphone, ALSA", "Speakers, ALSA", "Both, ALSA"]
    assert names["Microphone, ALSA"].default_for == ("input",)
    assert (names["Both, ALSA"].inputs, names["Both, ALSA"].outputs) == (2, 8)


def next_block(card):
    while (block := card.read()) is None:
        pass
    return block


def test_what_is_read_is_written_at_the_rate_that_is_asked_for(portaudio):
    with SoundCard("both", "Speakers", 44_100) as card:
        assert (card.sample_rate, card.channels, card.block_length) == (44_100, 2, 882)
        assert card.names == ("Both", "Speakers")
        block = next_block(card)
        card.write(block)
        assert card.latency == pytest.approx(0.02 + 0.08)
        assert card.buffered_seconds() == pytest.approx(0.02 + 0.08)
    played = portaudio.played()
    filled = played.shape[1] - 882  # the output is full of silence at first
    assert not played[:, :filled].any()
    assert torch.equal(played[:, filled:], block)
    assert torch.equal(portaudio.recorded()[:, -882:], block)
    assert portaudio.closed == 2
    assert card.dropouts == 0


@pytest.mark.parametrize("stopped", ["input", "output"])
def test_nothing_waits_for_a_device(portaudio, stopped):
    """So the thread that uses the card can always end, and close it."""
    with SoundCard("Both", "Speakers", 44_100) as card:
        card.write(next_block(card))
        portaudio.stopped = {stopped}
        while card.pending_device != stopped:
            if (block := card.read()) is not None:
                card.write(block)
        assert [card.read() for _ in range(10)] == [None] * 10
        assert card.pending_device == stopped
        assert card.dropouts == 0


def test_nothing_stays_in_the_input(portaudio):
    """PulseAudio's library locks up when its server ends while samples of a packet are left."""
    with SoundCard("Both", "Speakers", 44_100) as card:
        portaudio.pass_time(1000)  # more than a block
        card.write(next_block(card))
        assert portaudio.streams[0].waiting == 0
        assert card.buffered_seconds() > 0.02 + 118 / 44_100  # but they are not lost


@pytest.mark.parametrize("cause", ["this program stood still", "the device lost input"])
def test_after_a_dropout_the_output_is_full_again_and_nothing_is_late(portaudio, cause):
    """Otherwise it would run dry again at once, or the sound would be late for ever."""
    with SoundCard("Both", "Speakers", 44_100) as card:
        for _ in range(3):
            card.write(next_block(card))
        if cause == "the device lost input":
            portaudio.lost = True
        else:
            portaudio.pass_time(8000)  # more than the output holds
        for _ in range(20):
            card.write(next_block(card))
            assert card.buffered_seconds() == pytest.approx(0.02 + 0.08, abs=0.001)
        assert card.dropouts == 1


def test_input_that_is_late_is_dropped_where_the_output_stood_still(portaudio):
    with SoundCard("Both", "Speakers", 44_100) as card:
        card.write(next_block(card))
        portaudio.streams[0].waiting += 20_000  # more than its buffer, as PulseAudio keeps it
        portaudio.pass_time(882)
        card.write(next_block(card))
        assert card.buffered_seconds() < 0.11
        assert card.dropouts == 1


def test_mono_devices_and_full_scale(portaudio):
    portaudio.infos[0]["max_input_channels"] = portaudio.infos[1]["max_output_channels"] = 1
    with SoundCard(None, None, 44_100) as card:
        assert next_block(card).shape == (1, 882)
        card.write(torch.tensor([[3.0, 0.2], [3.0, 0.4]]))
    assert portaudio.played()[:, -2:].tolist() == [[1.0, pytest.approx(0.3)]]


def test_another_rate_where_the_devices_want_it(portaudio):
    portaudio.rates = {48_000}
    assert SoundCard("Both", "Both", 44_100).sample_rate == 48_000
    portaudio.rates = set()
    with pytest.raises(AudioError, match="no sample rate in common, of 44100, 48000 Hz"):
        SoundCard("Both", "Both", 44_100)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("Nothing", None), "no input device 'Nothing'; see the list of devices"),
        (("o", None), "several input devices are called 'o'"),
        ((None, "Micro"), "no output device 'Micro'"),
    ],
)
def test_what_is_no_device_is_said(portaudio, names, words):
    with pytest.raises(AudioError, match=words):
        SoundCard(*names, 44_100)


def test_without_any_device(portaudio):
    portaudio.infos.clear()
    with pytest.raises(AudioError, match="there is no default input device"):
        SoundCard(None, None, 44_100)


def test_a_device_that_goes_is_said_in_a_line(portaudio):
    with SoundCard("Both", "Speakers", 44_100) as card:
        portaudio.gone = True
        with pytest.raises(AudioError, match=r"the input Both does not work, or has gone \(Gone\)"):
            card.read()
        with pytest.raises(AudioError, match="the output Speakers does not work"):
            card.write(torch.zeros(2, 5))


def test_without_portaudio_the_remedy_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(AudioError, match=r"pip install '\.\[live\]'"):
        list_devices()

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice")
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(AudioError, match="the PortAudio library is missing; install"):
        list_devices()
