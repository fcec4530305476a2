"""Score a folder of multitracks."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from htdemucs.devices import choose_device
from htdemucs.environment import machine
from htdemucs.evaluation.dataset import (
    find_multitracks,
    skipped_folders,
)
from htdemucs.evaluation.estimates import ModelEstimator, estimated_stems
from htdemucs.evaluation.scoring import EvaluationOptions, TrackResult
from htdemucs.evaluation.workers import (
    Scoring,
    model_estimator,
    score_here,
    score_in_processes,
)
from htdemucs.events import EventCallback, ignore_events


@dataclass(frozen=True)
class Evaluation:
    """The multitracks of a data folder, scored.

    Attributes:
        options: as they were given.
        data: the folder.
        stems: the stems that were scored.
        results: one per track, in order of their names.
        failures: why a track could not be scored, by its name.
        notes: anything odd about the folder as a whole.
        weights: sha256 of the model's files; empty with estimates from files.
        machine: system, processor and device that scored them.
        seconds: time that all of it took.
    """

    options: EvaluationOptions
    data: Path
    stems: tuple[str, ...]
    results: tuple[TrackResult, ...]
    failures: dict[str, str]
    notes: tuple[str, ...]
    weights: dict[str, str]
    machine: dict[str, Any]
    seconds: float

    @property
    def real_time_factor(self) -> float | None:
        """Seconds of separation for a second of audio; None with estimates from files."""
        spent = [result.seconds for result in self.results]
        audio = sum(result.duration for result in self.results)
        if not audio or None in spent:
            return None
        return sum(seconds for seconds in spent if seconds) / audio

    @property
    def peak_memory(self) -> int | None:
        """Bytes of main memory that the largest process held at once; None where unknown."""
        return max((r.peak_memory for r in self.results if r.peak_memory), default=None)

    @property
    def peak_device_memory(self) -> int | None:
        """Bytes of GPU memory that the largest process held at once; None without a GPU."""
        peaks = (r.peak_device_memory for r in self.results if r.peak_device_memory)
        return max(peaks, default=None)


def evaluate(
    data: str | Path, options: EvaluationOptions, *, on_progress: EventCallback | None = None
) -> Evaluation:
    """Score every multitrack of a folder. One that fails is noted; the others are scored.

    Scores do not depend on the number of workers. `on_progress` is called with the events of the
    model (`htdemucs.events`), and with the progress of all tracks together.

    Raises:
        EvaluationError: there are no tracks, or no stems to score.
        ModelNotFoundError, DownloadError, CheckpointError, SeparationError, ConfigError: the model
            cannot be had, or not with these options.
    """
    start = time.perf_counter()
    folders = find_multitracks(Path(data))
    scoring, weights, scored = _score(options, folders, on_progress or ignore_events)
    results = [scored[folder.name] for folder in folders]
    return Evaluation(
        options=options,
        data=Path(data),
        stems=scoring.stems,
        results=tuple(result for result in results if isinstance(result, TrackResult)),
        failures={name: text for name, text in scored.items() if isinstance(text, str)},
        notes=tuple(skipped_folders(Path(data))),
        weights=weights,
        machine=machine(None if options.estimates else scoring.device),
        seconds=time.perf_counter() - start,
    )


def _score(
    options: EvaluationOptions, folders: list[Path], tell: EventCallback
) -> tuple[Scoring, dict[str, str], dict[str, TrackResult | str]]:
    """Return how it was scored, the weights' hashes, and each track's result or failure by name."""
    several = min(options.workers, len(folders)) > 1
    device = "cpu" if options.estimates else str(choose_device(options.device))
    if options.estimates:
        stems = options.stems or estimated_stems(options.estimates, folders)
        scoring = Scoring(options, stems, device)
        estimator = scoring.estimator()
    else:
        # With workers, the model is loaded here only to refuse impossible options at once.
        estimator = model_estimator(options, "cpu" if several else device, tell)
        scoring = Scoring(options, estimator.stems, device)
    if several:
        pairs = score_in_processes(scoring, folders, tell)
    else:
        pairs = score_here(scoring, folders, estimator, tell)
    origin = estimator.separator.origin if isinstance(estimator, ModelEstimator) else None
    weights = origin.sha256 if origin else {}
    return scoring, weights, {folder.name: result for folder, result in pairs}
