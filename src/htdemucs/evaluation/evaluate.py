"""Score a folder of multitracks: `evaluate` and its result."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from htdemucs.devices import choose_device
from htdemucs.environment import machine
from htdemucs.evaluation.dataset import find_multitracks, skipped_folders
from htdemucs.evaluation.estimates import Estimator, estimated_stems
from htdemucs.evaluation.scoring import EvaluationOptions, TrackScores
from htdemucs.evaluation.workers import (
    ScoringJob,
    model_estimator,
    score_in_parallel,
    score_sequentially,
)
from htdemucs.events import EventCallback, ignore_events


@dataclass(frozen=True)
class Evaluation:
    """The scores of the multitracks of a data folder.

    Attributes:
        options: the options of the evaluation.
        data: the folder.
        stems: the stems that were scored.
        results: one per track, in order of their names.
        failures: why a track could not be scored, by its name.
        notes: notes about the folder as a whole.
        weights: sha256 of the model's files; empty for estimates from files.
        machine: system, processor and device of the evaluation.
        seconds: the time that the evaluation took.
    """

    options: EvaluationOptions
    data: Path
    stems: tuple[str, ...]
    results: tuple[TrackScores, ...]
    failures: dict[str, str]
    notes: tuple[str, ...]
    weights: dict[str, str]
    machine: dict[str, Any]
    seconds: float

    @property
    def real_time_factor(self) -> float | None:
        """Seconds of separation for a second of audio; None for estimates from files."""
        spent = [result.seconds for result in self.results]
        audio = sum(result.duration for result in self.results)
        if not audio or None in spent:
            return None
        return sum(seconds for seconds in spent if seconds) / audio

    @property
    def peak_memory(self) -> int | None:
        """Bytes of main memory that the largest process has used; None if unknown."""
        return max((r.peak_memory for r in self.results if r.peak_memory), default=None)

    @property
    def peak_device_memory(self) -> int | None:
        """Bytes of GPU memory that the largest process has used; None without a GPU."""
        peaks = (r.peak_device_memory for r in self.results if r.peak_device_memory)
        return max(peaks, default=None)


def evaluate(
    data: str | Path, options: EvaluationOptions, *, on_progress: EventCallback | None = None
) -> Evaluation:
    """Score every multitrack of a folder; tracks that fail are listed in `failures`.

    Scores do not depend on the number of workers. `on_progress` is called with the events of
    loading the model (`htdemucs.events`), and with the progress of all tracks together.

    Raises:
        EvaluationError: there are no tracks, or no stems to score.
        ModelNotFoundError, DownloadError, CheckpointError: the model cannot be loaded.
        SeparationError, ConfigError: the model or this machine does not support the options.
    """
    start = time.perf_counter()
    on_event = on_progress or ignore_events
    folders = find_multitracks(Path(data))
    in_parallel = min(options.workers, len(folders)) > 1
    device = "cpu" if options.estimates else str(choose_device(options.device))
    weights: dict[str, str] = {}
    if options.estimates:
        stems = options.stems or estimated_stems(options.estimates, folders)
        job = ScoringJob(options, stems, device)
        estimator: Estimator = job.estimator()
    else:
        # Workers load the model again. Here it is loaded to reject invalid options immediately.
        model = model_estimator(options, "cpu" if in_parallel else device, on_event)
        job = ScoringJob(options, model.stems, device)
        estimator = model
        if model.separator.origin:
            weights = model.separator.weights_sha256
    if in_parallel:
        scored = score_in_parallel(job, folders, on_event)
    else:
        scored = score_sequentially(job, folders, estimator, on_event)
    by_name = {folder.name: result for folder, result in scored}
    results = [by_name[folder.name] for folder in folders]
    return Evaluation(
        options=options,
        data=Path(data),
        stems=job.stems,
        results=tuple(result for result in results if isinstance(result, TrackScores)),
        failures={name: text for name, text in by_name.items() if isinstance(text, str)},
        notes=tuple(skipped_folders(Path(data))),
        weights=weights,
        machine=machine(None if options.estimates else device),
        seconds=time.perf_counter() - start,
    )
