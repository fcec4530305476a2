"""The training loop, which can be resumed after any step.

The random numbers of a step depend on the run's seed and the step only (`rng.py`), so a checkpoint
needs no generator's state: it has the parameters, the optimiser's state and the averages.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from htdemucs.errors import CheckpointError, ConfigError, HTDemucsError, TrainingError
from htdemucs.fast.runtime import compile_function
from htdemucs.fsutil import atomic_write
from htdemucs.model import Network
from htdemucs.model.hybrid import HybridNetwork
from htdemucs.training import checkpoint, optim
from htdemucs.training.config import TrainConfig
from htdemucs.training.dataloader import StemDataset, batches
from htdemucs.training.ema import ExponentialMovingAverage
from htdemucs.training.log import LogEntry
from htdemucs.training.losses import SourceLoss, loss_region
from htdemucs.training.rng import seed_torch
from htdemucs.weights import load_model, save_model

Validate = Callable[[Network], dict[str, float]]
BEST, LAST = "best", "last"  # folders of the run's models


class Trainer:
    """One run of training.

    Args:
        config: the run's configuration.
        network: the network to train.
        dataset: the examples to train on.
        validate: returns the "loss" and "nsdr" of a network; None without validation tracks.
        accelerator: devices and processes.
        conditions: what the scores depend on, by name. If they differ from those of a checkpoint,
            `run` first scores the best model again.

    Attributes:
        step: finished steps.
        best: step and scores of the best model; empty before the first validation.
        changed_conditions: names of the conditions in which the checkpoint differs.

    Raises:
        ConfigError: the batch size is not a multiple of the processes, or `compiled` is set for a
            network without a core.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: Network,
        dataset: StemDataset,
        validate: Validate | None,
        accelerator: Accelerator,
        conditions: Mapping[str, Any] | None = None,
    ) -> None:
        if config.batch_size % (accelerator.num_processes * config.accumulate):
            raise ConfigError(
                f"batch_size must be a multiple of {accelerator.num_processes} processes times "
                f"{config.accumulate} accumulated parts"
            )
        self.config, self.network, self.dataset = config, network, dataset
        self.validate, self.accelerator = validate, accelerator
        self.step = 0
        self.best: dict[str, float] = {}
        self.conditions = dict(conditions or {})
        self.changed_conditions: list[str] = []
        self.reductions = 0  # of the learning rate by the plateau schedule
        self.stale = 0  # validations since the best one or the last reduction
        self.averages = [ExponentialMovingAverage(decay) for decay in config.optim.ema]
        self.loss = SourceLoss(
            len(network.sources),
            config.optim.loss,
            config.optim.source_weights,
            config.optim.stft_weight,
            loss_region(config.optim, network.sample_rate),
            network.sample_rate,
        ).to(accelerator.device)
        if config.compiled:
            if not isinstance(network, HybridNetwork):
                raise ConfigError("compiled needs HTDemucs or HDemucs; set compiled=false")
            self._compiled_core = compile_function(network.core)
        if config.optim.decay == "plateau" and validate is None:
            raise ConfigError("optim.decay=plateau needs validation tracks; set data.valid")
        optim.freeze(network, config.optim.freeze)
        optimizer = optim.build_optimizer(network, config.optim)
        # `model` is `network`, wrapped so that the processes share gradients.
        self.model: nn.Module
        self.model, self.optimizer = accelerator.prepare(network, optimizer)
        self._stop_requested = False

    def resume(self) -> bool:
        """Load the checkpoint in the run's folder; return false if there is none.

        Raises:
            CheckpointError: the checkpoint is damaged, or belongs to another network.
        """
        saved = checkpoint.load(self.config.out)
        if saved is None:
            return False
        if saved["config"] != self.network.config.to_dict() or (
            saved["decays"] != [average.decay for average in self.averages]
        ):
            raise CheckpointError(
                f"{self.config.out} has a run of another network or other averages; "
                "set out to another folder"
            )
        factors = [group["factor"] for group in self.optimizer.param_groups]
        try:
            self.optimizer.load_state_dict(saved["optimizer"])
        except ValueError as error:
            raise CheckpointError(
                f"{self.config.out} has a run with another optim.kind, freeze or lr_factors; "
                "set out to another folder"
            ) from error
        for group, factor in zip(self.optimizer.param_groups, factors, strict=True):
            group["factor"] = factor  # of this configuration
        self.reductions, self.stale = saved.get("plateau", (0, 0))
        self.step, self.best = saved["step"], saved["best"]
        before = saved.get("conditions", {})
        if self.best and self.validate is not None:
            self.changed_conditions = [
                name for name, value in self.conditions.items() if before.get(name) != value
            ]
        self.network.load_state_dict(saved["model"])
        for average, values in zip(self.averages, saved["averages"], strict=True):
            average.load_state_dict(values, self.accelerator.device)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(saved["scaler"])
        return True

    def save(self) -> None:
        """Write the checkpoint to the run's folder."""
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        checkpoint.save(
            self.config.out,
            {
                "step": self.step,
                "best": self.best,
                "conditions": self.conditions,
                "plateau": [self.reductions, self.stale],
                "config": self.network.config.to_dict(),
                "model": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "decays": [average.decay for average in self.averages],
                "averages": [average.state_dict() for average in self.averages],
                "scaler": scaler.state_dict() if scaler is not None else {},
            },
            self.config.keep,
        )

    def stop(self) -> None:
        """Make `run` end after the current step."""
        self._stop_requested = True

    def run(self) -> Iterator[LogEntry]:
        """Train to the last step; yield every `log_every` steps and after each validation.

        After a call of `stop`, the run saves a checkpoint and ends.

        Raises:
            TrainingError: the loss is not finite.
            AudioError: a file cannot be read.
        """
        config = self.config
        if self.changed_conditions:
            self._score_best_again()
        if config.pre_valid and self.step == 0 and (scores := self._validate_all()):
            yield LogEntry(0, 0.0, 0.0, 0.0, 0.0, 0.0, scores, self.best)
        interval = _LogInterval()
        loader = self._batches(self.step, config.steps)
        while self.step < config.steps and not self._should_stop():
            loss, gradient = self._train_step(loader, interval)
            interval.losses.append(loss)
            self.step += 1
            interval.end()
            last = self.step == config.steps
            rate = self._rate()
            valid = self._validate_all() if last or self.step % config.valid_every == 0 else {}
            if self.step % config.save_every == 0:
                self.save()
            if last or valid or self.step % config.log_every == 0:
                yield interval.entry(self.step, config.batch_size, gradient, rate, valid, self.best)
                interval = _LogInterval()
        self.save()
        if self.step == config.steps and self.accelerator.is_main_process:
            save_model(self.network, config.out / LAST)

    def benchmark(self, steps: int) -> LogEntry:
        """Time some steps after an untimed one; save nothing."""
        loader = self._batches(0, steps + 1)
        self._train_step(loader, _LogInterval())
        interval = _LogInterval()
        for _ in range(steps):
            loss, gradient = self._train_step(loader, interval)
            interval.losses.append(loss)
        interval.end()
        return interval.entry(steps, self.config.batch_size, gradient, 0.0, {}, {})

    def _batches(self, first: int, last: int) -> Iterator[Tensor]:
        return batches(
            self.dataset,
            first=first,
            last=last,
            parts=self.config.accumulate,
            process=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
            workers=self.config.data.workers,
        )

    def _rate(self) -> float:
        """Return the fraction of the full learning rate in the last step."""
        config = self.config
        return optim.learning_rate_fraction(
            config.optim, self.step - 1, config.steps, self.reductions
        )

    def _should_stop(self) -> bool:
        """Return whether any process was told to stop: all must end after the same step."""
        if self.accelerator.num_processes == 1:
            return self._stop_requested
        requested = torch.tensor(float(self._stop_requested), device=self.accelerator.device)
        return bool(self.accelerator.reduce(requested, "sum") > 0)

    def _train_step(
        self, loader: Iterator[Tensor], interval: "_LogInterval"
    ) -> tuple[Tensor, Tensor]:
        """Take one optimiser step; return its loss and the norm of its gradient."""
        config, accelerator = self.config, self.accelerator
        seed_torch(config.seed, "dropout", self.step, accelerator.process_index)
        optim.apply_schedule(self.optimizer, config.optim, self.step, config.steps, self.reductions)
        self.model.train()
        total = torch.zeros((), device=accelerator.device)
        for part in range(config.accumulate):
            batch = interval.next_batch(loader).to(accelerator.device, non_blocking=True)
            mixture, sources = batch[:, 0], batch[:, 1:]
            with self._use_compiled_core():
                estimates = self.model(mixture).float()
            loss = self.loss(estimates, sources) / config.accumulate
            if part < config.accumulate - 1:
                with accelerator.no_sync(self.model):
                    accelerator.backward(loss)
            else:
                accelerator.backward(loss)
            self._check_finite(loss, batch)  # waits for a GPU, so it is last
            total += loss.detach()
        limit = config.optim.clip or float("inf")
        gradient = accelerator.clip_grad_norm_(self.model.parameters(), limit)
        self.optimizer.step()
        self.optimizer.zero_grad()
        for average in self.averages:
            average.update(self.network)
        return accelerator.reduce(total, "mean"), gradient

    @contextmanager
    def _use_compiled_core(self) -> Iterator[None]:
        """Make the network use its compiled core, if configured; validation uses the plain one."""
        if not self.config.compiled:
            yield
            return
        vars(self.network)["core"] = self._compiled_core  # overrides the class's method
        try:
            yield
        finally:
            del vars(self.network)["core"]

    def _check_finite(self, loss: Tensor, batch: Tensor) -> None:
        if loss.isfinite():
            return
        path = self.config.out / f"not-finite-{self.step + 1}.pt"
        with atomic_write(path) as partial:
            torch.save({"step": self.step + 1, "batch": batch.cpu()}, partial)
        raise TrainingError(
            f"the loss of step {self.step + 1} is not finite; its batch is in {path}; lower "
            "optim.lr or set optim.clip, then run again to resume from the last checkpoint"
        )

    def _validate_all(self) -> dict[str, dict[str, float]]:
        """Score the network and its averages; save the best one."""
        if self.validate is None:
            return {}
        scores = {}
        raw = {name: value.clone() for name, value in self.network.state_dict().items()}
        averages = {f"ema {a.decay}": a.parameters() for a in self.averages if self.step}
        for label, parameters in ({"raw": raw} | averages).items():
            self.network.load_state_dict(parameters)
            scores[label] = self.validate(self.network)
            if self._better(scores[label]):
                self.best = {"step": self.step} | scores[label]
                if self.accelerator.is_main_process:
                    save_model(self.network, self.config.out / BEST)
        self.network.load_state_dict(raw)
        self.stale = 0 if self.best.get("step") == self.step else self.stale + 1
        if (
            self.config.optim.decay == "plateau"
            and self.stale >= self.config.optim.plateau_patience
        ):
            self.reductions, self.stale = self.reductions + 1, 0
        return scores

    def _score_best_again(self) -> None:
        """Score the saved best model under the present conditions; forget it if it is gone."""
        assert self.validate is not None
        try:
            model = load_model(self.config.out / BEST, device=self.accelerator.device)
        except HTDemucsError:
            self.best = {}
        else:
            assert isinstance(model, Network)
            self.best = {"step": self.best["step"]} | self.validate(model)
        self.changed_conditions = []

    def _better(self, scores: dict[str, float]) -> bool:
        name = self.config.best_by
        sign = -1 if name == "loss" else 1
        before, now = (sign * found.get(name, math.nan) for found in (self.best, scores))
        return not self.best or now > before or (math.isnan(before) and not math.isnan(now))


class _LogInterval:
    """Measures loss and speed between two entries of the log."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self._start = time.perf_counter()
        self._seconds = self._waiting = 0.0

    def next_batch(self, loader: Iterator[Tensor]) -> Tensor:
        """Return the next batch; count the time as waiting."""
        start = time.perf_counter()
        batch = next(loader)
        self._waiting += time.perf_counter() - start
        return batch

    def end(self) -> None:
        """Set the interval's end to now."""
        self._seconds = time.perf_counter() - self._start

    def entry(
        self,
        step: int,
        batch_size: int,
        gradient: Tensor,
        rate: float,
        valid: dict[str, dict[str, float]],
        best: dict[str, float],
    ) -> LogEntry:
        """Return the entry of the log for the steps up to `step`."""
        return LogEntry(
            step,
            loss=float(torch.stack(self.losses).mean()),
            gradient=float(gradient),
            rate=rate,
            examples_per_second=len(self.losses) * batch_size / self._seconds,
            waiting=self._waiting / self._seconds,
            valid=valid,
            best=best,
        )
