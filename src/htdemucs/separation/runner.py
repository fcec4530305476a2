"""Running the network in batches that fit into the device's memory."""

import warnings

import torch
from torch import Tensor

from htdemucs.errors import SeparationError
from htdemucs.fast import choose_precision, prepare
from htdemucs.model import Model
from htdemucs.model.bag import networks

ACTIVATIONS = 16  # of the size of the outermost layer's widest, float32: what a segment may need
SHARE = 0.7  # of the free memory
MOST_AT_ONCE = 16  # segments


class Runner:
    """A model prepared for its device; where memory runs out it halves batches, then moves.

    Args:
        model: where it is, it is run.
        precision: as for `choose_precision`.
        compiled: by torch, as for `prepare`; not on the CPU that is moved to.
        batch_size: of the batches asked for; by default 1 on a CPU and what should fit on a GPU.
        segment_length: samples in each item.
    """  # fmt: skip

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
        """Be ready to run where the model is."""
        self.device = next(self._model.parameters()).device
        self.precision = choose_precision(self._model, precision)
        self._network = prepare(self._model, self.precision, compiled)

    def __call__(self, mixture: Tensor) -> Tensor:
        """(B, C, L) -> (B, S, C, L), on the mixture's device.

        Raises:
            SeparationError: the model gives numbers that are not finite.
        """
        try:
            return self._finite(mixture.to(self.device)).to(mixture.device)
        except torch.OutOfMemoryError:
            if len(mixture) == 1 and self.device.type == "cpu":
                raise
        # Only here is what the failed attempt held free again.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(mixture) > 1:
            self.batch_size = len(mixture) // 2
            return torch.cat([self(part) for part in mixture.split(self.batch_size)])
        self._move_to_cpu()
        return self(mixture)

    def _finite(self, mixture: Tensor) -> Tensor:
        """What the network gives, by the reference in float32 where it is not finite otherwise."""
        if _is_finite(answer := self._network(mixture)):
            return answer
        warnings.warn(
            f"a segment is beyond what {self.precision} holds here: it is computed in full, which "
            "is slower",
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
            f"{self.device} has too little memory for one segment: going on with the CPU, which is "
            "slower; a shorter `segment` needs less memory",
            stacklevel=2,
        )
        self._model = self._model.cpu()
        self.batch_size = 1
        self._prepare("fp32" if self.precision == "fp32" else "auto")


def _is_finite(answer: Tensor) -> bool:
    return all(bool(bound.isfinite()) for bound in answer.aminmax())  # either is NaN if any is


def default_batch_size(model: Model, device: torch.device, segment_length: int) -> int:
    """Segments that should fit into the device's free memory; 1 where more is not faster."""
    if device.type != "cuda":
        return 1
    need = max(
        ACTIVATIONS * 4 * 2 * n.config.channels * n.config.bins // 4
        * n.spectrogram.frames(segment_length)
        for n in networks(model)
    )  # fmt: skip
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(MOST_AT_ONCE, int(SHARE * free) // need))
