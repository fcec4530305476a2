"""The size of the data at every stage of the network, for a mixture of any length."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from htdemucs.errors import ConfigError
from htdemucs.model.config import HTDemucsConfig
from htdemucs.model.htdemucs import HTDemucs

Language = Literal["en", "zh"]

_LABELS: dict[Language, dict[str, str]] = {
    "en": {
        "input": "input",
        "spectrogram": "spectral input: STFT, complex as channels",
        "spectral_input": "spectral input, normalised",
        "time_input": "time input, normalised",
        "time_encoder": "time encoder {}",
        "spectral_encoder": "spectral encoder {}",
        "spectral_transformer": "cross-domain transformer, spectral",
        "time_transformer": "cross-domain transformer, time",
        "spectral_decoder": "spectral decoder {}",
        "time_decoder": "time decoder {}",
        "spectral_output": "spectral output after the inverse STFT",
        "time_output": "time output, de-normalised",
        "output": "output: time + spectral",
    },
    "zh": {
        "input": "算法输入",
        "spectrogram": "频域输入(STFT输出)",
        "spectral_input": "频域输入(归一化)",
        "time_input": "时域输入(归一化)",
        "time_encoder": "时域第{}个编码层输出",
        "spectral_encoder": "频域第{}个编码层输出",
        "spectral_transformer": "crosstransformer输出频域",
        "time_transformer": "crosstransformer输出时域",
        "spectral_decoder": "频域第{}个解码层输出",
        "time_decoder": "时域第{}个解码层输出",
        "spectral_output": "频域输出(STFT输出)",
        "time_output": "时域输出(归一化)",
        "output": "算法输出(时域输出+频域输出)",
    },
}


@dataclass(frozen=True)
class Stage:
    """One row of the table: the shape of a stage's output, its parameters and its arithmetic."""

    label: str
    shape: tuple[int, ...]
    parameters: int = 0
    flop: float = 0.0  # floating-point operations; a multiply-add counts as two


def trace(config: HTDemucsConfig, samples: int, language: Language = "en") -> list[Stage]:
    """Return the stages of a mixture (1, C, samples), in order; no audio is computed.

    The arithmetic is that of matrix products, convolutions and FFTs (5/2 N log2 N for a real one).
    Elementwise operations are not counted.
    """
    if samples < 1:
        raise ConfigError(f"samples must be at least 1, not {samples}")
    with torch.device("meta"):
        model = HTDemucs(config).eval()
        mixture = torch.empty(1, config.audio_channels, samples)
    recorder = _Recorder(model)
    with recorder, torch.no_grad():
        spectrogram = model.spectrogram(mixture)
        time, spectral = model.core(mixture, spectrogram)
        spectral_waveform = model.spectrogram.inverse(spectral, samples)
    fft_flop = 2.5 * config.n_fft * math.log2(config.n_fft) * model.spectrogram.frames(samples)
    channels = config.audio_channels
    labels = _LABELS[language]
    return [
        Stage(labels["input"], tuple(mixture.shape)),
        Stage(labels["spectrogram"], tuple(spectrogram.shape), 0, fft_flop * channels),
        *recorder.stages(labels),
        Stage(
            labels["spectral_output"],
            tuple(spectral_waveform.shape),
            0,
            fft_flop * channels * len(config.sources),
        ),
        Stage(labels["time_output"], tuple(time.shape)),
        Stage(labels["output"], tuple((time + spectral_waveform).shape)),
    ]


class _Recorder:
    """Records the inputs, outputs and arithmetic of a model's layers while the model runs."""

    def __init__(self, model: HTDemucs) -> None:
        self.model = model
        self._counter = FlopCounterMode(display=False)
        self._inputs: dict[nn.Module, Tensor] = {}
        self._outputs: dict[nn.Module, Any] = {}
        self._flop: dict[nn.Module, float] = {}

    def __enter__(self) -> None:
        self._hooks = []
        for module in self.model.modules():
            self._hooks.append(module.register_forward_pre_hook(self._note_before))
            self._hooks.append(module.register_forward_hook(self._note_after))
        self._counter.__enter__()

    def __exit__(self, *exception: object) -> None:
        self._counter.__exit__(*exception)
        for hook in self._hooks:
            hook.remove()

    def _note_before(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._inputs[module] = inputs[0]
        self._flop[module] = -self._counter.get_total_flops()

    def _note_after(self, module: nn.Module, _: tuple[Tensor, ...], output: Any) -> None:
        self._outputs[module] = output
        self._flop[module] += self._counter.get_total_flops()

    def stages(self, labels: dict[str, str]) -> Iterator[Stage]:
        """Yield the stages between the STFT and the two outputs."""
        model = self.model
        for key, encoder in (
            ("spectral_input", model.spectral_encoder),
            ("time_input", model.time_encoder),
        ):
            yield Stage(labels[key], tuple(self._inputs[encoder[0]].shape))
        yield from self._layers(labels, "time_encoder", "spectral_encoder")
        if model.transformer is not None:
            yield from self._transformer(labels)
        yield from self._layers(labels, "spectral_decoder", "time_decoder")

    def _layers(self, labels: dict[str, str], *names: str) -> Iterator[Stage]:
        for i in range(self.model.config.depth):
            for name in names:
                layer = getattr(self.model, name)[i]
                yield self._stage(labels[name].format(i + 1), self._outputs[layer], layer)

    def _transformer(self, labels: dict[str, str]) -> Iterator[Stage]:
        transformer = self.model.transformer
        assert transformer is not None
        for branch, output in zip(("spectral", "time"), self._outputs[transformer], strict=True):
            parts = [m for name, m in transformer.named_children() if name.startswith(branch)]
            layers = [
                m for part in parts for m in (part if isinstance(part, nn.ModuleList) else [part])
            ]
            yield self._stage(labels[f"{branch}_transformer"], output, *layers)

    def _stage(self, label: str, output: Tensor, *modules: nn.Module) -> Stage:
        if modules == (self.model.spectral_encoder[0],):
            modules += (self.model.frequency_embedding,)
        parameters = sum(p.numel() for module in modules for p in module.parameters())
        return Stage(
            label, tuple(output.shape), parameters, sum(self._flop[module] for module in modules)
        )
