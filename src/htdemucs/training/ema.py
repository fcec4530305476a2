"""Exponential moving averages (EMA) of a model's parameters during training."""

from typing import Any

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    """An exponential moving average without bias towards the initial values.

    The weight of a step n steps ago is proportional to decay ** n. The sum is divided by the total
    of these weights, so that early averages do not contain the initial values.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._total = 0.0  # the sum of the weights so far
        self._sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Add the model's current parameters to the average."""
        self._total = self.decay * self._total + 1
        values = model.state_dict()
        sums = [self._sums.setdefault(n, torch.zeros_like(x)) for n, x in values.items()]
        torch._foreach_mul_(sums, self.decay)  # one call for all: much faster on a GPU
        torch._foreach_add_(sums, list(values.values()))

    def parameters(self) -> dict[str, Tensor]:
        """Return the averaged parameters by name."""
        return {name: value / self._total for name, value in self._sums.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"total": self._total, "sums": self._sums}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore the state from a checkpoint."""
        self._total = state["total"]
        self._sums = {name: value.to(device) for name, value in state["sums"].items()}
