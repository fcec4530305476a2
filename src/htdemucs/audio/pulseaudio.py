"""The devices to which PulseAudio or PipeWire connects this process.

PortAudio sees one device, such as `pulse`. When the real device is disconnected, the server moves
the streams of this process to another one without an error, for a recording even to the monitor of
its own output.
"""

import os
import re
import subprocess
import threading
from collections import defaultdict
from dataclasses import dataclass

_TIMEOUT = 5.0  # seconds for `pactl list`
_DEVICE_EVENT = re.compile(r" on (sink|source)")  # also matches sink inputs and source outputs
_ENGLISH = {"LC_ALL": "C"}


@dataclass(frozen=True)
class Connections:
    """The devices that this process records from and plays to.

    Attributes:
        sources: names of the recorded sources; for each, the name of the sink that it monitors, or
            "n/a".
        sinks: names of the sinks that are played to.
        devices: names of all sources and sinks of the server.
    """

    sources: dict[str, str]
    sinks: frozenset[str]
    devices: frozenset[str]

    @property
    def feedback_error(self) -> str | None:
        """An error message if this process records what it plays."""
        for source, sink in self.sources.items():
            if sink in self.sinks:
                return (
                    f"the input {source} is the monitor of the output {sink}, so the output would "
                    "be recorded again (feedback); choose another input or output, for instance "
                    "with PULSE_SOURCE or PULSE_SINK"
                )
        return None

    def disconnected_error(self, devices: frozenset[str]) -> str | None:
        """Return an error message if one of the connected devices is not among `devices`."""
        for kind, names in (("input", self.sources), ("output", self.sinks)):
            for name in sorted(set(names) - devices):
                return f"the {kind} {name} has gone; start again when it is back, or with another"
        return None


def connections() -> Connections | None:
    """Return the connections of this process, or None without a server or without `pactl`."""
    try:
        listing = subprocess.run(
            ["pactl", "list"], env=os.environ | _ENGLISH, stdin=subprocess.DEVNULL,
            capture_output=True, timeout=_TIMEOUT, check=True,
        ).stdout.decode(errors="replace")  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return _parse(listing, os.getpid())


def _parse(listing: str, process: int) -> Connections:
    """Return the connections of a process in the output of `pactl list`."""
    objects: dict[str, dict[str, str]] = defaultdict(dict)  # kind -> number -> properties
    for text in listing.split("\n\n"):
        head, _, body = text.partition("\n")
        kind, _, number = head.partition(" #")
        objects[kind][number] = f"{body}\n"

    def field(body: str, name: str) -> str:
        found = re.search(rf"^\t{name}: (.*)$", body, re.MULTILINE)
        return found[1] if found else ""

    mine = f'\tapplication.process.id = "{process}"\n'  # streams of PipeWire do not have it
    clients = {number for number, body in objects["Client"].items() if mine in body}

    def connected(stream: str, device: str) -> list[str]:
        streams = [body for body in objects[stream].values() if field(body, "Client") in clients]
        numbers = {field(body, device) for body in streams}
        return [body for number, body in objects[device].items() if number in numbers]

    sources, sinks = connected("Source Output", "Source"), connected("Sink Input", "Sink")
    return Connections(
        {field(body, "Name"): field(body, "Monitor of Sink") for body in sources},
        frozenset(field(body, "Name") for body in sinks),
        frozenset(
            field(body, "Name") for kind in ("Source", "Sink") for body in objects[kind].values()
        ),
    )


class ConnectionMonitor:
    """Checks the connections of this process whenever the server reports a change.

    Without a server it does nothing.

    Attributes:
        connections: at the latest check; None without a server.
        error: an error message once a device is disconnected or the output is recorded, else None.
    """

    def __init__(self) -> None:
        self.connections = connections()
        self.error = self.connections.feedback_error if self.connections else None
        self._events: subprocess.Popen[bytes] | None = None
        if self.connections:
            self._events = subprocess.Popen(
                ["pactl", "subscribe"], env=os.environ | _ENGLISH, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            threading.Thread(target=self._follow, args=(self._events,), daemon=True).start()

    def _follow(self, events: "subprocess.Popen[bytes]") -> None:
        assert events.stdout is not None
        with events:
            while text := os.read(events.stdout.fileno(), 1 << 16).decode():
                if _DEVICE_EVENT.search(text) and (current := connections()):
                    self._check(current)

    def _check(self, current: Connections) -> None:
        previous = self.connections
        assert previous is not None
        disconnected = previous.disconnected_error(current.devices)
        self.error = self.error or disconnected or current.feedback_error
        # After an underrun a stream is missing until PortAudio has opened it again.
        sources, sinks = current.sources or previous.sources, current.sinks or previous.sinks
        self.connections = Connections(sources, sinks, current.devices)

    def stop(self) -> None:
        """Stop following the server's events."""
        if self._events:
            self._events.terminate()
