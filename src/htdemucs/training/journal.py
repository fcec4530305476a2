"""What a run reports, kept: a line of JSON a report, and curves for TensorBoard."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from htdemucs.files import replacing

FILE = "log.jsonl"


@dataclass(frozen=True)
class Report:
    """What a stretch of steps came to.

    Attributes:
        step: the last of them, counted from 1.
        loss: mean over the stretch.
        gradient: norm of the last step's gradient, before clipping.
        rate: fraction of the full learning rate.
        examples_per_second: over all processes.
        waiting: fraction of the time spent waiting for data.
        valid: scores of the raw model and of each average, if they were validated.
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


class Journal:
    """The log of the run in a folder, gone on with after `step`: later lines are forgotten.

    Args:
        folder: of the run.
        step: the last step that counts.
        tensorboard: also keep curves in `tensorboard/`.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool) -> None:
        self._path = folder / FILE
        if self._path.exists():
            lines = self._path.read_text(encoding="utf-8").splitlines()
            with replacing(self._path) as partial:
                kept = [line for line in lines if _step(line) <= step]
                partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._writer = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, report: Report) -> None:
        """Keep a report."""
        with self._path.open("a", encoding="utf-8") as log:
            log.write(json.dumps(asdict(report)) + "\n")
        if self._writer is None:
            return
        for name in ("loss", "gradient", "rate", "examples_per_second"):
            self._writer.add_scalar(f"train/{name}", getattr(report, name), report.step)
        for model, scores in report.valid.items():
            for name, value in scores.items():
                self._writer.add_scalar(f"valid {model}/{name}", value, report.step)

    def close(self) -> None:
        """Write what is still held back."""
        if self._writer is not None:
            self._writer.close()


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line cut off by a crash
