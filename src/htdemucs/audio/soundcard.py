"""Sound cards through PortAudio: blocks are recorded from one device and played on another."""

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

from htdemucs.audio.pulseaudio import ConnectionMonitor
from htdemucs.errors import AudioError

Kind = Literal["input", "output"]
BLOCK_SECONDS = 0.02
UNDERRUN_SECONDS = 0.001  # an output with less than this has run dry; PulseAudio never reports 0
# Seconds that a device's buffer holds. The output starts full, so its buffer adds to the latency.
# The input starts empty; its buffer holds what arrives while this program is busy.
BUFFER_SECONDS: dict[Kind, float] = {"input": 0.3, "output": 0.08}


@dataclass(frozen=True)
class Device:
    """An audio device of this machine.

    Attributes:
        name: of the device and of its driver interface, such as "Speakers, Windows WASAPI".
        inputs, outputs: channels.
        sample_rate: the default one in Hz.
        default_for: whether it is the default input, output or both.
    """

    name: str
    inputs: int
    outputs: int
    sample_rate: int
    default_for: tuple[Kind, ...]


def list_devices() -> list[Device]:
    """Return the devices of this machine.

    Raises:
        AudioError: PortAudio or its Python package is missing.
    """
    portaudio = _portaudio()
    hosts = [host["name"] for host in portaudio.query_hostapis()]
    default_input, default_output = portaudio.default.device
    defaults: dict[Kind, int] = {"input": default_input, "output": default_output}
    return [
        Device(
            f"{info['name']}, {hosts[info['hostapi']]}",
            info["max_input_channels"],
            info["max_output_channels"],
            round(info["default_samplerate"]),
            tuple(kind for kind, index in defaults.items() if index == number),
        )
        for number, info in enumerate(portaudio.query_devices())
    ]


class SoundCard:
    """An input and an output at the same sample rate; they may be two devices.

    No method blocks, so a thread that uses the card can always return and then close it. Closing
    a stream while another thread blocks in it crashes the process.

    Args:
        input, output: part of a device's name that no other device has; None for the default.
        sample_rate: Hz; another rate is used if one of the devices does not support it.

    Attributes:
        sample_rate: Hz.
        channels: 1 or 2, of the input.
        names: of the input and the output.
        block_length: samples in a block.
        dropouts: how often input was lost or the output ran dry.
        pending_device: the device for which `read` returned None, or which `write` is using.

    Raises AudioError, here and later, if a device does not exist or has been disconnected.
    """

    def __init__(self, input: str | None, output: str | None, sample_rate: int) -> None:
        self._portaudio = _portaudio()
        self.dropouts = 0
        infos = [self._find(input, "input"), self._find(output, "output")]
        self.names = tuple(info["name"] for info in infos)
        self.channels = min(2, infos[0]["max_input_channels"])
        self._indices = {"input": infos[0]["index"], "output": infos[1]["index"]}
        self._output_channels = min(2, infos[1]["max_output_channels"])
        default_rates = [round(info["default_samplerate"]) for info in infos]
        self.sample_rate = self._common_rate([sample_rate, *default_rates])
        self.block_length = round(BLOCK_SECONDS * self.sample_rate)
        self._output_size = 0  # samples that the output's buffer holds
        self.pending_device: Kind = "input"
        self._recorded = np.zeros((0, self.channels), np.float32)  # not yet returned by `read`
        self._overflowed = False  # whether input was lost since the output was last filled
        self._in, self._out = self._open("input"), self._open("output")
        self._monitor = ConnectionMonitor()
        self._raise_monitor_error()
        if self._monitor.connections:
            connected = self._monitor.connections.sources, self._monitor.connections.sinks
            self.names = tuple(
                f"{name} ({', '.join(devices)})" if devices else name
                for name, devices in zip(self.names, connected, strict=True)
            )

    def _find(self, name: str | None, kind: Kind) -> Any:
        try:
            return self._portaudio.query_devices(name, kind)
        except (ValueError, self._portaudio.PortAudioError) as error:
            problem = f"no {kind} device {name!r}" if name else f"there is no default {kind} device"
            if "Multiple" in str(error):
                problem = f"several {kind} devices are called {name!r}"
            raise AudioError(f"{problem}; see the list of devices") from error

    def _common_rate(self, rates: list[int]) -> int:
        for rate in rates:
            try:
                for kind in ("input", "output"):
                    check = getattr(self._portaudio, f"check_{kind}_settings")
                    check(samplerate=rate, **self._settings(kind))
            except self._portaudio.PortAudioError:
                continue
            return rate
        tried = ", ".join(map(str, dict.fromkeys(rates)))
        raise AudioError(
            f"{self.names[0]} and {self.names[1]} have no sample rate in common, of {tried} Hz; "
            "set both to the same one in the system's sound settings"
        )

    def _settings(self, kind: str) -> dict[str, Any]:
        channels = self.channels if kind == "input" else self._output_channels
        return {"device": self._indices[kind], "channels": channels, "dtype": "float32"}

    def _open(self, kind: Kind) -> Any:
        stream = self._portaudio.InputStream if kind == "input" else self._portaudio.OutputStream
        settings = self._settings(kind) | {"latency": BUFFER_SECONDS[kind]}
        with self._audio_errors(kind):
            return stream(samplerate=self.sample_rate, **settings)

    @contextmanager
    def _audio_errors(self, kind: Kind) -> Iterator[None]:
        try:
            yield
        except self._portaudio.PortAudioError as error:
            name = self.names[0 if kind == "input" else 1]
            raise AudioError(
                f"the {kind} {name} does not work, or has gone ({error.args[0]})"
            ) from error

    def _raise_monitor_error(self) -> None:
        if self._monitor.error:
            self._monitor.stop()
            raise AudioError(self._monitor.error)

    def __enter__(self) -> Self:
        with self._audio_errors("input"):
            self._in.start()
        with self._audio_errors("output"):
            self._out.start()
            self._output_size = self._out.write_available
        self._fill()
        return self

    def __exit__(self, *_: object) -> None:
        self._monitor.stop()
        for stream in (self._in, self._out):
            stream.abort(ignore_errors=True)
            stream.close(ignore_errors=True)

    def abandon(self) -> None:
        """Leave the devices open until the process ends, because a system call never returned."""
        self._monitor.stop()
        atexit.unregister(self._portaudio._exit_handler)  # PortAudio's exit handler would hang too

    @property
    def latency(self) -> float:
        """Seconds of a block and of the output's buffer, as the driver declares it."""
        return float(self._out.latency + self.block_length / self.sample_rate)

    def buffered_seconds(self) -> float:
        """Return the seconds of a block and of what is in the buffers now."""
        with self._audio_errors("output"):
            buffered = self._output_size - self._out.write_available
        with self._audio_errors("input"):
            buffered += self._in.read_available
        return float(self.block_length + len(self._recorded) + buffered) / self.sample_rate

    def read(self) -> Tensor | None:
        """Return a block (C, `block_length`); None if it is incomplete or the output is full."""
        self._raise_monitor_error()
        # All of it: PulseAudio deadlocks if its server exits while samples of a packet remain.
        with self._audio_errors("input"):
            samples, overflowed = self._in.read(self._in.read_available)
        self._overflowed |= bool(overflowed)
        self._recorded = np.concatenate([self._recorded, samples])
        if len(self._recorded) < self.block_length:
            self.pending_device = "input"
            return None
        with self._audio_errors("output"):
            available = self._out.write_available
        if available < self.block_length:
            self.pending_device = "output"
            return None
        is_late = len(self._recorded) > BUFFER_SECONDS["input"] * self.sample_rate
        underrun = self._output_size - available < UNDERRUN_SECONDS * self.sample_rate
        if self._overflowed or is_late or underrun:
            self._restart()
            return None
        block = self._recorded[: self.block_length]
        self._recorded = self._recorded[self.block_length :]
        return torch.from_numpy(np.ascontiguousarray(block.T))

    def write(self, block: Tensor) -> None:
        """Play (C, L), 1 or 2 channels, clipped to full scale; only after `read` gave a block."""
        if self._output_channels == 1:
            block = block.mean(0, keepdim=True)
        samples = block.expand(self._output_channels, -1).clamp(-1, 1).numpy().T
        self.pending_device = "output"
        with self._audio_errors("output"):
            underrun = self._out.write(np.ascontiguousarray(samples))
        if underrun:
            self._restart()

    def _restart(self) -> None:
        """Start with full output after a dropout, or the next one would follow immediately."""
        self.dropouts += 1
        self._fill()

    def _fill(self) -> None:
        """Fill the output with silence and drop input, which would stay late."""
        with self._audio_errors("output"):
            silence = np.zeros((self._out.write_available, self._output_channels), np.float32)
            self._out.write(silence)
        with self._audio_errors("input"):
            count = self.block_length
            while count >= self.block_length:  # PulseAudio reports at most one buffer
                count = self._in.read_available
                self._in.read(count)
        self._recorded, self._overflowed = self._recorded[:0], False


def _portaudio() -> ModuleType:
    try:
        import sounddevice
    except ImportError as error:
        raise AudioError(
            "sound cards need sounddevice; in the repository, run: pip install '.[live]'"
        ) from error
    except OSError as error:
        remedy = "install libportaudio2" if sys.platform == "linux" else "install PortAudio"
        raise AudioError(f"the PortAudio library is missing; {remedy}") from error
    return sounddevice
