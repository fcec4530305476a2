"""The size of the data at every stage of the network, for a mixture of any length."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from htdemucs.errors import ConfigError
from htdemucs.model.architectures import network_class
from htdemucs.model.config import NetworkConfig
from htdemucs.model.hdemucs import HDemucs
from htdemucs.model.htdemucs import HTDemucs
from htdemucs.model.hybrid import HybridNetwork
from htdemucs.model.network import Network
from htdemucs.model.transformer import CrossDomainTransformer

Language = Literal["en", "zh"]
Labels = dict[str, str]

_LABELS: dict[Language, Labels] = {
    "en": {
        "input": "input",
        "spectrogram": "spectral input: STFT, complex as channels",
        "spectral_input": "spectral input, normalised",
        "time_input": "time input, normalised",
        "time_encoder": "time encoder {}",
        "spectral_encoder": "spectral encoder {}",
        "merge": "merge: encoder {} of both branches",
        "joint_encoder": "joint encoder {}",
        "joint_decoder": "joint decoder {}",
        "spectral_split": "split: spectral decoder {}",
        "time_split": "split: time decoder {}",
        "spectral_transformer": "cross-domain transformer, spectral",
        "time_transformer": "cross-domain transformer, time",
        "spectral_decoder": "spectral decoder {}",
        "time_decoder": "time decoder {}",
        "spectral_output": "spectral output after the inverse STFT",
        "time_output": "time output, de-normalised",
        "output": "output: time + spectral",
        "upsampled": "input at twice the sample rate",
        "encoder": "encoder {}",
        "decoder": "decoder {}",
        "sources": "output",
    },
    "zh": {
        "input": "算法输入",
        "spectrogram": "频域输入(STFT输出)",
        "spectral_input": "频域输入(归一化)",
        "time_input": "时域输入(归一化)",
        "time_encoder": "时域第{}个编码层输出",
        "spectral_encoder": "频域第{}个编码层输出",
        "merge": "合并:两个分支的第{}个编码层输出",
        "joint_encoder": "共用第{}个编码层输出",
        "joint_decoder": "共用第{}个解码层输出",
        "spectral_split": "分开:频域第{}个解码层输出",
        "time_split": "分开:时域第{}个解码层输出",
        "spectral_transformer": "crosstransformer输出频域",
        "time_transformer": "crosstransformer输出时域",
        "spectral_decoder": "频域第{}个解码层输出",
        "time_decoder": "时域第{}个解码层输出",
        "spectral_output": "频域输出(STFT输出)",
        "time_output": "时域输出(归一化)",
        "output": "算法输出(时域输出+频域输出)",
        "upsampled": "两倍采样率的输入",
        "encoder": "第{}个编码层输出",
        "decoder": "第{}个解码层输出",
        "sources": "算法输出",
    },
}


@dataclass(frozen=True)
class Stage:
    """One row of the table: the shape of a stage's output, its parameters and its operations."""

    label: str
    shape: tuple[int, ...]
    parameters: int = 0
    flop: float = 0.0  # floating-point operations; a multiply-add counts as two


def trace(config: NetworkConfig, samples: int, language: Language = "en") -> list[Stage]:
    """Return the stages of a mixture (1, C, samples), in order; the network runs without values.

    The operations of matrix products, convolutions and FFTs are counted (5/2 N log2 N for a real
    FFT), elementwise operations are not.
    """
    if samples < 1:
        raise ConfigError(f"samples must be at least 1, not {samples}")
    model = network_class(config).empty(config).eval().to("meta")
    mixture = torch.empty(1, config.audio_channels, samples, device="meta")
    labels = _LABELS[language]
    with torch.no_grad():
        if isinstance(model, HybridNetwork):
            return _hybrid_stages(model, mixture, labels)
        recorder = _Recorder(model)
        with recorder:
            sources = model(mixture)
    return [
        Stage(labels["input"], tuple(mixture.shape)),
        *recorder.stages(labels),
        Stage(labels["sources"], tuple(sources.shape)),
    ]


def _hybrid_stages(model: HybridNetwork, mixture: Tensor, labels: Labels) -> list[Stage]:
    """Return the stages of a network with an STFT before its core and an inverse after it."""
    samples, channels = mixture.shape[-1], model.audio_channels
    recorder, n_fft = _Recorder(model), model.spectrogram.n_fft
    with recorder:
        spectrogram = model.spectrogram(mixture)
        time, spectral = model.core(mixture, spectrogram)
        spectral_waveform = model.spectrogram.inverse(spectral, samples)
    fft_flop = 2.5 * n_fft * math.log2(n_fft) * model.spectrogram.frames(samples) * channels
    inverse_flop = fft_flop * len(model.sources)
    return [
        Stage(labels["input"], tuple(mixture.shape)),
        Stage(labels["spectrogram"], tuple(spectrogram.shape), 0, fft_flop),
        *recorder.stages(labels),
        Stage(labels["spectral_output"], tuple(spectral_waveform.shape), 0, inverse_flop),
        Stage(labels["time_output"], tuple(time.shape)),
        Stage(labels["output"], tuple((time + spectral_waveform).shape)),
    ]


@dataclass(frozen=True)
class _Row:
    """A stage that is an output of a module; `part` is its number if the module has several."""

    key: str
    module: nn.Module
    number: int | None = None
    part: int | None = None
    parts: tuple[nn.Module, ...] = ()  # whose parameters and operations count, if not the module's


def _rows(model: Network) -> Iterator[_Row]:
    """Yield the rows of a network, in order."""
    if isinstance(model, HTDemucs):
        yield from _layers(model, "time_encoder", "spectral_encoder")
        if model.transformer is not None:
            yield from _transformer(model.transformer)
        yield from _layers(model, "spectral_decoder", "time_decoder")
    elif isinstance(model, HDemucs):
        outer, inner = model.config.outer_depth, len(model.joint_encoder)
        yield from _layers(model, "time_encoder", "spectral_encoder")
        yield _Row("merge", model.merge_layer, outer + 1)
        yield from _layers(model, "joint_encoder", after=outer + 1)
        yield from _layers(model, "joint_decoder")
        split = model.split_layer
        time = (split.time_conv_transpose, split.time_norm)
        spectral = tuple(m for m in split.children() if m not in time)
        yield _Row("spectral_split", split, inner + 1, 0, spectral)
        yield _Row("time_split", split, inner + 1, 1, time)
        yield from _layers(model, "spectral_decoder", "time_decoder", after=inner + 1)
    else:
        yield _Row("upsampled", model.get_submodule("upsample"))
        yield from _layers(model, "encoder")
        yield from _layers(model, "decoder")


def _layers(model: Network, *names: str, after: int = 0) -> Iterator[_Row]:
    """Yield the layers of one or more lists of layers in turn, counted from `after` on."""
    lists = [cast(nn.ModuleList, model.get_submodule(name)) for name in names]
    for i, layers in enumerate(zip(*lists, strict=True), after + 1):
        for name, layer in zip(names, layers, strict=True):
            first = name == "spectral_encoder" and i == 1
            embedding = (layer, model.get_submodule("frequency_embedding")) if first else ()
            yield _Row(name, layer, i, parts=embedding)


def _transformer(transformer: CrossDomainTransformer) -> Iterator[_Row]:
    for part, branch in enumerate(("spectral", "time")):
        children = [m for name, m in transformer.named_children() if name.startswith(branch)]
        parts = [m for x in children for m in (x if isinstance(x, nn.ModuleList) else [x])]
        yield _Row(f"{branch}_transformer", transformer, None, part, tuple(parts))


class _Recorder:
    """Records the inputs, outputs and operations of a model's layers while the model runs."""

    def __init__(self, model: Network) -> None:
        self._model = model
        self._counter = FlopCounterMode(display=False)
        self._inputs: dict[nn.Module, Tensor] = {}
        self._outputs: dict[nn.Module, Any] = {}
        self._flop: dict[nn.Module, float] = {}

    def __enter__(self) -> None:
        self._hooks = []
        for module in self._model.modules():
            self._hooks.append(module.register_forward_pre_hook(self._before))
            self._hooks.append(module.register_forward_hook(self._after))
        self._counter.__enter__()

    def __exit__(self, *exception: object) -> None:
        self._counter.__exit__(*exception)
        for hook in self._hooks:
            hook.remove()

    def _before(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._inputs[module] = inputs[0]
        self._flop[module] = -self._counter.get_total_flops()

    def _after(self, module: nn.Module, _: tuple[Tensor, ...], output: Any) -> None:
        self._outputs[module] = output
        self._flop[module] += self._counter.get_total_flops()

    def stages(self, labels: Labels) -> Iterator[Stage]:
        """Yield the stages between the mixture (or its STFT) and the outputs."""
        if isinstance(self._model, HybridNetwork):
            for branch in ("spectral", "time"):
                (first, *_) = self._model.get_submodule(f"{branch}_encoder").children()
                yield Stage(labels[f"{branch}_input"], tuple(self._inputs[first].shape))
        for row in _rows(self._model):
            output = self._outputs[row.module]
            modules = row.parts or (row.module,)
            yield Stage(
                labels[row.key].format(row.number),
                tuple((output if row.part is None else output[row.part]).shape),
                sum(p.numel() for module in modules for p in module.parameters()),
                sum(self._flop[module] for module in modules),
            )
