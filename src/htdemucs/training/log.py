"""The log of a run: a line of JSON per entry, and curves for TensorBoard."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from htdemucs.fsutil import atomic_write

FILE = "log.jsonl"


@dataclass(frozen=True)
class LogEntry:
    """A line of the log, about the steps since the previous line.

    Attributes:
        step: the last of these steps, counted from 1; 0 for a validation before the first one.
        loss: their mean loss.
        gradient: norm of the last step's gradient, before clipping.
        rate: fraction of the full learning rate.
        examples_per_second: speed of all processes together.
        waiting: fraction of the time that was spent waiting for data.
        valid: scores of the raw model and of each average, if they were validated after this step.
        best: the best validation so far.
    """

    step: int
    loss: float
    gradient: float
    rate: float
    examples_per_second: float
    waiting: float
    valid: dict[str, dict[str, float]] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)


class TrainingLog:
    """Writes the log of a run; opening it deletes the lines after `step`.

    Args:
        folder: folder of the run.
        step: the last step of the checkpoint that the run resumes from, or 0.
        tensorboard: also write curves to `tensorboard/`.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool) -> None:
        self._path = folder / FILE
        if self._path.exists():
            lines = self._path.read_text(encoding="utf-8").splitlines()
            with atomic_write(self._path) as partial:
                valid = "".join(f"{line}\n" for line in lines if _step(line) <= step)
                partial.write_text(valid, encoding="utf-8")
        self._writer = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write_changes(self, step: int, changes: Sequence[str]) -> None:
        """Add a line with what differs from the configuration up to `step`."""
        self._write_line({"step": step, "changes": list(changes)})

    def write(self, entry: LogEntry) -> None:
        """Add a line."""
        self._write_line(asdict(entry))
        if self._writer is None:
            return
        for name in ("loss", "gradient", "rate", "examples_per_second") if entry.step else ():
            self._writer.add_scalar(f"train/{name}", getattr(entry, name), entry.step)
        for model, scores in entry.valid.items():
            for name, value in scores.items():
                self._writer.add_scalar(f"valid {model}/{name}", value, entry.step)

    def _write_line(self, fields: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as log:
            log.write(json.dumps(fields) + "\n")

    def close(self) -> None:
        """Write what TensorBoard's writer still buffers."""
        if self._writer is not None:
            self._writer.close()


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line cut off by a crash
