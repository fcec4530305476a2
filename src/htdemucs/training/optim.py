"""The optimiser, its parameter groups, and the learning rate at each step."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from htdemucs.errors import ConfigError
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


def freeze(model: Network, prefixes: Sequence[str]) -> None:
    """Make the parameters whose names begin with a prefix constant.

    Raises:
        ConfigError: no parameter begins with a prefix, or none is left to train.
    """
    for prefix in prefixes:
        _check_prefix(model, prefix, "optim.freeze")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(_begins(name, prefix) for prefix in prefixes))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError("optim.freeze leaves nothing to train")


def build_optimizer(model: Network, config: OptimConfig) -> torch.optim.Optimizer:
    """Return Adam, AdamW or Muon for the parameters that are not frozen.

    Parameters are in a group with those that share learning rate, weight decay and kind of update.

    Raises:
        ConfigError: no parameter begins with a prefix in `lr_factors`.
    """
    for prefix in config.lr_factors:
        _check_prefix(model, prefix, "optim.lr_factors")
    factors = {p: _factor(name, config.lr_factors) for name, p in model.named_parameters()}
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
                if p.requires_grad
                and (p in transformer, p in orthogonal) == (in_transformer, is_orthogonal)
                and factors[p] == factor
            ],
            "transformer": in_transformer,
            "orthogonal": is_orthogonal,
            "factor": factor,
        }
        for is_orthogonal in (False, True)
        for in_transformer in (False, True)
        for factor in sorted(set(factors.values()))
    ]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "muon": Muon}[config.kind]
    return kind([group for group in groups if group["params"]], lr=config.lr)


def apply_schedule(
    optimizer: torch.optim.Optimizer,
    config: OptimConfig,
    step: int,
    steps: int,
    reductions: int = 0,
) -> None:
    """Set learning rate, betas and weight decay of every group for `step`.

    `reductions` counts those of the plateau schedule so far. This is done before each step, because
    the configuration may differ from the checkpoint's.
    """
    fraction = learning_rate_fraction(config, step, steps, reductions)
    transformer_lr = config.lr if config.transformer_lr is None else config.transformer_lr
    for group in optimizer.param_groups:
        in_transformer = group["transformer"]
        rate = transformer_lr if in_transformer else config.lr
        group["lr"] = rate * fraction * group["factor"]
        group["betas"] = (0.9, config.beta2)
        group["weight_decay"] = (
            config.transformer_weight_decay if in_transformer else config.weight_decay
        )


def learning_rate_fraction(
    config: OptimConfig, step: int, steps: int, reductions: int = 0
) -> float:
    """Return the fraction of the full learning rate at `step` (from 0) of `steps`."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.decay == "none":
        return 1.0
    if config.decay == "plateau":
        return max(config.final_lr, config.plateau_factor**reductions)
    done = (step - config.warmup) / max(1, steps - config.warmup)
    return config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * done))


def _factor(name: str, factors: Mapping[str, Any]) -> float:
    """Return the factor of the longest prefix with which a parameter's name begins, else 1."""
    prefixes = [prefix for prefix in factors if _begins(name, prefix)]
    return float(factors[max(prefixes, key=len)]) if prefixes else 1.0


def _begins(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def _check_prefix(model: Network, prefix: str, key: str) -> None:
    names = [name for name, _ in model.named_parameters()]
    if not any(_begins(name, prefix) for name in names):
        known = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
        raise ConfigError(f"{key}: no parameter begins with {prefix!r}; the network has {known}")
