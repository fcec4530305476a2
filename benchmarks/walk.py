"""Run the CUDA code path without a GPU, and count the work of a GPU.

    python -m benchmarks.walk [--channels 48] [--seconds 7.8]

Fake tensors have shapes, types and devices, but no values. They need a torch that is built with
CUDA, no GPU and no time. An operation that mixes devices ends the walk. Prints a table for one
batch of four segments: kernels, the bytes they move, weights that are cast, copies, and how often
the host waits for the device.
"""

import argparse
import sys
import warnings
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from htdemucs import Bag, DemucsConfig, HDemucsConfig, HTDemucsConfig, Normalization, Separator
from htdemucs.audio import reblock
from htdemucs.fast import PRECISIONS
from htdemucs.model import Network, build
from htdemucs.model.config import NetworkConfig
from htdemucs.training import TrainConfig
from htdemucs.training.config import DataConfig, OptimConfig
from htdemucs.training.trainer import Trainer, _LogInterval

IDENTITY = [[float(i == j) for j in range(4)] for i in range(4)]  # a member for each stem
BATCH = 4  # segments
BATCHES = 3  # of a track; the last one is shorter, as in most tracks
WAITS = {  # operations whose result has a length or a value that the host must know
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten._unique2.default,
}
COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


@dataclass
class Counts:
    """The work of a GPU.

    Attributes:
        kernels: operations that compute or copy.
        moved: bytes that they read and write.
        cast: bytes of parameters that are cast to another precision.
        copies: between host and device.
        waits: of the host for the device.
    """

    kernels: float = 0
    moved: float = 0
    cast: float = 0
    copies: float = 0
    waits: float = 0

    def __truediv__(self, count: int) -> "Counts":
        return Counts(*(getattr(self, field.name) / count for field in fields(self)))


class Watch(TorchDispatchMode):
    """Counts the operations on a GPU, and returns values for fake scalars."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts = Counts()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        given = _tensors((args, kwargs))
        on_gpu = any(x.is_cuda for x in given)
        if function in WAITS:
            self.counts.waits += on_gpu
            return self._value(function, given[0])
        made = function(*args, **kwargs)
        results = _tensors(made)
        on_gpu = on_gpu or any(x.is_cuda for x in results)
        if not on_gpu or function.is_view or function.namespace != "aten":
            return made
        self._count(function, given, results, kwargs.get("non_blocking", False))
        if function is torch.ops.aten._to_copy.default and isinstance(given[0], nn.Parameter):
            self.counts.cast += _bytes(given)
        return made

    def _count(
        self, function: Any, given: list[Tensor], results: list[Tensor], non_blocking: bool
    ) -> None:
        devices = {x.device.type for x in (*given, *results) if x.dim()}
        self.counts.kernels += 1
        self.counts.moved += _bytes(given) + _bytes(results)
        if len(devices) > 1:
            assert function in COPIES, f"{function} mixes devices: {given}"
            self.counts.copies += 1
            self.counts.waits += not non_blocking

    @staticmethod
    def _value(function: Any, x: Tensor) -> Any:
        if function is not torch.ops.aten._local_scalar_dense.default:
            raise NotImplementedError(f"{function} needs values")
        return True if x.dtype == torch.bool else 1.0 if x.is_floating_point() else 1


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _bytes(tensors: list[Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def engine(model: Network | Bag, precision: str, shifts: int = 0) -> Counts:
    """Separate a track of `BATCHES` batches, as a command does, and return the counts of one."""
    separator = Separator(
        model, device="cuda", precision=precision, shifts=shifts, batch_size=BATCH
    )
    length = BATCHES * BATCH * separator.stride // max(1, shifts)
    track = torch.zeros(separator.audio_channels, length)
    blocks = reblock([track], separator.sample_rate)  # as an `AudioFile` gives them
    done = 0
    with Watch() as watch:
        for stems in separator.stream(blocks, Normalization(0.0, 0.1, length)):
            here = torch.stack(list(stems.values())).cpu()
            assert here.dtype == torch.float32, here.dtype
            done += here.shape[-1]
    assert done == length, (done, length)
    return watch.counts / BATCHES


def training_step(network: Network, precision: str) -> Counts:
    """Take one step of training with clipped gradients, a spectral loss and an average.

    The backward pass is left out: torch runs it on the driver's streams.
    """
    optim = OptimConfig(ema=(0.99,), clip=5.0, stft_weight=0.1)
    music = DataConfig(musdb=Path("unused"))
    config = TrainConfig(Path("unused"), data=music, batch_size=BATCH, optim=optim)
    length = network.config.segment_length
    batch = torch.zeros(BATCH, 1 + len(network.sources), network.audio_channels, length)
    unused: Any = None
    trainer = Trainer(config, network, unused, None, _accelerator(network, precision))
    with Watch() as watch:
        loss, _ = trainer._train_step(iter([batch]), _LogInterval())
    assert loss.is_cuda, loss
    return watch.counts


def _accelerator(network: Network, precision: str) -> Any:
    """Return a substitute for accelerate's, which cannot move fake parameters."""

    def prepare(network: Network, optimizer: Any) -> tuple[nn.Module, Any]:
        half = precision != "fp32"
        network.forward = torch.autocast("cuda", PRECISIONS[precision], enabled=half)(
            network.forward
        )
        return network, optimizer

    def backward(loss: Tensor) -> None:
        assert loss.requires_grad, loss
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)

    return SimpleNamespace(
        device=torch.device("cuda"),
        num_processes=1,
        process_index=0,
        prepare=prepare,
        backward=backward,
        clip_grad_norm_=nn.utils.clip_grad_norm_,
        reduce=lambda total, how: total,  # noqa: ARG005
    )


def on_cuda(config: NetworkConfig) -> Network:
    """Return a network on a fake GPU."""
    with torch.device("cuda"):
        return build(config).eval()


def walks(channels: int, seconds: float) -> dict[str, Callable[[], Counts]]:
    """Return all walks by their names."""
    size: dict[str, Any] = {"channels": channels, "segment": seconds}
    ours = HTDemucsConfig(**size)
    older = {"HDemucs": HDemucsConfig(**size), "Demucs": DemucsConfig(**size)}
    older["HDemucs, 2021"] = HDemucsConfig(**size, cac=False, hybrid_old=True)
    found: dict[str, Callable[[], Counts]] = {}
    for precision in PRECISIONS:
        found[f"HTDemucs, {precision}"] = partial(_walk, ours, engine, precision)
    found["HTDemucs, bf16, 2 shifts"] = partial(_walk, ours, engine, "bf16", shifts=2)
    found["bag of 4, bf16"] = partial(_walk, ours, _bag_engine, "bf16")
    for name, config in older.items():
        for precision in PRECISIONS:
            found[f"{name}, {precision}"] = partial(_walk, config, engine, precision)
    for precision in ("fp32", "bf16"):
        found[f"a step of training, {precision}"] = partial(_walk, ours, training_step, precision)
    return found


def _walk(
    config: NetworkConfig, measure: Callable[..., Counts], precision: str, **options: int
) -> Counts:
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")  # an LSTM's
        for place, name, stand_in in REPLACEMENTS:
            stack.enter_context(patch.object(place, name, stand_in, create=True))
        stack.enter_context(FakeTensorMode())
        network = on_cuda(config)
        stack.enter_context(Watch())  # gives values where a model is put together
        return measure(network, precision, **options)


def _moved(module: nn.Module, to: torch.device | torch.dtype) -> nn.Module:
    """Change device or type as `Module.to` does, which cannot do so to fake parameters."""
    for part in module.modules():
        part._buffers.update({n: x.to(to) for n, x in part._buffers.items() if x is not None})
        for name, x in part._parameters.items():
            if x is not None:
                part._parameters[name] = nn.Parameter(x.to(to), x.requires_grad)
    return module


def _lstm(module: nn.LSTM, x: Tensor) -> tuple[Tensor, None]:
    """Return a tensor like an LSTM's output; the real one needs cuDNN and a GPU."""
    autocast = torch.is_autocast_enabled("cuda")
    for weight in module.parameters():
        assert weight.device == x.device, (weight.device, x.device)
        assert autocast or weight.dtype == x.dtype, (weight.dtype, x.dtype)
    dtype = torch.get_autocast_dtype("cuda") if autocast else x.dtype
    width = module.hidden_size * (2 if module.bidirectional else 1)
    return x.mean(-1, keepdim=True).expand(*x.shape[:-1], width).to(dtype), None


def _attend(query: Tensor, key: Tensor, value: Tensor, dropout_p: float = 0.0) -> Tensor:
    """Use the attention that torch chooses on a GPU; without a GPU it chooses the slowest."""
    if torch.is_autocast_enabled("cuda"):
        half = torch.get_autocast_dtype("cuda")
        query, key, value = query.to(half), key.to(half), value.to(half)
    if query.dtype == torch.float32:
        attend = torch.ops.aten._scaled_dot_product_efficient_attention
        return attend(query, key, value, None, True, dropout_p)[0]
    return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, dropout_p)[0]


def _copied(x: Tensor, _: dict[int, Any]) -> Tensor:
    """Copy for `deepcopy`, which would copy the mode of a fake tensor too."""
    copied = x.detach().clone()
    return nn.Parameter(copied, x.requires_grad) if isinstance(x, nn.Parameter) else copied


REPLACEMENTS: list[tuple[Any, str, Any]] = [
    (FakeTensor, "__deepcopy__", _copied),
    (nn.Module, "to", _moved),
    (F, "scaled_dot_product_attention", _attend),
    (nn.LSTM, "forward", _lstm),
    (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
    (torch.cuda, "is_bf16_supported", lambda: True),
    (torch.cuda, "Stream", MagicMock()),
    (torch.cuda, "current_stream", MagicMock()),
    (torch.cuda, "stream", lambda _: nullcontext()),
    (Tensor, "pin_memory", lambda x: x),
    (Tensor, "record_stream", lambda _, __: None),
]  # for functions that query the GPU


def _bag_engine(network: Network, precision: str) -> Counts:
    others = [on_cuda(network.config) for _ in range(3)]
    return engine(Bag([network, *others], weights=IDENTITY), precision)


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--channels", type=int, default=48)
    parser.add_argument("--seconds", type=float, default=7.8)
    args = parser.parse_args()
    if not torch.backends.cuda.is_built():
        sys.exit(f"torch {torch.__version__} is built without CUDA; install a CUDA build")
    print(f"torch {torch.__version__}, a batch of {BATCH} segments of {args.seconds:g} s")
    print(
        "| | kernels | GB moved | MB of weights cast | copies | waits |\n|---|---|---|---|---|---|"
    )
    for name, walk in walks(args.channels, args.seconds).items():
        counts = walk()
        print(
            f"| {name} | {counts.kernels:.0f} | {counts.moved / 1e9:.1f} | "
            f"{counts.cast / 1e6:.0f} | {counts.copies:.1f} | {counts.waits:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
