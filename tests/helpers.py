"""What tests share: small networks whose every parameter matters, and how to compare."""

from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from htdemucs import AudioEncoding, DemucsConfig, HDemucsConfig, HTDemucsConfig
from htdemucs.audio import AudioWriter
from htdemucs.model import Network

TINY = {
    "channels": 8,
    "depth": 2,
    "n_fft": 512,
    "bottom_channels": 16,
    "t_layers": 2,
    "t_heads": 2,
    "segment": 1,
    "sample_rate": 8000,
}
_OLDER = {
    "channels": 8,
    "depth": 4,
    "norm_starts": 2,
    "dconv_lstm": 2,
    "dconv_attn": 2,
    "segment": 1,
    "sample_rate": 8000,
}
OLDER = {  # the innermost two layers have norms, LSTM and attention
    "HDemucs": HDemucsConfig(n_fft=256, **_OLDER),
    "Demucs": DemucsConfig(**_OLDER),
}
N = TypeVar("N", bound=Network)


def awake(model: N) -> N:
    """Lift the layer scales from their tiny initial values, so that no branch is negligible."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("scale"):
                parameter.uniform_(0.1, 0.5)
    return model


def snr(reference: Tensor, estimate: Tensor) -> float:
    """Decibels by which the reference exceeds the difference; infinite where there is none."""
    noise = (reference.double() - estimate.double()).square().mean()
    return float(10 * torch.log10(reference.double().square().mean() / noise))


class Identity(Network):
    """A model whose sources are the mixture, times 1 and times 2: the engine alone is tested."""

    def __init__(self) -> None:
        segment = Fraction(1, 10)
        super().__init__(HTDemucsConfig(("once", "twice"), sample_rate=1000, segment=segment))
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, mixture: Tensor) -> Tensor:
        return torch.stack([mixture, 2 * mixture], dim=1)


class FakeCard:
    """A `sounddevice` whose devices record noise, and play and keep what is written.

    Its time passes when nothing waits to be read: then `step` more samples come in and go out.
    """

    class PortAudioError(Exception):
        pass

    def __init__(self) -> None:
        self.rates, self.step = {44_100, 48_000}, 0
        self.gone, self.lost, self.closed = False, False, 0
        self.stopped: set[str] = set()  # of "input" and "output": nothing comes in or goes out
        self.output: list[np.ndarray] = []
        self._noise = np.random.default_rng(1)
        self._recorded: list[np.ndarray] = []
        self.streams: list[_FakeStream] = []
        self.infos = [
            {"name": name, "index": index, "hostapi": 0, "default_samplerate": 48_000.0,
             "max_input_channels": inputs, "max_output_channels": outputs}
            for index, (name, inputs, outputs) in enumerate(
                [("Microphone", 2, 0), ("Speakers", 0, 2), ("Both", 2, 8)]
            )
        ]  # fmt: skip
        self.default = SimpleNamespace(device=(0, 1))
        self.InputStream = partial(_FakeStream, self, "input")
        self.OutputStream = partial(_FakeStream, self, "output")

    def query_hostapis(self) -> list[dict[str, Any]]:
        return [{"name": "ALSA"}]

    def query_devices(self, name: str | None = None, kind: str | None = None) -> Any:
        if kind is None:
            return self.infos
        able = [info for info in self.infos if info[f"max_{kind}_channels"]]
        if name is None:
            if not able:
                raise self.PortAudioError("Error querying device -1")
            return able[0]
        found = [info for info in able if name.lower() in info["name"].lower()]
        if len(found) != 1:
            raise ValueError("Multiple devices" if found else "No device matching")
        return found[0]

    def _check(self, samplerate: int, **_: Any) -> None:
        if samplerate not in self.rates:
            raise self.PortAudioError("Invalid sample rate")

    check_input_settings = check_output_settings = _check

    def _exit_handler(self) -> None:
        """PortAudio's own ending."""

    def pass_time(self, count: int) -> None:
        """Let so many samples come in and go out."""
        for stream in self.streams:
            if stream.kind not in self.stopped:
                stream.waiting += count
                stream.held = max(0, stream.held - count)

    def recorded(self) -> Tensor:
        """Return all samples (C, L) that were read."""
        return torch.from_numpy(np.concatenate(self._recorded).T.copy())

    def played(self) -> Tensor:
        """Return all samples (C, L) that were written."""
        return torch.from_numpy(np.concatenate(self.output).T.copy())


class _FakeStream:
    def __init__(
        self, card: FakeCard, kind: str, samplerate: int, latency: float, **settings: Any
    ) -> None:
        self.kind, self.latency = kind, latency
        self._card, self._channels = card, settings["channels"]
        self._size, card.step = round(latency * samplerate), samplerate // 100
        self.waiting, self.held = 0, 0  # samples of an input and of an output
        card.streams.append(self)

    def start(self) -> None:
        pass

    def abort(self, ignore_errors: bool) -> None:
        assert ignore_errors

    def close(self, ignore_errors: bool) -> None:
        assert ignore_errors
        self._card.closed += 1

    def _look(self) -> None:
        if self._card.gone:
            raise self._card.PortAudioError("Gone", -9999)

    @property
    def read_available(self) -> int:
        self._look()
        if not self.waiting:
            self._card.pass_time(self._card.step)
        return self.waiting

    @property
    def write_available(self) -> int:
        self._look()
        return self._size - self.held

    def read(self, count: int) -> tuple[np.ndarray, bool]:
        self._look()
        while self.waiting < count:
            self._card.pass_time(self._card.step)
        self.waiting -= count
        shape = (count, self._channels)
        samples = self._card._noise.uniform(-0.1, 0.1, shape).astype(np.float32)
        self._card._recorded.append(samples)
        lost, self._card.lost = self._card.lost, False
        return samples, lost

    def write(self, samples: np.ndarray) -> bool:
        self._look()
        assert samples.shape[1] == self._channels
        assert samples.flags.c_contiguous
        self._card.output.append(samples.copy())
        self.held += len(samples)
        return False


def noise_song(path: Path, seconds: float = 4.5) -> Path:
    """Write a song of noise, and return its path."""
    generator = torch.Generator().manual_seed(1)
    waveform = 0.1 * torch.randn(2, int(44_100 * seconds), generator=generator)
    with AudioWriter(path, 44_100, 2, AudioEncoding("wav")) as writer:
        writer.write(waveform)
    return path
