"""The optimiser, its groups, and the learning rate at each step."""

import math

import torch
from torch import nn

from htdemucs.model import HTDemucs
from htdemucs.training.config import OptimConfig


def optimizer(model: HTDemucs, config: OptimConfig) -> torch.optim.Optimizer:
    """Adam or AdamW with the transformer's parameters in a group of their own."""
    transformer = list(model.transformer.parameters()) if model.transformer else []
    inside = {id(parameter) for parameter in transformer}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    groups = [
        {"params": rest, "lr": config.lr, "weight_decay": config.weight_decay},
        {
            "params": transformer,
            "lr": config.lr if config.transformer_lr is None else config.transformer_lr,
            "weight_decay": config.transformer_weight_decay,
        },
    ]
    kind = torch.optim.AdamW if config.kind == "adamw" else torch.optim.Adam
    made = kind([g for g in groups if g["params"]], betas=(0.9, config.beta2))  # type: ignore[arg-type]
    for group in made.param_groups:
        group["full_lr"] = group["lr"]
    return made


def set_rate(made: torch.optim.Optimizer, config: OptimConfig, step: int, steps: int) -> float:
    """Set every group's learning rate for `step`; give the fraction of the full rate."""
    fraction = rate(config, step, steps)
    for group in made.param_groups:
        group["lr"] = group["full_lr"] * fraction
    return fraction


def rate(config: OptimConfig, step: int, steps: int) -> float:
    """The fraction of the full learning rate at `step` (from 0) of `steps`."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.decay == "none":
        return 1.0
    done = (step - config.warmup) / max(1, steps - config.warmup)
    return config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * done))


def clip(model: nn.Module, limit: float) -> float:
    """Scale gradients down to a norm of `limit` (0: leave them); give the norm before."""
    bound = limit or math.inf
    return float(torch.nn.utils.clip_grad_norm_(model.parameters(), bound))
