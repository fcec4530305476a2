"""The training loop: one step after another, resumable at any of them."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from htdemucs.errors import HTDemucsError
from htdemucs.model import HTDemucs
from htdemucs.training import optimisation, state
from htdemucs.training.averaging import Average
from htdemucs.training.config import TrainConfig
from htdemucs.training.examples import Examples, loader
from htdemucs.training.losses import SourceLoss
from htdemucs.weights import save_model


class TrainingError(HTDemucsError):
    """A run that cannot go on."""


@dataclass(frozen=True)
class Report:
    """What a stretch of steps came to."""

    step: int
    loss: float
    gradient: float
    rate: float
    examples_per_second: float
    valid: dict[str, float] = field(default_factory=dict)


Validate = Callable[[HTDemucs], dict[str, float]]


class Trainer:
    """One run of training.

    Args:
        config: of the run.
        model: what to train.
        examples: what to train on.
        validate: scores a model; its "loss" chooses the best one.
        accelerator: devices and processes.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: HTDemucs,
        examples: Examples,
        validate: Validate,
        accelerator: Accelerator,
    ) -> None:
        self.config, self.examples, self.validate = config, examples, validate
        self.accelerator = accelerator
        self.step = 0
        self.best: dict[str, float] = {}
        self.averages = [Average(decay) for decay in config.optim.ema]
        self.loss = SourceLoss(
            len(model.sources), config.optim.source_weights, config.optim.stft_weight
        ).to(accelerator.device)
        self.plain = model
        optimizer = optimisation.optimizer(model, config.optim)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)

    def resume(self) -> bool:
        """Go on from the run's checkpoint, if it has one."""
        saved = state.load(self.config.out)
        if saved is None:
            return False
        self.step, self.best = saved["step"], saved["best"]
        self.plain.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        for average, held in zip(self.averages, saved["averages"], strict=True):
            average.load_state_dict(held)
        return True

    def save(self) -> None:
        """Write the run's checkpoint."""
        if not self.accelerator.is_main_process:
            return
        state.save(
            self.config.out,
            {
                "step": self.step,
                "best": self.best,
                "model": self.plain.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "averages": [average.state_dict() for average in self.averages],
            },
        )

    def run(self) -> Iterator[Report]:
        """Train to the last step; a report every `log_every` steps and after each validation."""
        config = self.config
        batches = iter(self._loader())
        losses: list[Tensor] = []
        since, first = time.perf_counter(), self.step
        while self.step < config.steps:
            fraction = optimisation.set_rate(
                self.optimizer, config.optim, self.step, config.steps
            )
            loss, gradient = self._step(batches)
            losses.append(loss)
            self.step += 1
            valid = self._validated() if self.step % config.valid_every == 0 else {}
            if self.step % config.save_every == 0 or self.step == config.steps:
                self.save()
            if self.step % config.log_every == 0 or valid or self.step == config.steps:
                speed = (self.step - first) * config.batch_size / (time.perf_counter() - since)
                mean = float(torch.stack(losses).mean())
                yield self._logged(Report(self.step, mean, gradient, fraction, speed, valid))
                losses, since, first = [], time.perf_counter(), self.step

    def _loader(self) -> Any:
        return loader(
            self.examples,
            first=self.step,
            last=self.config.steps,
            parts=self.config.accumulate,
            process=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
            workers=self.config.data.workers,
        )

    def _step(self, batches: Iterator[Tensor]) -> tuple[Tensor, float]:
        """One optimiser step over all its parts; the mean loss and the gradient's norm."""
        # Dropout is a function of the step too, so that nothing of it must be saved.
        torch.manual_seed(hash((self.config.seed, self.step, self.accelerator.process_index)))
        self.model.train()
        parts = self.config.accumulate
        total = torch.zeros((), device=self.accelerator.device)
        for part in range(parts):
            sources = next(batches).to(self.accelerator.device, non_blocking=True)
            with self.accelerator.autocast():
                estimates = self.model(sources.sum(1))
            loss = self.loss(estimates.float(), sources) / parts
            self._check_finite(loss, sources)
            if part < parts - 1:
                with self.accelerator.no_sync(self.model):
                    self.accelerator.backward(loss)
            else:
                self.accelerator.backward(loss)
            total += loss.detach()
        gradient = optimisation.clip(self.model, self.config.optim.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        for average in self.averages:
            average.update(self.plain)
        return self.accelerator.reduce(total, "mean"), gradient

    def _check_finite(self, loss: Tensor, sources: Tensor) -> None:
        if loss.isfinite():
            return
        path = self.config.out / f"not-finite-{self.step}.pt"
        torch.save({"step": self.step, "sources": sources.cpu()}, path)
        raise TrainingError(
            f"the loss of step {self.step} is not finite; its batch is in {path}; "
            "lower optim.lr or set optim.clip, then run again to go on from the last checkpoint"
        )

    def _validated(self) -> dict[str, float]:
        """Score the raw model and the averaged ones; keep the best."""
        if not self.accelerator.is_main_process:
            return {}
        scores: dict[str, float] = {}
        raw = {name: value.clone() for name, value in self.plain.state_dict().items()}
        candidates = {"raw": raw} | {f"ema {a.decay}": a.parameters() for a in self.averages}
        for label, parameters in candidates.items():
            self.plain.load_state_dict(parameters)
            self.plain.eval()
            found = self.validate(self.plain)
            scores |= {f"{label} {name}": value for name, value in found.items()}
            if found["loss"] < self.best.get("loss", float("inf")):
                self.best = found | {"step": self.step}
                save_model(self.plain, self.config.out / "best")
        self.plain.load_state_dict(raw)
        return scores

    def _logged(self, report: Report) -> Report:
        if self.accelerator.is_main_process:
            with (self.config.out / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(report.__dict__) + "\n")
        return report
