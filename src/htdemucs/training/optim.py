"""The optimiser, its parameter groups, and the learning rate at each step."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from htdemucs.model import HTDemucs, Network
from htdemucs.training.config import OptimConfig


class Muon(torch.optim.AdamW):
    """Muon for weights of convolutions and linear layers, AdamW for everything else.

    A weight's update is its momentum with all singular values set to about 1, so directions that
    gradients rarely show are learnt as fast as the others (Jordan 2024). Its size is that of an
    AdamW step, so learning rate and weight decay mean the same (arXiv 2502.16982). Groups whose
    "orthogonal" is true hold the weights for Muon.
    """

    MOMENTUM = 0.95
    SIZE = 0.2  # root of the mean square of an update, per learning rate

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update all parameters. Weights in orthogonal groups lose their gradients."""
        for group in self.param_groups:
            for weight in group["params"] if group["orthogonal"] else ():
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:  # AdamW requires a step in each state that it loads
                    state |= {"step": torch.zeros(()), "momentum": torch.zeros_like(weight)}
                momentum = state["momentum"]
                momentum.lerp_(weight.grad, 1 - self.MOMENTUM)
                update = newton_schulz(weight.grad.lerp(momentum, self.MOMENTUM).flatten(1))
                size = self.SIZE * math.sqrt(max(update.shape))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update.view_as(weight), alpha=-group["lr"] * size)
                weight.grad = None  # AdamW skips parameters without a gradient
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


def build_optimizer(model: Network, config: OptimConfig) -> torch.optim.Optimizer:
    """Return Adam, AdamW or Muon, with separate groups for the transformer's parameters."""
    transformer: set[nn.Parameter] = set()
    if isinstance(model, HTDemucs) and model.transformer is not None:
        transformer = set(model.transformer.parameters())
    orthogonal: set[nn.Parameter] = set()
    if config.kind == "muon":  # the weights of all convolutions and linear layers
        orthogonal = {
            parameter
            for module in model.modules()
            for name, parameter in module.named_parameters(recurse=False)
            if name.endswith("weight") and parameter.dim() > 1
        }
    groups = [
        {
            "params": [
                p
                for p in model.parameters()
                if (p in transformer, p in orthogonal) == (in_transformer, is_orthogonal)
            ],
            "transformer": in_transformer,
            "orthogonal": is_orthogonal,
        }
        for is_orthogonal in (False, True)
        for in_transformer in (False, True)
    ]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "muon": Muon}[config.kind]
    return kind([group for group in groups if group["params"]], lr=config.lr)


def apply_schedule(
    optimizer: torch.optim.Optimizer, config: OptimConfig, step: int, steps: int
) -> None:
    """Set learning rate, betas and weight decay of every group for `step`.

    This is done before each step, because the configuration may differ from the checkpoint's.
    """
    fraction = learning_rate_fraction(config, step, steps)
    transformer_lr = config.lr if config.transformer_lr is None else config.transformer_lr
    for group in optimizer.param_groups:
        in_transformer = group["transformer"]
        group["lr"] = (transformer_lr if in_transformer else config.lr) * fraction
        group["betas"] = (0.9, config.beta2)
        group["weight_decay"] = (
            config.transformer_weight_decay if in_transformer else config.weight_decay
        )


def learning_rate_fraction(config: OptimConfig, step: int, steps: int) -> float:
    """Return the fraction of the full learning rate at `step` (from 0) of `steps`."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.decay == "none":
        return 1.0
    done = (step - config.warmup) / max(1, steps - config.warmup)
    return config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * done))
