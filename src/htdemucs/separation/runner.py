"""Run the network in batches that fit into the device's memory."""

import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby, islice

import torch
from torch import Tensor, nn

from htdemucs.errors import CheckpointError, SeparationError, is_out_of_memory
from htdemucs.fast import choose_precision, prepare_bag
from htdemucs.model import Bag, Model
from htdemucs.model.bag import as_bag, networks
from htdemucs.separation.chunking import MemberWindows, Segment
from htdemucs.weights.load import reload_networks

ACTIVATIONS = 16  # float32 tensors of the outermost layer's output: the memory of a segment
MEMORY_SHARE = 0.7  # of the free memory, for batches
MAX_BATCH_SIZE = 16  # by default


class Runner:
    """A model that is prepared for its device, and the batches that run on it.

    Several threads may use a runner; they take turns.

    Args:
        model: the network or bag, which only the runner may use; it runs on the model's device.
            Parameters that the prepared network does not need are freed in members with an
            `origin`. They are read from its files again if they are needed after all.
        precision: as for `choose_precision`.
        compiled: as for `prepare`; ignored after a change to the CPU.
        batch_size: segments in a batch; by default 1 on a CPU and as many as should fit on a GPU.
        segment_length: samples in a segment.

    Attributes:
        max_in_flight: batches to submit before waiting for the oldest one.
    """

    def __init__(
        self,
        model: Model,
        precision: str,
        batch_size: int | None,
        segment_length: int,
        compiled: bool = False,
    ) -> None:
        self._bag = as_bag(model)
        self._lock = threading.RLock()
        self.windows = MemberWindows(self._bag, segment_length)
        self._prepare(precision, compiled)
        self._output_device = self.device  # also after a change to the CPU
        self.max_in_flight = 1 if self._stream is None else 2
        self.batch_size = batch_size or default_batch_size(model, self.device, segment_length)

    def _prepare(self, precision: str, compiled: bool = False) -> None:
        """Prepare the network for the device that the model is on."""
        self.device = next(self._bag.parameters()).device
        self.precision = choose_precision(self._bag, precision)
        self._prepared = prepare_bag(self._bag, self.precision, compiled)
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        for member in self._bag.members:
            if member.origin is not None:
                _free_parameters(member, keep=self._prepared)

    def complete_model(self) -> Bag:
        """Return the model with all its parameters; those freed are read again, on the CPU.

        The other members are those that the runner uses.

        Raises:
            CheckpointError: a file is gone or damaged, or has changed since it was first read.
        """
        partial = [m for m in self._bag.members if any(p.is_meta for p in m.parameters())]
        again = dict(zip(partial, reload_networks(partial), strict=True))
        return self._bag.map_members(lambda member: again.get(member, member))

    def batches(
        self, segments: Iterable[Segment], most: int | None = None
    ) -> Iterator[list[Segment]]:
        """Yield segments in batches, in order, of at most `most` segments."""
        for _, similar in groupby(segments, lambda one: self.windows.batch_key(one.length)):
            while batch := list(islice(similar, most or self.batch_size)):
                yield batch

    def submit(self, windows: Tensor, length: int) -> "Pending":
        """Submit a batch of windows (B, C, W), in whose middle are segments of `length` samples.

        On CUDA the network starts, on a stream of its own. On other devices it runs when the result
        is asked for.
        """
        pending = Pending(self, windows, length)
        if self._stream is not None:
            with self._lock:
                try:
                    pending.output = self._run(windows, length)
                except RuntimeError as error:
                    if _oom_reason(error) is None:
                        raise
                    self._reduce_batch_size(len(windows))  # `_result` tries again
        return pending

    def _result(self, pending: "Pending") -> Tensor:
        """Return the outputs of a batch.

        When the device's memory is full, the batch is halved until it fits. If it is too small for
        one segment, the CPU takes over.

        Raises:
            SeparationError: the CPU has too little memory for one segment, too.
        """
        windows, output = pending.windows, pending.output
        if output is None and len(windows) > self.batch_size:
            parts = [Pending(self, part, pending.length) for part in windows.split(self.batch_size)]
            return torch.cat([self._result(part) for part in parts])
        try:
            if output is None:
                output = self._run(windows, pending.length)
            return self._finite(output, windows, pending.length).to(self._output_device)
        except RuntimeError as error:
            reason = _oom_reason(error)
            if reason is None:
                raise
            if len(windows) == 1 and self.device.type == "cpu":
                raise SeparationError(f"{self.device} {reason}") from error
        # Only here, after `except`, are the tensors of the failed attempt free.
        pending.output = output = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(windows) > 1:
            self._reduce_batch_size(len(windows))
        else:
            self._move_to_cpu(reason)
        return self._result(pending)

    def _reduce_batch_size(self, too_large: int) -> None:
        self.batch_size = min(self.batch_size, max(1, too_large // 2))

    def _run(self, windows: Tensor, length: int) -> "_Output":
        if self._stream is None:
            return _Output(self._compute(self._prepared, windows.to(self.device), length))
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            windows = windows.pin_memory().to(self.device, non_blocking=True)
            output = self._compute(self._prepared, windows, length)
            return _Output(output, self._stream.record_event())

    def _compute(self, bag: Bag, windows: Tensor, length: int) -> Tensor:
        """Run a bag in its own precision, even inside a caller's autocast."""
        autocast = self.device.type in ("cpu", "cuda") and torch.autocast(
            self.device.type, enabled=False
        )
        with autocast or nullcontext():
            return self.windows.run(bag, windows, length)

    def _finite(self, output: "_Output", windows: Tensor, length: int) -> Tensor:
        """Return the output or, if it is not finite, that of the reference in float32."""
        if _is_finite(tensor := output.wait()):
            return tensor
        warnings.warn(
            f"a segment is not finite in {self.precision}: the reference network computes it again "
            "in fp32, which is slower",
            stacklevel=2,
        )
        with torch.no_grad():
            self._bag = self.complete_model().to(self.device)
            tensor = self._compute(self._bag, windows.to(self.device), length)
        if _is_finite(tensor):
            return tensor
        raise CheckpointError(
            "the model gives numbers that are not finite: its weights are damaged, or it was "
            "trained wrongly; try another model"
        )

    def _move_to_cpu(self, reason: str) -> None:
        warnings.warn(
            f"{self.device} {reason}: continuing on the CPU, which is slower", stacklevel=2
        )
        self._bag = self.complete_model().to("cpu")
        self.batch_size = 1
        self._prepare("fp32" if self.precision == "fp32" else "auto")


class Pending:
    """A batch that was submitted to a `Runner`."""

    def __init__(self, runner: Runner, windows: Tensor, length: int) -> None:
        self._runner = runner
        self.windows, self.length = windows, length
        self.output: _Output | None = None  # of a network that has started

    def result(self) -> Tensor:
        """() -> (B, S, C, W'), in whose middle are the segments, on the runner's first device

        Raises:
            CheckpointError: the outputs are not finite, even in float32.
        """
        with self._runner._lock:
            return self._runner._result(self)


@dataclass(frozen=True)
class _Output:
    """An output of the network, on CUDA with the event after which it is computed."""

    tensor: Tensor
    event: torch.cuda.Event | None = None

    def wait(self) -> Tensor:
        if self.event is not None:
            stream = torch.cuda.current_stream(self.tensor.device)
            stream.wait_event(self.event)
            self.tensor.record_stream(stream)
        return self.tensor


def _is_finite(output: Tensor) -> bool:
    bounds = torch.stack(output.aminmax())  # NaN if any number is NaN
    return bool(bounds.isfinite().all())


def _oom_reason(error: RuntimeError) -> str | None:
    """Return what the device lacks for this network; None if the error has another cause."""
    if isinstance(error, torch.OutOfMemoryError) or is_out_of_memory(error):
        return "has too little memory for one segment (a shorter segment needs less)"
    if isinstance(error, NotImplementedError):  # MPS before macOS 15.1: more than 65 536 samples
        return f"cannot compute this network ({str(error).partition('. ')[0]})"
    return None


def _free_parameters(model: nn.Module, keep: nn.Module) -> None:
    """Free the parameters of a model except those of the module `keep`."""
    kept = set(keep.parameters())
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter not in kept:
                setattr(module, name, nn.Parameter(parameter.to("meta"), requires_grad=False))


def default_batch_size(model: Model, device: torch.device, segment_length: int) -> int:
    """Return how many segments should fit into a GPU's free memory; 1 for other devices."""
    if device.type != "cuda":
        return 1
    values = max(n.config.activation_size(segment_length) for n in networks(model))
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(MAX_BATCH_SIZE, int(MEMORY_SHARE * free) // (ACTIVATIONS * 4 * values)))
