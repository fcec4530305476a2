"""The JSON file of an evaluation: every score, and everything that it depends on."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from htdemucs.environment import combined_sha256, versions
from htdemucs.errors import EvaluationError
from htdemucs.evaluation import aggregate, bleed
from htdemucs.evaluation.evaluate import Evaluation
from htdemucs.evaluation.metrics import EPSILON, SILENCE, StemScores
from htdemucs.evaluation.oracle import N_FFT, POWER
from htdemucs.evaluation.scoring import ROWS, TrackScores
from htdemucs.fsutil import atomic_write

FORMAT = "htdemucs-evaluation"
FORMAT_VERSION = 1


def to_document(evaluation: Evaluation) -> dict[str, Any]:
    """Return an evaluation as the content of a JSON file, with None for NaN and infinity.

    `run` has what differs from run to run: times, memory, the machine. Everything else is the same
    for the same weights, data, options and versions.
    """
    results, metrics = evaluation.results, evaluation.options.metrics
    document = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "stems": list(evaluation.stems),
        "tracks": {result.name: _scores(result.scores["model"], metrics) for result in results},
        **_summaries(evaluation),
        "failures": evaluation.failures,
        "track_info": {result.name: _track_info(result) for result in results},
        "model": {"name": evaluation.options.model, "sha256": evaluation.weights},
        "data": _data(evaluation),
        "options": evaluation.options.to_dict(),
        "definitions": _definitions(metrics),
        "versions": versions(),
        "run": _run(evaluation),
    }
    return plain(document)


def write_document(evaluation: Evaluation, path: Path) -> None:
    """Write an evaluation as a JSON file, atomically.

    Raises:
        EvaluationError: the file cannot be written.
    """
    write_json(to_document(evaluation), path)


def write_json(document: Mapping[str, Any], path: Path) -> None:
    """Write a document as a JSON file, atomically.

    Raises:
        EvaluationError: the file cannot be written.
    """
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(text + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Write a text file atomically. Characters that UTF-8 lacks are escaped, as in JSON.

    Raises:
        EvaluationError: the file cannot be written.
    """
    try:
        with atomic_write(path) as partial:
            partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise EvaluationError(f"cannot write {path}: {error.strerror or error}") from error


def _summaries(evaluation: Evaluation) -> dict[str, Any]:
    """Return mean and median over tracks, of the model and of the baselines."""
    stems, options = evaluation.stems, evaluation.options
    metrics = options.metrics
    silent = _silent(evaluation)
    summaries: dict[str, Any] = {"oracle": None}
    undefined: dict[str, Any] = {}
    for row in rows(evaluation):
        tracks = {result.name: result.scores[row] for result in evaluation.results}
        scores = aggregate.score_array(list(tracks.values()), stems, metrics)
        scores[silent] = np.nan
        mean, median = statistics(row)
        for name, statistic in ((mean, aggregate.mean), (median, aggregate.median)):
            summaries[name] = aggregate.summary(scores, stems, metrics, statistic)
            summaries[f"{name}_interval"] = aggregate.confidence_interval(
                scores, stems, metrics, statistic, options.seed
            )
        if row != "model":
            summaries[f"{row}_tracks"] = {
                name: _scores(track, metrics) for name, track in tracks.items()
            }
        undefined[row] = aggregate.undefined(scores, stems, metrics)
    counts = dict(zip(stems, silent.sum(0).tolist(), strict=True))
    return summaries | {"undefined": undefined, "silent": counts}


def _silent(evaluation: Evaluation) -> NDArray[np.bool_]:
    """Return whether a reference is silent, (tracks, stems)."""
    table = [[s in r.silent_stems for s in evaluation.stems] for r in evaluation.results]
    return np.array(table, dtype=bool).reshape(len(table), len(evaluation.stems))


def rows(evaluation: Evaluation) -> dict[str, str]:
    """Return the rows of an evaluation with their labels."""
    model = "estimates" if evaluation.options.estimates else "model"
    labels = {"model": model, "mixture": "mixture", "oracle": "oracle"}
    return {row: labels[row] for row in (ROWS if evaluation.options.oracle else ROWS[:-1])}


def statistics(row: str) -> tuple[str, str]:
    """Return the JSON keys of a row's mean and median over tracks."""
    return ("mean", "median") if row == "model" else (row, f"{row}_median")


def _scores(stems: Mapping[str, StemScores], metrics: Sequence[str]) -> dict[str, dict[str, float]]:
    return {
        stem: {metric: getattr(scores, metric) for metric in metrics}
        for stem, scores in stems.items()
    }


def _track_info(result: TrackScores) -> dict[str, Any]:
    frames = {
        stem: {
            "total": len(s.frames),
            "nan": sum(map(math.isnan, s.frames)),
            "inf": sum(map(math.isinf, s.frames)),
            "sdr": list(s.frames),
        }
        for stem, s in result.scores["model"].items()
    }
    return {
        "duration": result.duration,
        "sample_rate": result.sample_rate,
        "mixture_match": result.mixture_match,
        "silent_stems": list(result.silent_stems),
        "non_finite_samples": result.nonfinite_samples,
        "museval_frames": frames,
        "notes": list(result.notes),
        "sha256": result.sha256,
    }


def _data(evaluation: Evaluation) -> dict[str, Any]:
    """Return the size and the hashes of the tracks."""
    hashes = {
        f"{result.name}/{file}": value
        for result in evaluation.results
        for file, value in result.sha256.items()
    }
    kinds = {
        kind: {k: v for k, v in hashes.items() if k.split("/")[-2] == kind}
        for kind in ("stems", "estimates")
    }
    return {
        "path": str(evaluation.data),
        "tracks": len(evaluation.results),
        "duration": sum(result.duration for result in evaluation.results),
        "notes": list(evaluation.notes),
        "sha256": combined_sha256(kinds["stems"]),
        "estimates_sha256": combined_sha256(kinds["estimates"]) if kinds["estimates"] else None,
    }


def _definitions(metrics: Sequence[str]) -> dict[str, str]:
    levels = (
        f"levels in {bleed.BANDS} mel bands (Slaney), Hann window of {bleed.N_FFT}, hop of "
        f"{bleed.HOP_LENGTH}, cut off {bleed.RANGE:g} dB below each signal's loudest"
    )
    mean = "100 / (1 + x), x the mean of the differences in dB where the estimate is"
    of_metrics = {
        "nsdr": f"MDX challenge: whole track, all channels, {EPSILON:g} added to both energies; dB",
        "museval_sdr": "BSS Eval v4 SDR, windows and hops of 1 s, median over finite frames; a "
        "frame in which any reference or estimate is silent counts for no stem; dB",
        "si_sdr": "scale-invariant SDR, whole track, one scale for all channels; dB",
        "bleedless": f"{mean} louder than the reference; {levels}",
        "fullness": f"{mean} softer than the reference; {levels}",
    }
    return {metric: of_metrics[metric] for metric in metrics} | {
        "oracle": f"ideal ratio mask, power {POWER}, Hann window of {N_FFT}, half overlapped",
        "all": "mean of the stems; null if a stem has none",
        "mean, median, mixture, oracle": "over tracks, leaving out null and silent references; "
        "the last two are means",
        "silent": f"tracks whose reference has a mean square below {SILENCE:g}",
        "interval": f"{aggregate.CONFIDENCE:.0%} percentile bootstrap, {aggregate.RESAMPLES} draws",
    }


def _run(evaluation: Evaluation) -> dict[str, Any]:
    results = evaluation.results
    return {
        "seconds": evaluation.seconds,
        "workers": evaluation.options.workers,
        "real_time_factor": evaluation.real_time_factor,
        "separation_seconds": {result.name: result.seconds for result in results},
        "peak_memory": evaluation.peak_memory,
        "peak_device_memory": evaluation.peak_device_memory,
        **evaluation.machine,
    }


def plain(value: Any) -> Any:
    """Return a value with None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
