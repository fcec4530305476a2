"""The training loop, which can be resumed after any step.

All random draws of a step depend on the run's seed and on the step alone, so a checkpoint holds
parameters, the optimiser's state and averages, and nothing else.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from htdemucs.errors import CheckpointError, ConfigError, TrainingError
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
from htdemucs.weights import save_model

Validate = Callable[[Network], dict[str, float]]
BEST, LAST = "best", "last"  # folders of the run's models


class Trainer:
    """One run of training.

    Args:
        config: the run's configuration.
        network: the network to train.
        examples: the examples to train on.
        validate: scores a network by "loss" and "nsdr"; None without music to validate with.
        accelerator: devices and processes.

    Raises:
        ConfigError: the batch cannot be shared among the processes, or `compiled` is asked for a
            network without a core.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: Network,
        examples: StemDataset,
        validate: Validate | None,
        accelerator: Accelerator,
    ) -> None:
        if config.batch_size % (accelerator.num_processes * config.accumulate):
            raise ConfigError(
                f"batch_size must be a multiple of {accelerator.num_processes} processes times "
                f"{config.accumulate} accumulated parts"
            )
        self.config, self.network, self.examples = config, network, examples
        self.validate, self.accelerator = validate, accelerator
        self.step = 0  # steps done
        self.best: dict[str, float] = {}
        self.averages = [ExponentialMovingAverage(decay) for decay in config.optim.ema]
        self.loss = SourceLoss(
            len(network.sources),
            config.optim.loss,
            config.optim.source_weights,
            config.optim.stft_weight,
            loss_region(config.optim, network.sample_rate),
        ).to(accelerator.device)
        if config.compiled:
            if not isinstance(network, HybridNetwork):
                raise ConfigError("compiling needs a network with a core: HTDemucs or HDemucs")
            self._compiled_core = compile_function(network.core)
        optimizer = optim.optimizer(network, config.optim)
        # `network` holds the parameters; `model` is the same, wrapped to share its gradients.
        self.model: nn.Module
        self.model, self.optimizer = accelerator.prepare(network, optimizer)
        self._stopping = False

    def resume(self) -> bool:
        """Resume from the checkpoint in the run's folder; return whether there was one.

        Raises:
            CheckpointError: it is damaged, or of another network.
        """
        saved = checkpoint.load(self.config.out)
        if saved is None:
            return False
        if saved["config"] != self.network.config.to_dict() or (
            saved["decays"] != [average.decay for average in self.averages]
        ):
            raise CheckpointError(
                f"{self.config.out} holds a run of another network or other averages; "
                "name another folder with out=…"
            )
        try:
            self.optimizer.load_state_dict(saved["optimizer"])
        except ValueError as error:
            raise CheckpointError(
                f"{self.config.out} holds a run with another optim.kind; "
                "name another folder with out=…"
            ) from error
        self.step, self.best = saved["step"], saved["best"]
        self.network.load_state_dict(saved["model"])
        for average, values in zip(self.averages, saved["averages"], strict=True):
            average.load_state_dict(values, self.accelerator.device)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(saved["scaler"])
        return True

    def save(self) -> None:
        """Write the run's checkpoint."""
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        checkpoint.save(
            self.config.out,
            {
                "step": self.step,
                "best": self.best,
                "config": self.network.config.to_dict(),
                "model": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "decays": [average.decay for average in self.averages],
                "averages": [average.state_dict() for average in self.averages],
                "scaler": scaler.state_dict() if scaler is not None else {},
            },
        )

    def stop(self) -> None:
        """Ask `run` to end after the step it is at."""
        self._stopping = True

    def run(self) -> Iterator[LogEntry]:
        """Train up to the last step; yield every `log_every` steps and after each validation.

        After a call of `stop` it saves a checkpoint and ends.

        Raises:
            TrainingError: the loss is not finite.
            AudioError: a file cannot be read.
        """
        config = self.config
        stretch = _Stretch()
        examples = self._batches(self.step, config.steps)
        while self.step < config.steps and not self._stop_wanted():
            loss, gradient = self._train_step(examples, stretch)
            stretch.losses.append(loss)
            self.step += 1
            stretch.end()
            last = self.step == config.steps
            valid = self._validated() if last or self.step % config.valid_every == 0 else {}
            if self.step % config.save_every == 0:
                self.save()
            if last or valid or self.step % config.log_every == 0:
                rate = optim.rate(config.optim, self.step - 1, config.steps)
                yield stretch.entry(self.step, config.batch_size, gradient, rate, valid, self.best)
                stretch = _Stretch()
        self.save()
        if self.step == config.steps and self.accelerator.is_main_process:
            save_model(self.network, config.out / LAST)

    def benchmark(self, steps: int) -> LogEntry:
        """Time some steps after a first one, and save nothing."""
        examples = self._batches(0, steps + 1)
        self._train_step(examples, _Stretch())
        stretch = _Stretch()
        for _ in range(steps):
            loss, gradient = self._train_step(examples, stretch)
            stretch.losses.append(loss)
        stretch.end()
        return stretch.entry(steps, self.config.batch_size, gradient, 0.0, {}, {})

    def _batches(self, first: int, last: int) -> Iterator[Tensor]:
        return batches(
            self.examples,
            first=first,
            last=last,
            parts=self.config.accumulate,
            process=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
            workers=self.config.data.workers,
        )

    def _stop_wanted(self) -> bool:
        """Return whether any process was asked to stop: all must end at the same step."""
        if self.accelerator.num_processes == 1:
            return self._stopping
        asked = torch.tensor(float(self._stopping), device=self.accelerator.device)
        return bool(self.accelerator.reduce(asked, "sum") > 0)

    def _train_step(self, examples: Iterator[Tensor], stretch: "_Stretch") -> tuple[Tensor, Tensor]:
        """Compute one step from all its parts; return its loss and its gradient's norm."""
        config, accelerator = self.config, self.accelerator
        seed_torch(config.seed, "dropout", self.step, accelerator.process_index)
        optim.configure(self.optimizer, config.optim, self.step, config.steps)
        self.model.train()
        total = torch.zeros((), device=accelerator.device)
        for part in range(config.accumulate):
            batch = stretch.next(examples).to(accelerator.device, non_blocking=True)
            mixture, sources = batch[:, 0], batch[:, 1:]
            with self._compiled():
                estimates = self.model(mixture).float()
            loss = self.loss(estimates, sources) / config.accumulate
            if part < config.accumulate - 1:
                with accelerator.no_sync(self.model):
                    accelerator.backward(loss)
            else:
                accelerator.backward(loss)
            self._check_finite(loss, batch)  # waits for a GPU, so it comes after all is asked for
            total += loss.detach()
        limit = config.optim.clip or float("inf")
        gradient = accelerator.clip_grad_norm_(self.model.parameters(), limit)
        self.optimizer.step()
        self.optimizer.zero_grad()
        for average in self.averages:
            average.update(self.network)
        return accelerator.reduce(total, "mean"), gradient

    @contextmanager
    def _compiled(self) -> Iterator[None]:
        """Let the network run its compiled core, if asked for; validation runs its own."""
        if not self.config.compiled:
            yield
            return
        vars(self.network)["core"] = self._compiled_core  # before the class's method
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

    def _validated(self) -> dict[str, dict[str, float]]:
        """Score the network and its averages; save the best of all."""
        if self.validate is None:
            return {}
        scores = {}
        raw = {name: value.clone() for name, value in self.network.state_dict().items()}
        averages = {f"ema {a.decay}": a.parameters() for a in self.averages}
        for label, parameters in ({"raw": raw} | averages).items():
            self.network.load_state_dict(parameters)
            scores[label] = self.validate(self.network)
            if self._better(scores[label]):
                self.best = {"step": self.step} | scores[label]
                if self.accelerator.is_main_process:
                    save_model(self.network, self.config.out / BEST)
        self.network.load_state_dict(raw)
        return scores

    def _better(self, scores: dict[str, float]) -> bool:
        if not self.best:
            return True
        if self.config.best_by == "nsdr":
            return scores["nsdr"] > self.best["nsdr"]
        return scores["loss"] < self.best["loss"]


class _Stretch:
    """Measures the steps between two entries of the log."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self._begun = time.perf_counter()
        self._seconds = self._waited = 0.0

    def next(self, examples: Iterator[Tensor]) -> Tensor:
        """Return the next batch, and time it."""
        begun = time.perf_counter()
        batch = next(examples)
        self._waited += time.perf_counter() - begun
        return batch

    def end(self) -> None:
        """Stop the clock after the latest step; later calls move its end."""
        self._seconds = time.perf_counter() - self._begun

    def entry(
        self,
        step: int,
        batch_size: int,
        gradient: Any,
        rate: float,
        valid: dict[str, dict[str, float]],
        best: dict[str, float],
    ) -> LogEntry:
        """Return the entry of the log for the steps up to `step`."""
        loss = float(torch.stack(self.losses).mean())
        speed = len(self.losses) * batch_size / self._seconds
        waiting = self._waited / self._seconds
        return LogEntry(step, loss, float(gradient), rate, speed, waiting, valid, best)
