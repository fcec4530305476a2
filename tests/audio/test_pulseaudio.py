"""The connections of this process to PulseAudio, with a `pactl` of this test's own."""

import os
import sys
import threading

import pytest

from helpers import FakeCard
from htdemucs import AudioError
from htdemucs.audio import SoundCard

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no PulseAudio")
OTHER = f"{os.getpid()}0"  # another process, which is not watched
PACTL = """#!/bin/sh
cd "$(dirname "$0")"
case $1 in
list) exec cat listing ;;
subscribe) exec cat events ;;
esac
"""


def listing(*, sinks=("music", "mix"), source="music", sink="mix"):
    """Return the output of `pactl list`, as PulseAudio and PipeWire print it."""
    texts = ['Module #0\n\tName: module-null-sink\n\tProperties:\n\t\tmodule.version = "16"']
    for number, name in enumerate(sinks):
        texts.append(f"Sink #{number}\n\tState: RUNNING\n\tName: {name}\n\tDescription: Größe")
        texts.append(
            f"Source #{number}\n\tName: {name}.monitor\n\tMonitor of Sink: {name}\n\tFlags: LATENCY"
        )
    streams = [(os.getpid(), source, sink), (OTHER, "mix", "music")]
    for client, (process, recorded, played) in enumerate(streams):
        texts.append(f'Client #{client}\n\tProperties:\n\t\tapplication.process.id = "{process}"')
        for kind, device, name in (
            ("Sink Input", "Sink", played),
            ("Source Output", "Source", recorded),
        ):
            if name in sinks:
                number = sinks.index(name)
                texts.append(
                    f"{kind} #{client}\n\tClient: {client}\n\t{device}: {number}\n\tMute: no"
                )
    return "\n\n".join(texts) + "\n"


class Server:
    def __init__(self, folder):
        self._folder = folder
        self._events = None
        pactl = folder / "pactl"
        pactl.write_text(PACTL)
        pactl.chmod(0o755)
        os.mkfifo(folder / "events")
        self.change(listing())

    def change(self, text, event=None):
        (self._folder / "new").write_text(text)
        (self._folder / "new").replace(self._folder / "listing")
        if event:
            self._events = self._events or (self._folder / "events").open("w")
            self._events.write(f"Event '{event}\n")
            self._events.flush()

    def close(self):
        if self._events:
            self._events.close()


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sounddevice", FakeCard())
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    server = Server(tmp_path)
    yield server
    server.close()


def play(card):
    """Play until there is an error."""
    for _ in range(6000):
        if (block := card.read()) is not None:
            card.write(block)
        threading.Event().wait(0.01)


def test_the_devices_behind_portaudios_are_named(server):
    with SoundCard("Both", "Speakers", 44_100) as card:
        assert card.names == ("Both (music.monitor)", "Speakers (mix)")


@pytest.mark.parametrize(
    ("after", "event", "line"),
    [
        ({"sinks": ("mix",), "source": "mix"}, "remove' on source #0", "input music.monitor has g"),
        ({"sinks": ("music",), "sink": "music"}, "remove' on sink #1", "the output mix has gone"),
        ({"source": "mix"}, "change' on source-output #0", "input mix.monitor is the monitor of"),
        ({"sink": "music"}, "change' on sink-input #0", "the monitor of the output music"),
    ],
)
def test_a_device_that_goes_or_is_heard_again_ends_it(server, after, event, line):
    with SoundCard("Both", "Speakers", 44_100) as card:
        server.change(listing(**after), event)
        with pytest.raises(AudioError, match=line):
            play(card)


def test_other_changes_are_nothing(server):
    """A stream is away after an underrun; the user may choose another output, which counts then."""
    sinks = ("music", "mix", "phones")
    with SoundCard("Both", "Speakers", 44_100) as card:
        server.change(listing(sink=None), "remove' on sink-input #0")
        server.change(listing(sinks=sinks), "new' on sink #2")
        server.change(listing(sinks=sinks, sink="phones"), "change' on sink-input #0")
        while card._monitor.connections.sinks != {"phones"}:
            threading.Event().wait(0.01)
        card.write(read(card))
        server.change(listing(sinks=sinks[:2], sink=None), "remove' on sink #2")
        with pytest.raises(AudioError, match="the output phones has gone"):
            play(card)


def read(card):
    while (block := card.read()) is None:
        pass
    return block


def test_feedback_is_refused_at_once(server):
    server.change(listing(source="mix"))
    with pytest.raises(AudioError, match=r"mix.monitor is the monitor of the output mix.*\(feedba"):
        SoundCard("Both", "Speakers", 44_100)


@pytest.mark.parametrize("answer", ["Connection failure", "exit"])
def test_without_a_server_nothing_is_watched(server, tmp_path, answer):
    if answer == "exit":
        (tmp_path / "pactl").write_text("#!/bin/sh\nexit 1\n")
    else:
        server.change(answer)
    with SoundCard("Both", "Speakers", 44_100) as card:
        assert card.names == ("Both", "Speakers")
        card.write(read(card))
