"""Run the network in batches that fit into the device's memory."""

import warnings

import torch
from torch import Tensor

from htdemucs.errors import SeparationError
from htdemucs.fast import choose_precision, prepare
from htdemucs.model import Model
from htdemucs.model.bag import networks

ACTIVATIONS = 16  # float32 tensors of the outermost layer's largest size: a segment's memory
SHARE = 0.7  # of the free memory, for batches
MOST_AT_ONCE = 16  # segments


class Runner:
    """A model prepared for its device. When memory runs out, it halves batches, then uses the CPU.

    Args:
        model: the network or bag; it is run on its own device.
        precision: as for `choose_precision`.
        compiled: as for `prepare`; not used after a change to the CPU.
        batch_size: segments in a batch; by default 1 on a CPU and as many as should fit on a GPU.
        segment_length: samples in a segment.
    """

    def __init__(
        self,
        model: Model,
        precision: str,
        batch_size: int | None,
        segment_length: int,
        compiled: bool = False,
    ) -> None:
        self._model = model
        self._prepare(precision, compiled)
        self.batch_size = batch_size or default_batch_size(model, self.device, segment_length)

    def _prepare(self, precision: str, compiled: bool = False) -> None:
        """Prepare the network for the device that the model is on."""
        self.device = next(self._model.parameters()).device
        self.precision = choose_precision(self._model, precision)
        self._network = prepare(self._model, self.precision, compiled)

    def __call__(self, mixture: Tensor) -> Tensor:
        """(B, C, L) -> (B, S, C, L), on the mixture's device.

        Raises:
            SeparationError: the model's answer is not finite, even in float32.
        """
        try:
            return self._finite(mixture.to(self.device)).to(mixture.device)
        except torch.OutOfMemoryError:
            if len(mixture) == 1 and self.device.type == "cpu":
                raise
        # The memory of the failed attempt is free only after the `except` block.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(mixture) > 1:
            self.batch_size = len(mixture) // 2
            return torch.cat([self(part) for part in mixture.split(self.batch_size)])
        self._move_to_cpu()
        return self(mixture)

    def _finite(self, mixture: Tensor) -> Tensor:
        """Return the network's answer or, if that is not finite, the reference's in float32."""
        if _is_finite(answer := self._network(mixture)):
            return answer
        warnings.warn(
            f"a segment is not finite in {self.precision}: the reference network computes it again "
            "in fp32, which is slower",
            stacklevel=2,
        )
        with torch.no_grad():
            if _is_finite(answer := self._model(mixture)):
                return answer
        raise SeparationError(
            "the model gives numbers that are not finite: its weights are damaged, or it was "
            "trained wrongly; try another model"
        )

    def _move_to_cpu(self) -> None:
        warnings.warn(
            f"{self.device} has too little memory for one segment: continuing on the CPU, which is "
            "slower; a shorter `segment` needs less memory",
            stacklevel=2,
        )
        self._model = self._model.cpu()
        self.batch_size = 1
        self._prepare("fp32" if self.precision == "fp32" else "auto")


def _is_finite(answer: Tensor) -> bool:
    return all(bool(bound.isfinite()) for bound in answer.aminmax())  # either is NaN if any is


def default_batch_size(model: Model, device: torch.device, segment_length: int) -> int:
    """Return how many segments should fit into a GPU's free memory; 1 for other devices."""
    if device.type != "cuda":
        return 1
    need = max(
        ACTIVATIONS * 4 * 2 * n.config.channels * n.config.bins // 4
        * n.spectrogram.frames(segment_length)
        for n in networks(model)
    )  # fmt: skip
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(MOST_AT_ONCE, int(SHARE * free) // need))
