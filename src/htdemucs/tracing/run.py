"""Runs a network, and gives the output of every stage as a tensor."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from htdemucs.errors import ConfigError, SeparationError
from htdemucs.model import Bag, Model, Network, NetworkConfig
from htdemucs.model.architectures import network_class
from htdemucs.model.bag import networks
from htdemucs.model.hybrid import HybridNetwork
from htdemucs.separation import Separator
from htdemucs.settings import whole_number
from htdemucs.tracing.stages import Source, Stage
from htdemucs.tracing.walk import stages_of
from htdemucs.weights import load_model
from htdemucs.weights.load import known_configs

See = Callable[[Stage, Tensor], Tensor | None]  # returns what the stage gets as its tensor


def trace(
    model: Model | Separator | NetworkConfig | str | PathLike[str],
    waveform: Tensor | NDArray[Any] | None = None,
    *,
    samples: int | None = None,
    depth: int = 1,
) -> list[Stage]:
    """Return the stages of a network, with the size of the data after each.

    With a waveform the network runs, and `stage.tensor` is the data: activations by name, without
    forward hooks. Hooks of your own never fire in a `Separator`, which copies its model and, on
    CPUs, runs it by its own kernels; this function runs the model itself, in PyTorch. Only
    one thread at a time may use the model.

        model = load_model("mini")
        song = AudioFile("song.mp3", sample_rate=model.sample_rate)
        waveform = torch.cat(list(song), dim=-1)[:, :model.config.segment_length]
        stages = {stage.label(): stage for stage in trace(model, waveform, depth=2)}
        stages["time encoder 2"].tensor

    Args:
        model: a network, a separator, a configuration, or what `load_model` takes. Of a bag give
            one member, as in `bag.members[0]`.
        waveform: (C, L), as the network takes it. It runs in one piece: give a segment of a song. A
            separator first brings the mono mix of the whole song to mean 0 and deviation 1.
        samples: the mixture's length without a waveform; by default the model's segment.
        depth: 2 also lists the parts of each stage.

    Raises:
        ConfigError: a bag has several networks, or the depth is impossible.
        SeparationError: the waveform does not have the model's channels, or the length is
            impossible.
        ModelNotFoundError, DownloadError, CheckpointError: the named model cannot be loaded.
    """
    if depth not in (1, 2):
        raise ConfigError(f"depth must be 1 or 2, not {depth}")
    if waveform is None:
        config = _config(model)
        network = network_class(config).empty(config)
        length = config.segment_length if samples is None else whole_number("samples", samples, 1)
        return stages_of(network, length, depth)
    try:
        samples_of = torch.as_tensor(waveform)
    except (TypeError, ValueError, RuntimeError):
        name = type(waveform).__name__
        raise SeparationError(f"a waveform must be a tensor or array, not {name}") from None
    return run(_network(model), samples_of, depth)


def run(network: Network, waveform: Tensor, depth: int = 1, see: See | None = None) -> list[Stage]:
    """Run a network on a waveform (C, L), and return its stages with their tensors.

    Args:
        network: the network, on any device.
        waveform: the mixture.
        depth: 2 also lists the parts of each stage.
        see: called with each stage and its tensor, as soon as it is known; what it returns becomes
            the stage's tensor. Without it all tensors are kept.

    Raises:
        SeparationError: the waveform does not have the network's channels.
    """
    if waveform.dim() != 2 or waveform.shape[0] != network.audio_channels or not waveform.numel():
        hint = "; give one item of the batch" if waveform.dim() == 3 else ""
        raise SeparationError(
            f"a waveform must be ({network.audio_channels}, L), not {tuple(waveform.shape)}{hint}"
        )
    parameter = next(network.parameters())
    mixture = waveform.to(parameter.device, parameter.dtype)[None]
    stages = stages_of(network, mixture.shape[-1], depth)
    recorder = _Recorder(network, stages, see or (lambda _, tensor: tensor))
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad(), recorder:
            recorder.run(mixture)
    finally:
        for module, training in modes:
            module.training = training
    return recorder.results()


class _Recorder:
    """Hooks that give the inputs and outputs of modules to the stages that they belong to."""

    def __init__(self, network: Network, stages: Sequence[Stage], see: See) -> None:
        self._network, self._stages, self._see = network, list(stages), see
        self._numbers: dict[tuple[str, bool], list[int]] = {}
        for i, stage in enumerate(stages):
            if stage.source is not None:
                key = (stage.source.module, stage.source.is_input)
                self._numbers.setdefault(key, []).append(i)
        self._hooks: list[Any] = []
        self._started: dict[str, float] = {}
        self._seconds: dict[str, float] = {}  # by path

    def __enter__(self) -> None:
        paths = {path for path, _ in self._numbers} | {stage.module for stage in self._stages}
        for path, module in self._network.named_modules():
            if path in paths - {""}:
                self._hooks += [
                    module.register_forward_pre_hook(self._before(path)),
                    module.register_forward_hook(self._after(path)),
                ]

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _before(self, path: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            for i in self._numbers.get((path, True), ()):
                self._record(i, inputs[0])
            self._started[path] = time.perf_counter()

        return hook

    def _after(self, path: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._seconds[path] = time.perf_counter() - self._started[path]
            for i in self._numbers.get((path, False), ()):
                part = cast(Source, self._stages[i].source).part
                self._record(i, output if part is None else output[part])

        return hook

    def _record(self, i: int, tensor: Tensor) -> None:
        stage = self._stages[i]
        if stage.shape != tuple(tensor.shape):
            tensor = tensor.reshape(stage.shape)  # one bin has no axis of its own in some modules
        self._stages[i] = replace(stage, tensor=self._see(stage, tensor))

    def run(self, mixture: Tensor) -> None:
        """Compute all stages; those outside any module are recorded here."""
        network = self._network
        by_key = {stage.key: i for i, stage in enumerate(self._stages) if stage.depth == 1}
        self._record(by_key["input"], mixture)
        if not isinstance(network, HybridNetwork):
            self._record(by_key["sources"], network(mixture))
            return
        spectrogram = network.spectrogram(mixture)
        time_output, spectral = network.core(mixture, spectrogram)
        started = time.perf_counter()
        waveform = network.spectrogram.inverse(spectral, mixture.shape[-1])
        self._seconds["inverse"] = time.perf_counter() - started
        self._record(by_key["spectral_output"], waveform)
        self._record(by_key["time_output"], time_output)
        self._record(by_key["output"], time_output + waveform)

    def results(self) -> list[Stage]:
        """Return the stages, with the time that each took."""
        return [replace(stage, seconds=self._time(stage)) for stage in self._stages]

    def _time(self, stage: Stage) -> float | None:
        if stage.key == "spectral_output":
            return self._seconds["inverse"]
        if stage.source is not None and stage.source.part is not None and stage.depth == 1:
            parts = (s for s in self._stages if s.number.startswith(f"{stage.number}."))
            return sum(self._seconds.get(part.module, 0.0) for part in parts)
        return self._seconds.get(stage.module)


def _config(model: Any) -> NetworkConfig:
    if isinstance(model, NetworkConfig):
        return model
    if isinstance(model, str | PathLike):
        configs = known_configs(str(model))
        if any(config != configs[0] for config in configs):
            raise ConfigError(f"{model} has {len(configs)} networks that differ; name one of them")
        return configs[0]
    return _network(model).config


def _network(model: Any) -> Network:
    """Return the only network of a model.

    Raises:
        ConfigError: there are several, or it is not a model.
    """
    if isinstance(model, Separator):
        model = model.model
    elif isinstance(model, str | PathLike):
        model = load_model(Path(model) if isinstance(model, PathLike) else model)
    if not isinstance(model, Network | Bag):
        raise ConfigError(f"a model with values is needed, not {type(model).__name__}")
    members = networks(model)
    if len(members) > 1:
        raise ConfigError(
            f"this bag has {len(members)} networks; give one of them, such as bag.members[0]"
        )
    return members[0]
