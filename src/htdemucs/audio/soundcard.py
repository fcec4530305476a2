"""Sound cards, through PortAudio: blocks come from one device and go to another."""

import atexit
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from htdemucs.audio.pulseaudio import Watch
from htdemucs.errors import AudioError

Kind = Literal["input", "output"]
SECONDS = 0.02  # of a block
EMPTY = 0.001  # seconds: an output that holds less has run dry; PulseAudio never says 0
# Seconds that a device's buffer holds. That of the output is full at first, and so a part of the
# delay; that of the input is empty, and only holds what comes while this program has to wait.
BUFFERS: dict[Kind, float] = {"input": 0.3, "output": 0.08}


@dataclass(frozen=True)
class Device:
    """A device that sound comes from or goes to.

    Attributes:
        name: its own and that of the system's interface to it, such as "Speakers, Windows WASAPI".
        inputs, outputs: channels.
        sample_rate: Hz, its usual one.
        defaults: of what it is the default.
    """

    name: str
    inputs: int
    outputs: int
    sample_rate: int
    defaults: tuple[Kind, ...]


def devices() -> list[Device]:
    """Return the devices of this machine.

    Raises:
        AudioError: PortAudio or its Python package is missing.
    """
    card = _portaudio()
    hosts = [host["name"] for host in card.query_hostapis()]
    defaults: dict[Kind, int] = {"input": card.default.device[0], "output": card.default.device[1]}
    return [
        Device(
            f"{info['name']}, {hosts[info['hostapi']]}",
            info["max_input_channels"],
            info["max_output_channels"],
            round(info["default_samplerate"]),
            tuple(kind for kind, index in defaults.items() if index == number),
        )
        for number, info in enumerate(card.query_devices())
    ]


class SoundCard:
    """An input and an output that run at one sample rate; they may be two devices.

    No method waits for a device, so that a thread that uses one can always end, and then close it:
    a stream that is closed while another thread waits in it takes the process with it.

    Args:
        input, output: parts of a device's name, enough to tell it from others; None: the default.
        sample_rate: Hz, if both can; else one that they can.

    Attributes:
        sample_rate: Hz.
        channels: 1 or 2, of the input.
        names: of the input and the output.
        dropouts: times that input was lost or the output ran dry.
        awaited: the device that keeps `read` from giving a block, or that `write` is in.

    Raises AudioError, here and later, in one line: there is no such device, or it has gone.
    """

    def __init__(self, input: str | None, output: str | None, sample_rate: int) -> None:
        self._card = _portaudio()
        self.dropouts = 0
        infos = [self._find(input, "input"), self._find(output, "output")]
        self.names = tuple(info["name"] for info in infos)
        self.channels = min(2, infos[0]["max_input_channels"])
        self._places = {"input": infos[0]["index"], "output": infos[1]["index"]}
        self._counts = {"input": self.channels, "output": min(2, infos[1]["max_output_channels"])}
        usual = [round(info["default_samplerate"]) for info in infos]
        self.sample_rate = self._common_rate([sample_rate, *usual])
        self.block = round(SECONDS * self.sample_rate)
        self._size = 0  # samples that the output's buffer holds
        self.awaited: Kind = "input"
        self._pending = np.zeros((0, self.channels), np.float32)  # input, from the next block on
        self._lost = False  # input, since the output was last filled
        self._in, self._out = self._open("input"), self._open("output")
        self._watch = Watch()
        self._raise_problem()
        if self._watch.latest:
            behind = self._watch.latest.sources, self._watch.latest.sinks
            self.names = tuple(
                f"{name} ({', '.join(those)})" if those else name
                for name, those in zip(self.names, behind, strict=True)
            )

    def _find(self, name: str | None, kind: Kind) -> Any:
        try:
            return self._card.query_devices(name, kind)
        except (ValueError, self._card.PortAudioError) as error:
            what = f"no {kind} device {name!r}" if name else f"there is no default {kind} device"
            if "Multiple" in str(error):
                what = f"several {kind} devices are called {name!r}"
            raise AudioError(f"{what}; see the list of devices") from error

    def _common_rate(self, rates: list[int]) -> int:
        for rate in rates:
            try:
                for kind in ("input", "output"):
                    check = getattr(self._card, f"check_{kind}_settings")
                    check(samplerate=rate, **self._settings(kind))
            except self._card.PortAudioError:
                continue
            return rate
        tried = ", ".join(map(str, dict.fromkeys(rates)))
        raise AudioError(
            f"{self.names[0]} and {self.names[1]} have no sample rate in common, of {tried} Hz; "
            "set both to the same one in the system's sound settings"
        )

    def _settings(self, kind: str) -> dict[str, Any]:
        return {"device": self._places[kind], "channels": self._counts[kind], "dtype": "float32"}

    def _open(self, kind: Kind) -> Any:
        stream = self._card.InputStream if kind == "input" else self._card.OutputStream
        settings = self._settings(kind) | {"latency": BUFFERS[kind]}
        with self._reporting(kind):
            return stream(samplerate=self.sample_rate, **settings)

    @contextmanager
    def _reporting(self, kind: Kind) -> Iterator[None]:
        try:
            yield
        except self._card.PortAudioError as error:
            name = self.names[0 if kind == "input" else 1]
            raise AudioError(
                f"the {kind} {name} does not work, or has gone ({error.args[0]})"
            ) from error

    def _raise_problem(self) -> None:
        if self._watch.problem:
            self._watch.end()
            raise AudioError(self._watch.problem)

    def __enter__(self) -> Self:
        with self._reporting("input"):
            self._in.start()
        with self._reporting("output"):
            self._out.start()
            self._size = self._out.write_available
        self._fill()
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.end()
        for stream in (self._in, self._out):
            stream.abort(ignore_errors=True)
            stream.close(ignore_errors=True)

    def abandon(self) -> None:
        """Leave the devices to the end of the process: a call of the system's never returned."""
        self._watch.end()
        atexit.unregister(self._card._exit_handler)  # PortAudio's ending would wait for it, too

    @property
    def delay(self) -> float:
        """Seconds that samples are in a block, and in the output's buffer as it says itself."""
        return float(self._out.latency + self.block / self.sample_rate)

    def waiting(self) -> float:
        """Return the seconds that samples are in a block and in the buffers now."""
        with self._reporting("output"):
            held = self._size - self._out.write_available
        with self._reporting("input"):
            held += self._in.read_available
        return float(self.block + len(self._pending) + held) / self.sample_rate

    def read(self) -> Tensor | None:
        """Return the next block (C, `block`), or None until it and room for another are there."""
        self._raise_problem()
        # All of it: PulseAudio locks up when a server ends that has given half of its samples.
        with self._reporting("input"):
            samples, lost = self._in.read(self._in.read_available)
        self._lost |= bool(lost)
        self._pending = np.concatenate([self._pending, samples])
        if len(self._pending) < self.block:
            self.awaited = "input"
            return None
        with self._reporting("output"):
            room = self._out.write_available
        if room < self.block:
            self.awaited = "output"
            return None
        late = len(self._pending) > BUFFERS["input"] * self.sample_rate
        if self._lost or late or self._size - room < EMPTY * self.sample_rate:
            self._start_over()
            return None
        block, self._pending = self._pending[: self.block], self._pending[self.block :]
        return torch.from_numpy(np.ascontiguousarray(block.T))

    def write(self, block: Tensor) -> None:
        """(C, L), for which `read` has found room; 1 or 2 channels; full scale limits it."""
        count = self._counts["output"]
        if count == 1:
            block = block.mean(0, keepdim=True)
        samples = block.expand(count, -1).clamp(-1, 1).numpy().T
        self.awaited = "output"
        with self._reporting("output"):
            ran_dry = self._out.write(np.ascontiguousarray(samples))
        if ran_dry:
            self._start_over()

    def _start_over(self) -> None:
        """After a dropout, begin again as at first; else the next one would follow at once."""
        self.dropouts += 1
        self._fill()

    def _fill(self) -> None:
        """Fill the output with silence, and drop input, which would be late for ever."""
        with self._reporting("output"):
            silence = np.zeros((self._out.write_available, self._counts["output"]), np.float32)
            self._out.write(silence)
        with self._reporting("input"):
            count = self.block
            while count >= self.block:  # PulseAudio says at most a buffer, though it has more
                count = self._in.read_available
                self._in.read(count)
        self._pending, self._lost = self._pending[:0], False


def _portaudio() -> ModuleType:
    try:
        import sounddevice
    except ImportError as error:
        raise AudioError(
            "sound cards need the package sounddevice; install htdemucs[live]"
        ) from error
    except OSError as error:
        remedy = "install libportaudio2" if sys.platform == "linux" else "install PortAudio"
        raise AudioError(f"the PortAudio library is missing; {remedy}") from error
    return sounddevice
