"""The settings of the engine and their defaults, for Python and the command line."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from htdemucs.errors import SeparationError

# MB of attention scores that an exported network computes at a time. By default WebGPU binds
# tensors of up to 128 MiB; of a larger one ONNX Runtime leaves the rest zero, without an error.
ATTENTION_CHUNK = 64.0


@dataclass(frozen=True)
class EngineSettings:
    """The settings of a `Separator`.

    Attributes:
        shifts: average this many runs, each with a random lead-in of up to half a second; 0: one
            run without a lead-in.
        overlap: shared fraction of neighbouring segments, from 0 to below 1.
        segment: seconds; by default the model's own segment, which is the longest for HTDemucs.
        batch_size: segments in a batch; by default 1 on a CPU and as many as should fit on a GPU.
            When a GPU's memory is full, batches become smaller; if it is too small for one segment,
            the CPU takes over, with a warning.
        precision: precision of the network's matrix products: fp32, bf16, fp16, or auto for the
            fastest one that the device supports well.
        compiled: use torch.compile, for GPUs. The start is slow, the first one most.
        seed: seed of the random lead-ins. The same seed gives the same result.
        split: False refuses tracks longer than one segment instead of cutting them.

    Raises SeparationError for an impossible value.
    """

    shifts: int = 1
    overlap: float = 0.25
    segment: float | Fraction | None = None
    batch_size: int | None = None
    precision: str = "auto"
    compiled: bool = False
    seed: int = 0
    split: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "shifts", whole_number("shifts", self.shifts, 0))
        if self.batch_size is not None:
            object.__setattr__(self, "batch_size", whole_number("batch_size", self.batch_size, 1))
        if not 0 <= self.overlap < 1:
            raise SeparationError(f"overlap must be at least 0 and below 1, not {self.overlap}")


def whole_number(name: str, value: Any, minimum: int) -> int:
    """Return an int for a whole number of any type, such as 2.0 or one of NumPy's.

    Raises:
        SeparationError: the value is not a whole number, or is below the minimum.
    """
    try:
        whole = int(value)
    except (TypeError, ValueError, OverflowError):
        raise SeparationError(f"{name} must be a whole number, not {value!r}") from None
    if whole != value or isinstance(value, str):
        raise SeparationError(f"{name} must be a whole number, not {value!r}")
    if whole < minimum:
        raise SeparationError(f"{name} must be at least {minimum}, not {whole}")
    return whole
