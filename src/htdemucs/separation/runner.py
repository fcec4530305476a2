"""Run the network in batches that fit into the device's memory."""

import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from typing import TypeVar

import torch
from torch import Tensor, nn

from htdemucs.errors import CheckpointError
from htdemucs.fast import choose_precision, prepare_bag
from htdemucs.model import Bag, Model
from htdemucs.model.bag import as_bag, networks
from htdemucs.separation.chunking import Windows
from htdemucs.weights.load import reload_networks

T = TypeVar("T")
ACTIVATIONS = 16  # float32 tensors of the outermost layer's output: a segment's memory
SHARE = 0.7  # of the free memory, for batches
MOST_AT_ONCE = 16  # segments


class Runner:
    """A model prepared for its device. When memory runs out, it halves batches, then uses the CPU.

    Args:
        model: the network or bag, for the runner alone; it is run on its own device. Parameters
            that the prepared network does not need are freed in members with an `origin`, and read
            from there again if they are needed after all.
        precision: as for `choose_precision`.
        compiled: as for `prepare`; not used after a change to the CPU.
        batch_size: segments in a batch; by default 1 on a CPU and as many as should fit on a GPU.
        segment_length: samples in a segment.

    Attributes:
        ahead: batches to begin before an answer is waited for.
    """

    def __init__(
        self,
        model: Model,
        precision: str,
        batch_size: int | None,
        segment_length: int,
        compiled: bool = False,
    ) -> None:
        self._model = as_bag(model)
        self._lock = threading.RLock()  # threads take turns, since any may change all of this
        self.windows = Windows(self._model, segment_length)
        self._prepare(precision, compiled)
        self._home = self.device
        self.ahead = 1 if self._stream is not None else 0
        self.batch_size = batch_size or default_batch_size(model, self.device, segment_length)

    def batches(self, items: Iterable[T], length: Callable[[T], int]) -> Iterator[list[T]]:
        """Yield batches of segments, in order; `length` returns the length of one."""
        for _, alike in groupby(items, lambda item: self.windows.group(length(item))):
            while batch := list(islice(alike, self.batch_size)):
                yield batch

    def _prepare(self, precision: str, compiled: bool = False) -> None:
        """Prepare the network for the device that the model is on."""
        self.device = next(self._model.parameters()).device
        self.precision = choose_precision(self._model, precision)
        self._prepared = prepare_bag(self._model, self.precision, compiled)
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        for member in self._model.members:
            if member.origin is not None:
                _free_parameters(member, kept=self._prepared)

    def complete_model(self, device: torch.device) -> Bag:
        """Return the model on a device with all its parameters; those freed are read again.

        Raises:
            CheckpointError: a file is gone or damaged, or has changed since it was first read.
        """
        partial = [m for m in self._model.members if any(p.is_meta for p in m.parameters())]
        again = dict(zip(partial, reload_networks(partial), strict=True))
        return self._model.mapped(lambda member: again.get(member, member)).to(device)

    def __call__(self, windows: Tensor, length: int) -> Callable[[], Tensor]:
        """(B, C, W) -> a function that returns (B, S, C, W'), on the device of the beginning

        Of both, `length` samples in the middle count. CUDA computes in a stream of its own, and the
        function waits for it: what is asked for in between is computed at the same time.

        Raises:
            CheckpointError: (the function) the answer is not finite, even in float32.
        """
        with self._lock:
            begun = self._try_on_device(lambda: self._begun(windows, length), len(windows))
        return lambda: self._finished(begun, windows, length)

    def _try_on_device(self, compute: Callable[[], T], size: int) -> T | None:
        """Return None if the device cannot do it, and something else can be tried."""
        try:
            return compute()
        except RuntimeError as error:
            trouble = _oom_reason(error)
            if trouble is None or (size == 1 and self.device.type == "cpu"):
                raise
            self._oom_reason = trouble
        return None

    def _begun(self, windows: Tensor, length: int) -> "_Answer":
        if self._stream is None:
            mixture = windows.to(self.device)
            return _Answer(self.windows.answer(self._prepared, mixture, length), None)
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            mixture = windows.pin_memory().to(self.device, non_blocking=True)
            answer = self.windows.answer(self._prepared, mixture, length)
            return _Answer(answer, self._stream.record_event())

    def _finished(self, begun: "_Answer | None", windows: Tensor, length: int) -> Tensor:
        """Return the answer of a batch that fits; otherwise that of smaller ones, or of the CPU."""
        with self._lock:
            answer = None
            if begun is not None:
                answer = self._try_on_device(
                    lambda: self._finite(begun, windows, length), len(windows)
                )
            if answer is not None:
                return answer.to(self._home)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            if len(windows) > 1:
                self.batch_size = len(windows) // 2
                return torch.cat([self(part, length)() for part in windows.split(self.batch_size)])
            self._move_to_cpu()
            return self(windows, length)()

    def _finite(self, begun: "_Answer", windows: Tensor, length: int) -> Tensor:
        """Return the network's answer or, if that is not finite, the reference's in float32."""
        if _is_finite(answer := begun.wait()):
            return answer
        warnings.warn(
            f"a segment is not finite in {self.precision}: the reference network computes it again "
            "in fp32, which is slower",
            stacklevel=2,
        )
        with torch.no_grad():
            mixture = windows.to(self.device)
            self._model = self.complete_model(self.device)
            if _is_finite(answer := self.windows.answer(self._model, mixture, length)):
                return answer
        raise CheckpointError(
            "the model gives numbers that are not finite: its weights are damaged, or it was "
            "trained wrongly; try another model"
        )

    def _move_to_cpu(self) -> None:
        warnings.warn(
            f"{self.device} {self._oom_reason}: continuing on the CPU, which is slower",
            stacklevel=2,
        )
        self._model = self.complete_model(torch.device("cpu"))
        self.batch_size = 1
        self._prepare("fp32" if self.precision == "fp32" else "auto")


def answered(
    begun: Iterable[tuple[T, Callable[[], Tensor]]], ahead: int
) -> Iterator[tuple[T, Tensor]]:
    """Yield batches with their answers, while the next `ahead` batches are computed."""
    waiting: deque[tuple[T, Callable[[], Tensor]]] = deque()
    for one in begun:
        waiting.append(one)
        if len(waiting) > ahead:
            batch, answers = waiting.popleft()
            yield batch, answers()
    yield from ((batch, answers()) for batch, answers in waiting)


def _free_parameters(model: nn.Module, kept: nn.Module) -> None:
    """Free the parameters of a model except those of the module `kept`."""
    needed = set(kept.parameters())
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter not in needed:
                setattr(module, name, nn.Parameter(parameter.to("meta"), requires_grad=False))


def _oom_reason(error: RuntimeError) -> str | None:
    """Return what a device lacks for a network; None if the error is another one."""
    if isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error):  # MPS has no own
        return "has too little memory for one segment (a shorter segment needs less)"
    if isinstance(error, NotImplementedError):  # MPS before macOS 15.1: more than 65 536 samples
        return f"cannot compute this network ({str(error).partition('. ')[0]})"
    return None


@dataclass(frozen=True)
class _Answer:
    """What the network answers, once the event has come; without one it is there."""

    tensor: Tensor
    event: torch.cuda.Event | None

    def wait(self) -> Tensor:
        if self.event is not None:
            stream = torch.cuda.current_stream(self.tensor.device)
            stream.wait_event(self.event)
            self.tensor.record_stream(stream)
        return self.tensor


def _is_finite(answer: Tensor) -> bool:
    bounds = torch.stack(answer.aminmax())  # either is NaN if any is
    return bool(bounds.isfinite().all())


def default_batch_size(model: Model, device: torch.device, segment_length: int) -> int:
    """Return how many segments should fit into a GPU's free memory; 1 for other devices."""
    if device.type != "cuda":
        return 1
    values = max(n.config.activation_size(segment_length) for n in networks(model))
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(MOST_AT_ONCE, int(SHARE * free) // (ACTIVATIONS * 4 * values)))
