"""The options of an evaluation."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from htdemucs.errors import EvaluationError


@dataclass(frozen=True)
class EvaluationOptions:
    """The options of an evaluation.

    Attributes:
        model: any name or path that `load_model` takes; with `estimates`, only a name for them.
        repo: a folder to take the model's name from.
        estimates: a folder of stems to score instead of separating.
        stems: score only these; by default the model's, or all that have estimates and references.
        device, shifts, overlap, segment, batch_size: as for `Separator`.
        precision: as for `Separator`, except that fp32 is the default: the same on every machine.
        seed: seed of the separator's random lead-ins, and of the intervals' resampling.
        oracle: score the ideal ratio mask as well.
        spectra: keep spectrograms of stems and errors, for the report.
        workers: processes that share the tracks.

    Raises:
        EvaluationError: there are no workers, or a stem is named twice.
    """

    model: str
    repo: Path | None = None
    estimates: Path | None = None
    stems: tuple[str, ...] | None = None
    device: str | None = None
    shifts: int = 1
    overlap: float = 0.25
    segment: float | None = None
    batch_size: int | None = None
    precision: str = "fp32"
    seed: int = 0
    oracle: bool = True
    spectra: bool = False
    workers: int = 1

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise EvaluationError(f"workers must be at least 1, not {self.workers}")
        if self.stems and len(set(self.stems)) < len(self.stems):
            raise EvaluationError(f"name each stem once, not {','.join(self.stems)}")

    def to_dict(self) -> dict[str, Any]:
        """Return everything that scores depend on, for a JSON file."""
        fields = asdict(self)
        for name in ("device", "spectra", "workers"):
            del fields[name]
        return {k: str(v) if isinstance(v, Path) else v for k, v in fields.items()}
