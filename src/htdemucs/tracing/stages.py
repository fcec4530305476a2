"""`Stage`: one step of a network, the size of its output, and how this size comes about."""

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from htdemucs.tracing.texts import Language, label_of

Branch = Literal["both", "spectral", "time"]


@dataclass(frozen=True)
class Size:
    """The length of one axis.

    Attributes:
        axis: batch, source, channel, bin, frame, sample, step (of the time branch) or token.
        value: the length.
        formula: how it comes about, such as "⌈258602 / 4⌉"; empty if it is given, or is that of
            the stage before.
        meaning: the key of a text about the formula; empty without one.
    """

    axis: str
    value: int
    formula: str = ""
    meaning: str = ""


@dataclass(frozen=True)
class Resolution:
    """What one step of a stage's output is in the music.

    Attributes:
        seconds: from one frame, step or sample to the next.
        hertz: from one frequency bin to the next; None in the time branch.
        reach_seconds: how much of the mixture convolutions and the STFT let one step see; None for
            the whole segment. Norms and attention see all of it.
        reach_hertz: the same along frequency.
    """

    seconds: float
    hertz: float | None = None
    reach_seconds: float | None = None
    reach_hertz: float | None = None


@dataclass(frozen=True)
class Source:
    """Where the tensor of a stage is found while the network runs.

    Attributes:
        module: path of a module, such as "spectral_encoder.0".
        is_input: whether it is the module's first input; else its output.
        part: the number of the output, if the module has several.
    """

    module: str
    is_input: bool = False
    part: int | None = None


@dataclass(frozen=True)
class Stage:
    """One stage; those of depth 2 are the parts of a stage of depth 1.

    Attributes:
        number: as printed, "12" or "12.3".
        key: what it is, such as "spectral_encoder"; `label` gives the words.
        layer: the number in the label, if it has one.
        branch: the branch of the network.
        module: path of the module that computes it, empty for none; see `get_submodule`.
        operation: layer and sizes, in PyTorch's words.
        sizes: the axes of the output.
        resolution: what one step of the output is.
        parameters: their number.
        flop: floating-point operations of matrix products, convolutions and FFTs (5/2 N log2 N for
            a real FFT); a multiply-add counts as two.
        skip: number of the stage whose output is added here; empty for none.
        source: where the output is found while the network runs.
        tensor: the output, if a waveform was given.
        seconds: the time that its modules took; None without a waveform, or if it has none.
    """

    number: str
    key: str
    branch: Branch
    sizes: tuple[Size, ...]
    layer: int | None = None
    module: str = ""
    operation: str = ""
    resolution: Resolution | None = None
    parameters: int = 0
    flop: float = 0.0
    skip: str = ""
    source: Source | None = field(default=None, repr=False)
    tensor: Tensor | None = field(default=None, repr=False, compare=False)
    seconds: float | None = field(default=None, repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the output."""
        return tuple(size.value for size in self.sizes)

    @property
    def shape_text(self) -> str:
        """The sizes as tables and figures write them: "1, 384, 8, 253"."""
        return ", ".join(map(str, self.shape))

    @property
    def depth(self) -> int:
        """1 for a stage, 2 for a part of one."""
        return 1 + self.number.count(".")

    def label(self, language: Language = "en") -> str:
        """Return the name of the stage."""
        return label_of(self.key, self.layer, language)
