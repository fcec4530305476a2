"""The optimiser, its groups, and the learning rate at each step."""

import math

import torch
from torch import nn

from htdemucs.model import HTDemucs, Network
from htdemucs.training.config import OptimConfig


def optimizer(model: Network, config: OptimConfig) -> torch.optim.Optimizer:
    """Return Adam or AdamW with the transformer's parameters in a group of their own."""
    transformer: list[nn.Parameter] = []
    if isinstance(model, HTDemucs) and model.transformer is not None:
        transformer = list(model.transformer.parameters())
    inside = {id(parameter) for parameter in transformer}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    groups = [{"params": rest, "transformer": False}, {"params": transformer, "transformer": True}]
    kind = torch.optim.AdamW if config.kind == "adamw" else torch.optim.Adam
    return kind([group for group in groups if group["params"]], lr=config.lr)


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
