"""The optimiser, its groups, and the learning rate at each step."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from htdemucs.model import HTDemucs, Network
from htdemucs.training.config import OptimConfig


class Muon(torch.optim.AdamW):
    """Muon for weights of convolutions and linear layers, AdamW for everything else.

    A weight's update is its momentum with all singular values set to about 1, so directions that
    gradients rarely show are learnt as fast as the others (Jordan 2024). Its size is that of an
    AdamW step, so learning rate and weight decay mean the same (arXiv 2502.16982). Groups with
    "orthogonal" hold such weights.
    """

    MOMENTUM = 0.95
    SIZE = 0.2  # root of the mean square of an update, per learning rate

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update all parameters. Gradients of weights in orthogonal groups are gone afterwards."""
        for group in self.param_groups:
            for weight in group["params"] if group["orthogonal"] else ():
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:  # AdamW wants a step in every state that it loads
                    state |= {"step": torch.zeros(()), "momentum": torch.zeros_like(weight)}
                momentum = state["momentum"]
                momentum.lerp_(weight.grad, 1 - self.MOMENTUM)
                update = newton_schulz(weight.grad.lerp(momentum, self.MOMENTUM).flatten(1))
                size = self.SIZE * math.sqrt(max(update.shape))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update.view_as(weight), alpha=-group["lr"] * size)
                weight.grad = None  # AdamW leaves these alone
        return super().step(closure)


def newton_schulz(matrix: Tensor) -> Tensor:
    """Return the matrix with singular values between about 0.7 and 1.2: (M, N) -> (M, N)

    Five Newton-Schulz iterations of degree five, with Jordan's coefficients.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return newton_schulz(matrix.T).T
    x = matrix / matrix.norm().clamp_min(1e-7)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (2.0315 * square @ square - 4.7750 * square) @ x
    return x


def optimizer(model: Network, config: OptimConfig) -> torch.optim.Optimizer:
    """Return Adam, AdamW or Muon with the transformer's parameters in groups of their own."""
    inside: set[nn.Parameter] = set()
    if isinstance(model, HTDemucs) and model.transformer is not None:
        inside = set(model.transformer.parameters())
    hidden = set(_weights(model)) if config.kind == "muon" else set()
    groups = [
        {
            "params": [p for p in model.parameters() if (p in inside, p in hidden) == kind],
            "transformer": kind[0],
            "orthogonal": kind[1],
        }
        for kind in ((False, False), (True, False), (False, True), (True, True))
    ]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "muon": Muon}[config.kind]
    return kind([group for group in groups if group["params"]], lr=config.lr)


def _weights(model: Network) -> Iterator[nn.Parameter]:
    """Give the weights of all convolutions and linear layers."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if name.endswith("weight") and parameter.dim() > 1:
                yield parameter


def configure(target: torch.optim.Optimizer, config: OptimConfig, step: int, steps: int) -> None:
    """Set every group up for `step`.

    Each step does so, because the configuration may have changed since the checkpoint.
    """
    fraction = rate(config, step, steps)
    own_lr = config.lr if config.transformer_lr is None else config.transformer_lr
    for group in target.param_groups:
        inside = group["transformer"]
        group["lr"] = (own_lr if inside else config.lr) * fraction
        group["betas"] = (0.9, config.beta2)
        group["weight_decay"] = config.transformer_weight_decay if inside else config.weight_decay


def rate(config: OptimConfig, step: int, steps: int) -> float:
    """Return the fraction of the full learning rate at `step` (from 0) of `steps`."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.decay == "none":
        return 1.0
    done = (step - config.warmup) / max(1, steps - config.warmup)
    return config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * done))
