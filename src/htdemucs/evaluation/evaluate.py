"""A folder of tracks, scored."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from htdemucs.devices import choose_device
from htdemucs.evaluation.estimates import ModelEstimator, estimated_stems
from htdemucs.evaluation.options import EvaluationOptions
from htdemucs.evaluation.scoring import TrackResult
from htdemucs.evaluation.tracks import Track, find_tracks
from htdemucs.evaluation.workers import (
    Job,
    OnProgress,
    model_estimator,
    score_here,
    score_in_processes,
)
from htdemucs.provenance import machine


@dataclass(frozen=True)
class Evaluation:
    """The tracks of a data folder, scored.

    Attributes:
        options: what was asked for.
        data: the folder.
        stems: what was scored.
        results: one a track, in order of their names.
        failures: why a track could not be scored, by its name.
        weights: sha256 of the model's files; empty with estimates from files.
        machine: where it ran.
        seconds: how long all of it took.
    """

    options: EvaluationOptions
    data: Path
    stems: tuple[str, ...]
    results: tuple[TrackResult, ...]
    failures: dict[str, str]
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
    data: str | Path, options: EvaluationOptions, *, on_progress: OnProgress | None = None
) -> Evaluation:
    """Score every track of a folder. One that fails is noted, and does not stop the others.

    Scores do not depend on the number of workers. `on_progress` is told how many seconds of all
    the tracks are scored.

    Raises:
        EvaluationError: there are no tracks, or no stems to score.
        ModelNotFoundError, DownloadError, CheckpointError, SeparationError, ConfigError: the model
            cannot be had, or not with these options.
    """
    start = time.perf_counter()
    tracks = find_tracks(Path(data))
    job, weights, outcomes = _run(options, tracks, on_progress)
    failures = {name: text for name, text in outcomes.items() if isinstance(text, str)}
    results = [outcomes[track.name] for track in tracks]
    return Evaluation(
        options=options,
        data=Path(data),
        stems=job.stems,
        results=tuple(result for result in results if isinstance(result, TrackResult)),
        failures=failures,
        weights=weights,
        machine=machine(None if options.estimates else job.device),
        seconds=time.perf_counter() - start,
    )


def _run(
    options: EvaluationOptions, tracks: list[Track], on_progress: OnProgress | None
) -> tuple[Job, dict[str, str], dict[str, TrackResult | str]]:
    """Score; return how, the hashes of the weights, and each track's result or failure by name."""
    several = min(options.workers, len(tracks)) > 1
    device = "cpu" if options.estimates else str(choose_device(options.device))
    if options.estimates:
        stems = options.stems or estimated_stems(options.estimates, tracks)
        job = Job(options, stems, device)
        estimator = job.estimator()
    else:
        # With workers, the model is loaded here only to refuse impossible options at once.
        estimator = model_estimator(options, "cpu" if several else device)
        job = Job(options, estimator.stems, device)
    if several:
        found = score_in_processes(job, tracks, on_progress)
    else:
        found = score_here(job, tracks, estimator, on_progress)
    origin = estimator.separator.origin if isinstance(estimator, ModelEstimator) else None
    weights = origin.sha256 if origin else {}
    return job, weights, {track.name: outcome for track, outcome in found}
