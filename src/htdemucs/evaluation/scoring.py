"""Score one multitrack: its estimates, and two baselines: the mixture itself and the ideal mask."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from itertools import tee
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from htdemucs.audio import reblock
from htdemucs.environment import peak_device_memory, peak_memory, sha256
from htdemucs.errors import EvaluationError
from htdemucs.evaluation.band_spectrogram import BandSpectrogram
from htdemucs.evaluation.bleed import BleedMeter
from htdemucs.evaluation.dataset import Frame, Multitrack, MultitrackReader, choose_stems
from htdemucs.evaluation.estimates import Estimates, Estimator
from htdemucs.evaluation.metrics import (
    BLEED_METRICS,
    DEFAULT_METRICS,
    METRICS,
    SILENCE,
    ScoreMeter,
    StemScores,
)
from htdemucs.evaluation.oracle import ideal_ratio_masks
from htdemucs.fast.runtime import threads
from htdemucs.settings import EngineSettings


@dataclass(frozen=True)
class EvaluationOptions:
    """The options of an evaluation.

    Attributes:
        model: any name or path that `load_model` takes; with `estimates`, only a name for them.
        repo: a folder to take the model's name from.
        estimates: a folder of stems to score instead of separating.
        stems: score only these; by default the model's, or all that have estimates and references.
        metrics: report only these, of `METRICS`; `BLEED_METRICS` take more time than the others.
        device, shifts, overlap, segment, batch_size: see `Separator`.
        precision: see `Separator`; the default here, fp32, is the same on every machine.
        seed: seed of the separator's random shifts, and of the bootstrap of the intervals.
        oracle: score the ideal ratio mask as well.
        spectra: compute spectrograms of stems and errors, for the report.
        workers: processes that share the tracks.

    Raises:
        EvaluationError: `workers` is less than 1, a metric does not exist, or a name is twice in a
            list.
    """

    model: str
    repo: Path | None = None
    estimates: Path | None = None
    stems: tuple[str, ...] | None = None
    metrics: tuple[str, ...] = DEFAULT_METRICS
    device: str | None = None
    shifts: int = EngineSettings.shifts
    overlap: float = EngineSettings.overlap
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
        if unknown := [metric for metric in self.metrics if metric not in METRICS]:
            raise EvaluationError(f"no metric {unknown[0]}; choose from {', '.join(METRICS)}")
        if not self.metrics or len(set(self.metrics)) < len(self.metrics):
            raise EvaluationError(f"name each metric once, not {','.join(self.metrics) or 'none'}")

    def to_dict(self) -> dict[str, Any]:
        """Return everything that scores depend on, for a JSON file."""
        fields = asdict(self)
        for name in ("device", "spectra", "workers"):
            del fields[name]
        return {k: str(v) if isinstance(v, Path) else v for k, v in fields.items()}


ROWS = ("model", "mixture", "oracle")
MATCHING_MIXTURE = 40.0  # dB of a mixture over its difference from the sum; less gives a note
OnSeconds = Callable[[float], None]


@dataclass(frozen=True)
class TrackScores:
    """The scores of one track, and what they depend on.

    Attributes:
        name: the track's name.
        sample_rate, duration: Hz and seconds of the scored audio.
        scores: by row ("model", "mixture", and "oracle" if enabled) and stem.
        silent_stems: stems whose reference is silent, so that their scores mean nothing.
        seconds: the time that the separation took; None for estimates from files.
        mixture_match: dB of the mixture over its difference from the sum of the stems; infinite if
            they are equal.
        nonfinite_samples: count of NaN and infinite samples in the estimates.
        notes: notes about unusual files.
        sha256: hash of every file, by kind and name: "stems/bass.wav", "estimates/bass.wav".
        peak_memory: largest amount of main memory that the scoring process has used, in bytes.
        peak_device_memory: the same for a GPU.
        spectra: (2, bands, columns) for each stem, the powers of the reference and of the
            estimate's error; empty unless enabled.
    """

    name: str
    sample_rate: int
    duration: float
    scores: dict[str, dict[str, StemScores]]
    silent_stems: tuple[str, ...]
    seconds: float | None
    mixture_match: float
    nonfinite_samples: int
    notes: tuple[str, ...]
    sha256: dict[str, str]
    peak_memory: int | None
    peak_device_memory: int | None
    spectra: dict[str, Tensor] = field(default_factory=dict)


@torch.no_grad()
def score_track(
    multitrack: Multitrack,
    estimator: Estimator,
    *,
    oracle: bool = True,
    spectra: bool = False,
    metrics: Sequence[str] = DEFAULT_METRICS,
    on_seconds: OnSeconds | None = None,
) -> TrackScores:
    """Score one multitrack in a single pass, in memory that does not depend on its length.

    Estimates are padded with silence or cut to the track's length, as in museval. `on_seconds` is
    called with the seconds that were scored since its last call.

    Raises:
        EvaluationError: the multitrack or its estimates lack a stem.
        AudioError: a file cannot be read, or the temporary file of `BLEED_METRICS` not written.
    """
    chosen = choose_stems(multitrack, estimator.stems, estimator.sources)
    reader = MultitrackReader(chosen, estimator.sample_rate, estimator.channels)
    accumulator = ScoreAccumulator(
        reader.columns(estimator.stems),
        reader.sample_rate,
        spectra=spectra,
        bleed=any(metric in BLEED_METRICS for metric in metrics),
    )
    estimates = estimator.estimates(reader)
    padded = _PaddedEstimates(estimates)
    with threads(1), closing(accumulator):
        for frame, ideal in _frames(reader, oracle=oracle):
            accumulator.push(frame, padded.take(frame, len(estimator.stems)), ideal)
            if on_seconds:
                on_seconds(frame.mixture.shape[-1] / reader.sample_rate)
        padded.drain()
        scores = accumulator.scores(estimator.stems)
    silent = accumulator.silent(estimator.stems)
    return TrackScores(
        name=multitrack.name,
        sample_rate=reader.sample_rate,
        duration=accumulator.length / reader.sample_rate,
        scores=scores,
        silent_stems=silent,
        seconds=estimates.seconds,
        mixture_match=accumulator.mixture_match(),
        nonfinite_samples=estimates.nonfinite_samples,
        notes=(*reader.notes(), *estimates.notes, *_notes(accumulator, padded, reader, silent)),
        sha256={
            f"{kind}/{path.name}": sha256(path)
            for kind, files in (("stems", reader.files), ("estimates", estimates.files))
            for path in files.values()
        },
        peak_memory=peak_memory(),
        peak_device_memory=peak_device_memory(),
        spectra=accumulator.spectra(estimator.stems),
    )


class ScoreAccumulator:
    """Accumulates the sums that scores are computed from, frame by frame.

    Close it to delete the temporary file of `BleedMeter`.
    """

    def __init__(
        self, columns: Sequence[int], sample_rate: int, *, spectra: bool, bleed: bool
    ) -> None:
        self.length = 0  # samples
        self._columns = list(columns)
        self._sample_rate = sample_rate
        self._meters: dict[str, ScoreMeter] = {}
        self._spectra = BandSpectrogram(sample_rate) if spectra else None
        self._bleed = BleedMeter(sample_rate) if bleed else None
        self._energies = torch.zeros(len(self._columns), dtype=torch.float64)
        self._samples = 0  # of all channels
        self._mixture_energy = self._difference_energy = 0.0

    def push(self, frame: Frame, estimates: Tensor, ideal: Tensor | None) -> None:
        """Add a frame, the estimates of its stems, and those of the ideal mask."""
        references = frame.stems[self._columns]
        rows = {"model": estimates, "mixture": frame.mixture.expand_as(references)}
        if ideal is not None:
            rows["oracle"] = ideal[self._columns]
        for name, row in rows.items():
            meter = self._meters.setdefault(name, ScoreMeter(self._sample_rate))
            meter.push(references, row)
        if self._bleed:
            self._bleed.push(references, torch.stack(list(rows.values())))
        if self._spectra:
            self._spectra.push(torch.cat([references, estimates - references]))
        mixture = frame.mixture.double()
        self._energies += references.double().square().sum((1, 2))
        self._samples += mixture.numel()
        self._mixture_energy += float(mixture.square().sum())
        self._difference_energy += float((mixture - frame.stems.double().sum(0)).square().sum())
        self.length += mixture.shape[-1]

    def scores(self, stems: Sequence[str]) -> dict[str, dict[str, StemScores]]:
        """Return the scores by row and stem. Call it once, after the last frame."""
        table = {name: meter.scores() for name, meter in self._meters.items()}
        if self._bleed:
            for scores, *bleed in zip(table.values(), *self._bleed.scores().tolist(), strict=True):
                for i, (bleedless, fullness) in enumerate(zip(*bleed, strict=True)):
                    scores[i] = replace(scores[i], bleedless=bleedless, fullness=fullness)
        return {name: dict(zip(stems, scores, strict=True)) for name, scores in table.items()}

    def close(self) -> None:
        """Delete the temporary file."""
        if self._bleed:
            self._bleed.close()

    def silent(self, stems: Sequence[str]) -> tuple[str, ...]:
        """Return the stems whose references are silent."""
        quiet = (self._energies < SILENCE * self._samples).tolist()
        return tuple(stem for stem, is_quiet in zip(stems, quiet, strict=True) if is_quiet)

    def museval_undefined(self) -> bool:
        """Return whether museval_sdr is undefined in every second."""
        return bool(self._meters["model"].museval_frames().isnan().all())

    def mixture_match(self) -> float:
        """Return the level of the mixture over its difference from the sum of the stems, dB."""
        if not self._difference_energy:
            return math.inf
        ratio = self._mixture_energy / self._difference_energy
        return 10 * math.log10(ratio) if ratio else -math.inf

    def spectra(self, stems: Sequence[str]) -> dict[str, Tensor]:
        """Return (2, bands, columns) for each stem: powers of reference and error."""
        if not self._spectra:
            return {}
        references, errors = self._spectra.powers().chunk(2)
        return {
            stem: torch.stack(pair) for stem, *pair in zip(stems, references, errors, strict=True)
        }


class _PaddedEstimates:
    """Estimates, cut or padded to the track's length."""

    def __init__(self, estimates: Estimates) -> None:
        self._frames = iter(estimates)
        self.length = 0  # samples of the estimates before cutting and padding

    def take(self, frame: Frame, stems: int) -> Tensor:
        """Return the next estimates (stems, C, L), as long as `frame`."""
        channels, length = frame.mixture.shape
        block = next(self._frames, torch.zeros(stems, channels, 0))
        self.length += block.shape[-1]
        return F.pad(block, (0, length - block.shape[-1]))

    def drain(self) -> None:
        """Read the estimates after the track's end, to know their length."""
        self.length += sum(block.shape[-1] for block in self._frames)


def _frames(reader: MultitrackReader, *, oracle: bool) -> Iterator[tuple[Frame, Tensor | None]]:
    """Yield the frames, each with the ideal mask's estimates of its stems."""
    if not oracle:
        return ((frame, None) for frame in reader.frames())
    frames, masked_frames = tee(reader.frames())
    blocks = (block.flatten(0, 1) for block in ideal_ratio_masks(masked_frames))
    seconds = reblock(blocks, reader.sample_rate)
    ideal = (block.unflatten(0, (len(reader.stems), -1)) for block in seconds)
    return zip(frames, ideal, strict=True)


def _notes(
    accumulator: ScoreAccumulator,
    padded: _PaddedEstimates,
    reader: MultitrackReader,
    silent: Sequence[str],
) -> Iterator[str]:
    excess = (padded.length - accumulator.length) / reader.sample_rate
    if excess:
        how = "longer" if excess > 0 else "shorter"
        yield f"the estimates are {abs(excess):.3f} s {how} than the track"
    if reader.multitrack.mixture and accumulator.mixture_match() < MATCHING_MIXTURE:
        yield (
            f"the mixture is not the sum of the stems: {accumulator.mixture_match():.1f} dB above "
            "their difference"
        )
    if silent:
        undefined = "; museval_sdr is undefined for every stem" * accumulator.museval_undefined()
        yield f"{', '.join(silent)} silent throughout: left out of the means{undefined}"
