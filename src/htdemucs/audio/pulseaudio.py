"""Which devices PulseAudio, or PipeWire in its place, connects this process to.

PortAudio sees one device, such as `pulse`. When a device behind it goes, the server silently moves
the streams of this process to another one: a recording even to the monitor of its own output.
"""

import os
import re
import subprocess
import threading
from collections import defaultdict
from dataclasses import dataclass

TIMEOUT = 5.0  # seconds for `pactl list`
EVENT = re.compile(r" on (sink|source)")  # also matches sink inputs and source outputs
ENGLISH = {"LC_ALL": "C"}


@dataclass(frozen=True)
class Connections:
    """What this process records from and plays into.

    Attributes:
        sources: names of the sources that are recorded; for each, the name of the sink that it
            monitors, or "n/a".
        sinks: names of the sinks that are played into.
        devices: names of all sources and sinks of the server.
    """

    sources: dict[str, str]
    sinks: frozenset[str]
    devices: frozenset[str]

    @property
    def feedback(self) -> str | None:
        """Return an error message if this process records what it plays."""
        for source, sink in self.sources.items():
            if sink in self.sinks:
                return (
                    f"the input {source} is the monitor of the output {sink}, so the output would "
                    "be recorded again (feedback); choose another input or output, for instance "
                    "with PULSE_SOURCE or PULSE_SINK"
                )
        return None

    def gone(self, now: "Connections") -> str | None:
        """Return an error message if a device of these connections does not exist `now`."""
        for kind, names in (("input", self.sources), ("output", self.sinks)):
            for name in sorted(set(names) - now.devices):
                return f"the {kind} {name} has gone; start again when it is back, or with another"
        return None


def connections() -> Connections | None:
    """Return the connections of this process, or None if no server or no `pactl` answers."""
    try:
        listing = subprocess.run(
            ["pactl", "list"], env=os.environ | ENGLISH, stdin=subprocess.DEVNULL,
            capture_output=True, timeout=TIMEOUT, check=True,
        ).stdout.decode(errors="replace")  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return parse(listing, os.getpid())


def parse(listing: str, process: int) -> Connections:
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


class Watch:
    """Checks the connections of this process whenever the server reports a change.

    Without a server it does nothing.

    Attributes:
        latest: the connections at the latest check; None without a server.
        problem: an error message once a device has gone or the output is recorded, else None.
    """

    def __init__(self) -> None:
        self.latest = connections()
        self.problem = self.latest.feedback if self.latest else None
        self._events: subprocess.Popen[bytes] | None = None
        if self.latest:
            self._events = subprocess.Popen(
                ["pactl", "subscribe"], env=os.environ | ENGLISH, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            threading.Thread(target=self._watch, args=(self._events,), daemon=True).start()

    def _watch(self, events: "subprocess.Popen[bytes]") -> None:
        assert events.stdout is not None
        with events:
            while text := os.read(events.stdout.fileno(), 1 << 16).decode():
                if EVENT.search(text) and (now := connections()):
                    self._check(now)

    def _check(self, now: Connections) -> None:
        assert self.latest is not None
        self.problem = self.problem or self.latest.gone(now) or now.feedback
        # After an underrun a stream is missing until PortAudio has opened it again.
        sources, sinks = now.sources or self.latest.sources, now.sinks or self.latest.sinks
        self.latest = Connections(sources, sinks, now.devices)

    def end(self) -> None:
        """Stop watching."""
        if self._events:
            self._events.terminate()
