"""Sound cards, through PortAudio: blocks come from one device and go to another."""

import atexit
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from htdemucs.errors import AudioError

Kind = Literal["input", "output"]
SECONDS = 0.02  # of a block
CLOSING = 1.0  # seconds that a device may take to end
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

    Args:
        input, output: parts of a device's name, enough to tell it from others; None: the default.
        sample_rate: Hz, if both can; else one that they can.

    Attributes:
        sample_rate: Hz.
        channels: 1 or 2, of the input.
        names: of the input and the output.
        dropouts: blocks before which input was lost or the output ran empty.

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
        self._in, self._out = self._open("input"), self._open("output")

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

    def __enter__(self) -> Self:
        """Start with as much silence as the output holds, so that it does not run empty."""
        with self._reporting("input"):
            self._in.start()
        with self._reporting("output"):
            self._out.start()
            self._size = self._out.write_available
            self._out.write(np.zeros((self._size, self._counts["output"]), np.float32))
        with self._reporting("input"):
            self._in.read(self._in.read_available)  # what came meanwhile would always be late
        return self

    def __exit__(self, *_: object) -> None:
        # Where a device has gone, some systems never return from this, nor would PortAudio's own
        # ending when the process ends.
        closing = threading.Thread(target=self._close, daemon=True)
        closing.start()
        closing.join(CLOSING)
        if closing.is_alive():
            atexit.unregister(self._card._exit_handler)

    def _close(self) -> None:
        for stream in (self._in, self._out):
            stream.abort(ignore_errors=True)
            stream.close(ignore_errors=True)

    @property
    def delay(self) -> float:
        """Seconds that samples are in a block, and in the output's buffer as it says itself."""
        return float(self._out.latency + self.block / self.sample_rate)

    def waiting(self) -> float:
        """Return the seconds that samples are in a block and in the buffers now."""
        with self._reporting("output"):
            held = self._size - self._out.write_available + self._in.read_available
        return float(self.block + held) / self.sample_rate

    def read(self) -> Tensor:
        """Wait for the next block (C, `block`)."""
        with self._reporting("input"):
            samples, lost = self._in.read(self.block)
        self.dropouts += bool(lost)
        return torch.from_numpy(np.ascontiguousarray(samples.T))

    def write(self, block: Tensor) -> None:
        """(C, L), with 1 or 2 channels; full scale limits what is louder."""
        count = self._counts["output"]
        if count == 1:
            block = block.mean(0, keepdim=True)
        samples = block.expand(count, -1).clamp(-1, 1).numpy().T
        with self._reporting("output"):
            self.dropouts += bool(self._out.write(np.ascontiguousarray(samples)))


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
