"""Scores of estimates against references, from sums over frames of a second.

BSS Eval v4 filters the references to separate spatial distortion, interference and artifacts. Its
SDR divides the reference's energy by that of the three together. The three add up to
`estimate - reference` for any filters, so the SDR needs no filters. museval's frames and its rules
for silence are the same here.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-7  # the MDX challenge adds it to both energies, so that nsdr is always finite
SILENCE = 1e-8  # mean square: a reference below -80 dB is silent, and its scores mean nothing
DEFAULT_METRICS = ("nsdr", "museval_sdr", "si_sdr")
BLEED_METRICS = ("bleedless", "fullness")
METRICS = (*DEFAULT_METRICS, *BLEED_METRICS)


@dataclass(frozen=True)
class StemScores:
    """The scores of one stem of one track; NaN where a score is undefined.

    Attributes:
        nsdr: the MDX challenge's SDR: one ratio over the whole track and all channels, dB.
        museval_sdr: BSS Eval v4's SDR: median over frames of a second, without NaN and
            infinite frames, as in museval's summary, dB.
        si_sdr: scale-invariant SDR (arXiv 1811.02508), whole track, one scale for all channels, dB.
        frames: BSS Eval v4's SDR of every frame, dB: NaN if a reference or an estimate of any stem
            is silent in it, infinite without any error.
        bleedless, fullness: 0 to 100, see `BleedMeter`; NaN unless they were asked for.
    """

    nsdr: float
    museval_sdr: float
    si_sdr: float
    frames: tuple[float, ...]
    bleedless: float = math.nan
    fullness: float = math.nan


@dataclass(frozen=True)
class _Fit:
    """Estimates as scaled references and a rest; all attributes have the shape (...).

    The rest is summed after the scaled reference is subtracted: a difference of sums would lose it
    where it is small. Parts are joined as in Chan's algorithm for variances.

    Attributes:
        reference: energy of the references.
        scale: the factor that brings a reference nearest to its estimate.
        rest: energy of estimate - scale * reference.
    """

    reference: Tensor
    scale: Tensor
    rest: Tensor

    def join(self, other: "_Fit") -> "_Fit":
        """Return the fit of two parts as one."""
        total = self.reference + other.reference
        share = _divide(other.reference, total)
        step = other.scale - self.scale
        rest = self.rest + other.rest + step.square() * self.reference * share
        return _Fit(total, self.scale + step * share, rest)

    def si_sdr(self) -> Tensor:
        """Return the scale-invariant SDR, dB; NaN where reference or estimate is silent."""
        scaled = self.scale.square() * self.reference
        sounds = (self.reference > 0) & (scaled + self.rest > 0)
        return torch.where(sounds, _decibels(scaled / self.rest), math.nan)


class ScoreMeter:
    """Computes the scores of S stems, frame by frame.

    All stems are scored together, because a frame in which one of them is silent counts for none of
    them in museval.
    """

    def __init__(self, frame_length: int) -> None:
        self.frame_length = frame_length  # samples in a second
        self._sums: Tensor = torch.zeros(())
        self._fit = _Fit(*torch.zeros(3, dtype=torch.float64))
        self._frames: list[Tensor] = []
        self._length = 0

    def push(self, references: Tensor, estimates: Tensor) -> None:
        """Add the next frame, (S, C, L) twice; only the last may be shorter than the others."""
        length = references.shape[-1]
        if self._length % self.frame_length or length > self.frame_length:
            raise ValueError(f"frames must have {self.frame_length} samples, the last one fewer")
        references, estimates = _exact(references, estimates)
        sums = _sums(references, estimates)
        self._sums = self._sums + sums
        self._fit = self._fit.join(_fit(references, estimates))
        if length == self.frame_length or not self._length:  # museval skips an incomplete frame,
            self._frames.append(
                _frame_sdr(sums, references, estimates)
            )  # unless it is the only one
        self._length += length

    def museval_frames(self) -> Tensor:
        """Return (S, frames) as museval does: NaN for silence, infinity without error."""
        return torch.stack(self._frames, dim=-1)

    def scores(self) -> list[StemScores]:
        """Return the scores of each stem."""
        nsdr, si_sdr = _nsdr(self._sums).tolist(), self._fit.si_sdr().tolist()
        frames = self.museval_frames()
        return [
            StemScores(
                nsdr[stem],
                _median(row),
                si_sdr[stem],
                frames=tuple(row.tolist()),
            )
            for stem, row in enumerate(frames)
        ]


def nsdr(references: Tensor, estimates: Tensor) -> Tensor:
    """(..., C, L) twice -> (...), float64 on the CPU: the MDX challenge's SDR, dB.

    10 log10 of (energy of the reference + 1e-7) / (energy of the difference + 1e-7), each summed
    over all channels and the whole track. Always finite. `float(nsdr(reference, estimate))` is
    the score of one stem; stems (S, C, L) give one score each.
    """
    return _nsdr(_sums(*_exact(references, estimates)))


def si_sdr(references: Tensor, estimates: Tensor) -> Tensor:
    """(..., C, L) twice -> (...): scale-invariant SDR, dB (arXiv 1811.02508, means left in).

    The reference is scaled by the factor, one for all channels, that brings it nearest to the
    estimate. The score is NaN if the reference or the estimate is silent, and infinite if only the
    level differs.
    """
    return _fit(*_exact(references, estimates)).si_sdr()


def museval_frames(references: Tensor, estimates: Tensor, sample_rate: int) -> Tensor:
    """(S, C, L) twice -> (S, frames): BSS Eval v4's SDR of every second, dB.

    - A frame is NaN for every stem if any reference or estimate is silent in it. As in museval,
      silent means that the channels add up to zero, as they also do in opposite phase.
    - A frame without any error is infinite.
    - A last frame shorter than a second is not scored, unless it is the only one.

    museval raises an error if a stem is silent throughout; here, all frames are then NaN.
    """
    meter = ScoreMeter(sample_rate)
    for reference, estimate in zip(
        references.split(sample_rate, dim=-1), estimates.split(sample_rate, dim=-1), strict=True
    ):
        meter.push(reference, estimate)
    return meter.museval_frames()


def museval_sdr(references: Tensor, estimates: Tensor, sample_rate: int) -> Tensor:
    """(S, C, L) twice -> (S,): the median of `museval_frames`, without NaN and infinity."""
    frames = museval_frames(references, estimates, sample_rate)
    return torch.tensor([_median(row) for row in frames], dtype=torch.float64)


def _exact(references: Tensor, estimates: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in float64, on the CPU because some devices lack it; check the shapes."""
    if references.shape != estimates.shape:
        raise ValueError(f"{list(references.shape)} and {list(estimates.shape)} differ")
    return references.to("cpu", torch.float64), estimates.to("cpu", torch.float64)


def _sums(references: Tensor, estimates: Tensor) -> Tensor:
    """(..., C, L) twice -> (2, ...): energies of the reference and of the error."""
    return torch.stack([x.square().sum((-2, -1)) for x in (references, estimates - references)])


def _fit(references: Tensor, estimates: Tensor) -> _Fit:
    energy = references.square().sum((-2, -1))
    scale = _divide((references * estimates).sum((-2, -1)), energy)
    rest = (estimates - scale[..., None, None] * references).square().sum((-2, -1))
    return _Fit(energy, scale, rest)


def _divide(a: Tensor, b: Tensor) -> Tensor:
    """Return a / b, and 0 where b is 0."""
    return torch.where(b > 0, a / b, 0.0)


def _nsdr(sums: Tensor) -> Tensor:
    reference, error = sums
    return _decibels((reference + EPSILON) / (error + EPSILON))


def _frame_sdr(sums: Tensor, references: Tensor, estimates: Tensor) -> Tensor:
    """(2, S) and (S, C, L) twice -> (S,)"""
    if any(bool((x.sum(1) == 0).all(1).any()) for x in (references, estimates)):
        return torch.full_like(sums[0], math.nan)
    return _decibels(sums[0] / sums[1])


def _median(row: Tensor) -> float:
    """Return the median of the finite values; NaN if there are none."""
    finite = row[row.isfinite()].sort().values
    middle = finite.numel() // 2
    if not finite.numel():
        return math.nan
    return float(finite[[middle, -middle - 1]].mean())


def _decibels(ratio: Tensor) -> Tensor:
    return 10 * ratio.log10()
