"""Choose the precision that a device is fast in, and prepare networks to run in it."""

import copy
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, TypeGuard, TypeVar

import torch
from torch import Tensor, nn

from htdemucs.errors import ConfigError
from htdemucs.fast import kernels
from htdemucs.fast.network import FastHybrid, supports
from htdemucs.fast.runtime import compile_function
from htdemucs.model import Bag, HDemucs, HTDemucs, Model, Network
from htdemucs.model.bag import networks
from htdemucs.model.hybrid import HybridNetwork

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_cudnn: Any = torch.backends.cudnn
TF32_SETTINGS = (  # torch 2.9 replaced allow_tf32, and refuses to read it after a new one was set
    [(part, "fp32_precision", "ieee") for part in (_cudnn.conv, _cudnn.rnn)]
    if hasattr(_cudnn, "conv")
    else [(_cudnn, "allow_tf32", False)]
)
NARROW = 32  # outermost channels; below this a CPU spends little time in products
PRODUCTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
SPECTRAL = (
    "spectral_encoder",
    "spectral_decoder",
    "frequency_embedding",
    "merge_layer",
    "split_layer",
)
TIME = ("time_encoder", "time_decoder")
N = TypeVar("N", bound=Network)


def choose_precision(model: Model, precision: str = "auto") -> str:
    """Return `precision` or, for "auto", the fastest that the model's device supports well.

    On a CPU that is bf16 if the CPU has AVX512-BF16 (CPUs with AMX have it too), if there are
    kernels for the CPU and the model, and if the network is not narrow: a narrow network would gain
    little speed and lose accuracy. On CUDA it is bf16 from Ampere on, and fp16 with older tensor
    cores. In all other cases it is fp32.

    Raises:
        ConfigError: the precision is unknown, or the device cannot compute in it.
    """
    device = next(model.parameters()).device
    if precision == "auto":
        return fastest(networks(model), device)
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be auto, {', '.join(PRECISIONS)}, not {precision!r}")
    if precision == "fp16" and device.type == "cpu":
        raise ConfigError("fp16 needs a GPU; on a CPU use precision bf16 or auto")
    return precision


def prepare(model: Model, precision: str, compiled: bool = False) -> nn.Module:
    """Return a module that runs the model on its device, in one of `PRECISIONS`.

    The module takes a mixture (B, C, L) and returns the sources (B, S, C, L) in float32. It may
    have its own copy of the parameters; the model is not changed. With `compiled`, torch compiles
    the network and the kernels are not used.
    """
    if isinstance(model, Bag):
        return prepare_bag(model, precision, compiled)
    return _prepare(model, precision, compiled)


def prepare_bag(bag: Bag, precision: str, compiled: bool = False) -> Bag:
    """Return the bag with each member prepared."""
    return bag.map_members(lambda member: _prepare(member, precision, compiled))


def _prepare(network: Network, precision: str, compiled: bool) -> nn.Module:
    if not compiled and _has_kernels(network) and (precision == "fp32" or kernels.has_bf16()):
        return FastHybrid(network, PRECISIONS[precision])
    device = next(network.parameters()).device.type
    if precision == "fp32":
        prepared = _with_autocast(network, precision, compiled) if compiled else network
        return ExactNetwork(prepared) if device == "cuda" else prepared
    if device != "cpu":
        network = to_half_precision(network, PRECISIONS[precision])
    return _with_autocast(network, precision, compiled)


def _with_autocast(network: Network, precision: str, compiled: bool) -> nn.Module:
    if isinstance(network, HybridNetwork):
        return AutocastHybrid(network, PRECISIONS[precision], compiled)
    return AutocastNetwork(network, PRECISIONS[precision], compiled)


def _has_kernels(network: Network) -> TypeGuard[HTDemucs | HDemucs]:
    return next(network.parameters()).device.type == "cpu" and supports(network)


def fastest(networks: Sequence[Network], device: torch.device) -> str:
    """Return the precision that "auto" stands for with these networks on this device."""
    if device.type == "cpu":
        suitable = all(_has_kernels(n) and n.config.channels >= NARROW for n in networks)
        return "bf16" if suitable and kernels.has_bf16() else "fp32"
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return "bf16" if capability >= (8, 0) else "fp16" if capability >= (7, 0) else "fp32"
    return "fp32"


def to_half_precision(network: N, dtype: torch.dtype) -> N:
    """Return a copy of a network for autocast, with its weights already cast.

    The outer layers, whose tensors are the largest, run without autocast: on a GPU it would compute
    their norms in float32, and so move as many bytes as float32 does. Torch's norms sum in float32
    in either case. With float16 the spectral layers stay in float32: some of their values exceed
    the range of float16 (a pure tone has thousands of deviations in its bin).
    """
    half = copy.deepcopy(network)
    for module in half.modules():
        if isinstance(module, PRODUCTS):
            module.to(dtype)
    if isinstance(network, HybridNetwork):
        spectral_dtype = torch.float32 if dtype == torch.float16 else dtype
        for names, layer_dtype in ((SPECTRAL, spectral_dtype), (TIME, dtype)):
            for name in filter(network._modules.__contains__, names):
                setattr(half, name, _without_autocast(getattr(network, name), layer_dtype))
    return half


def _without_autocast(part: nn.Module, dtype: torch.dtype) -> nn.Module:
    if isinstance(part, nn.ModuleList):
        return nn.ModuleList(_CastLayer(copy.deepcopy(layer).to(dtype), dtype) for layer in part)
    return _CastLayer(copy.deepcopy(part).to(dtype), dtype)


class _CastLayer(nn.Module):
    """A layer that casts its inputs and runs without autocast."""

    def __init__(self, layer: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self._layer, self._dtype = layer, dtype

    def forward(self, *inputs: Any) -> Any:
        with torch.autocast(inputs[0].device.type, enabled=False):
            return self._layer(*(x.to(self._dtype) if isinstance(x, Tensor) else x for x in inputs))


class ExactNetwork(nn.Module):
    """A network on CUDA in float32, without cuDNN's products in TF32, which have ten-bit mantissas.

    Torch has one setting for the whole process; the last thread that leaves restores it.
    """

    _lock = threading.Lock()
    _running = 0  # threads
    _before: ClassVar[list[Any]] = []

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = network

    @torch.no_grad()
    def forward(self, mixture: Tensor) -> Tensor:
        """(B, C, L) -> (B, S, C, L)"""
        with self._without_tf32():
            return self._network(mixture)

    @classmethod
    @contextmanager
    def _without_tf32(cls) -> Iterator[None]:
        with cls._lock:
            if not cls._running:
                cls._before = [getattr(settings, name) for settings, name, _ in TF32_SETTINGS]
                for settings, name, exact in TF32_SETTINGS:
                    setattr(settings, name, exact)
            cls._running += 1
        try:
            yield
        finally:
            with cls._lock:
                cls._running -= 1
                if not cls._running:
                    for (settings, name, _), value in zip(TF32_SETTINGS, cls._before, strict=True):
                        setattr(settings, name, value)


class AutocastNetwork(nn.Module):
    """A network whose products torch computes in another precision, under autocast."""

    def __init__(self, network: Network, dtype: torch.dtype, compiled: bool = False) -> None:
        super().__init__()
        self._dtype = dtype
        self._network = network
        self._run = compile_function(network.forward) if compiled else network.forward

    @torch.no_grad()
    def forward(self, mixture: Tensor) -> Tensor:
        """(B, C, L) -> (B, S, C, L)"""
        with torch.autocast(mixture.device.type, self._dtype, enabled=self._dtype != torch.float32):
            return self._run(mixture).float()


class AutocastHybrid(nn.Module):
    """The same for a network with an STFT, which is computed in float32."""

    def __init__(self, network: HybridNetwork, dtype: torch.dtype, compiled: bool = False) -> None:
        super().__init__()
        self._dtype = dtype
        self._spectrogram = network.spectrogram
        self._network = network
        self._core = compile_function(network.core) if compiled else network.core

    @torch.no_grad()
    def forward(self, mixture: Tensor) -> Tensor:
        """(B, C, L) -> (B, S, C, L)"""
        spectrogram = self._spectrogram(mixture)
        half = self._dtype != torch.float32
        with torch.autocast(mixture.device.type, self._dtype, enabled=half):
            time, spectral = self._core(mixture, spectrogram)
        return time.float() + self._spectrogram.inverse(spectral.float(), mixture.shape[-1])
